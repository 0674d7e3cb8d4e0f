"""nginx with sendfile: as one process, and with a master and workers that accept from the same listener."""
from rig.pair import PORT

from .stage import case, find, random_bytes, size

CONFIG = """worker_processes {workers};
master_process {master};
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log;
user root;
events {{ }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen {port};
        listen [::]:{port};
        root {dir}/www;
    }}
}}
"""
TRANSFERS = 4


def served(s, workers, master):
    """Four files at a time, each over a connection of its own."""
    data = [random_bytes(2_000_000, b"nginx%d" % n) for n in range(TRANSFERS)]
    for n, content in enumerate(data):
        s.file(f"www/file{n}", content)
    s.file("nginx.conf", CONFIG.format(workers=workers, master=master, dir=s.dir, port=PORT))
    s.server(find("nginx"), "-e", s.path("nginx.log"), "-c", s.path("nginx.conf"))
    targets = [s.path(f"target{n}") for n in range(TRANSFERS)]
    client = s.client("curl", "-sS", "--parallel", "--parallel-immediate", "--http1.1",
                      *(word for n, target in enumerate(targets) for word in
                        ("-o", target, f"http://tage:{PORT}/file{n}")))
    s.protected(TRANSFERS)
    s.cuts_during("the files", lambda: sum(map(size, targets)), sum(map(len, data)))
    s.end(client)
    for target, content in zip(targets, data):
        s.same_file(target, content)


@case("nginx-one", "nginx, curl", ["nginx", "curl"], ("-v",), "one process, `master_process off`",
      "4 files of 2 MB at a time, sendfile")
def one(s):
    served(s, 1, "off")


@case("nginx", "nginx, curl", ["nginx", "curl"], ("-v",), "a master and 3 workers, forked, that share the listeners",
      "4 files of 2 MB at a time, sendfile")
def workers(s):
    served(s, 3, "on")
