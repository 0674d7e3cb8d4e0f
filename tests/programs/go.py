"""A Go client, which the shim cannot get into: nsrun makes its connections for it."""
import os
import shutil

from rig.pair import PORT, Wrong

from .stage import PEERS, case, payload


@case("go", "Go net/http under nsrun --gateway", ["go"], ("version",), "goroutines; its own system calls",
      "8 MB by HTTP from Python's http.server, hashed as it comes")
def go(s):
    data = payload(8_000_000)
    s.file("www/big", data)
    shutil.copy(os.path.join(PEERS, "get.go"), s.path("get.go"))
    # Nothing is fetched, and nothing is left in the user's cache. With cgo the standard library is as Debian has
    # compiled it; linked by gcc, so that the program is static, and told to look names up by itself.
    offline = {"GOCACHE": s.path("go-cache"), "GOPATH": s.path("go"), "GOPROXY": "off", "GOFLAGS": "", "GOENV": "off",
               "GO111MODULE": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "1"}
    build = s.rig.troels.run("env", *(f"{k}={v}" for k, v in offline.items()), "go", "build", "-ldflags",
                             "-linkmode external -extldflags -static", "-o", s.path("get"), s.path("get.go"))
    if build.returncode:
        raise Wrong(f"go build: {build.stderr}")
    s.server("python3", "-u", "-m", "http.server", "--bind", "::", "-d", s.path("www"), PORT)
    client = s.last = s.rig.troels.start("client", [s.context.built("src/daemon/nsrun"), "--gateway", s.path("get"),
                                           f"http://tage:{PORT}/big"], {**s.env_of_daemon("client"), "GODEBUG": "netdns=go"})
    s.cuts_during("the file", lambda: s.told(client), len(data))
    s.end(client)
    s.same_told(client, len(data))
