"""rsync's daemon, without ssh. The client is two processes that read and write the same connection."""
from rig.pair import PORT

from .stage import case, find, need_users, random_bytes, size

FILES = 8


@case("rsync", "rsync daemon", ["rsync"], shape="a process for each connection; the client, under nsrun, too, forks a receiver",
      done="8 files, 8 MB, fetched with --checksum")
def rsync(s):
    need_users()
    data = {f"file{n:02d}": random_bytes(1_000_000, b"rsync%d" % n) for n in range(FILES)}
    for name, content in data.items():
        s.file(f"module/{name}", content)
    user = "uid = root\ngid = root\n"
    s.file("rsyncd.conf", f"port = {PORT}\nuse chroot = no\n{user}[module]\npath = {s.path('module')}\n")
    s.server(find("rsync"), "--daemon", "--no-detach", f"--config={s.path('rsyncd.conf')}",
             f"--log-file={s.path('rsyncd.log')}")
    target = s.path("target")
    client = s.wrapped_client("rsync", "-a", "--checksum", "--inplace", f"rsync://tage:{PORT}/module/", target)
    s.cuts_during("the files", lambda: sum(size(f"{target}/{name}") for name in data), FILES * 1_000_000)
    s.end(client)
    for name, content in data.items():
        s.same_file(f"{target}/{name}", content)

