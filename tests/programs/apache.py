"""Apache's prefork: processes that take turns at one listener."""
from rig.pair import PORT

from .stage import case, need_users, random_bytes, size

MODULES = "/usr/lib/apache2/modules"
CONFIG = """ServerRoot {dir}
ServerName tage
DefaultRuntimeDir {dir}
PidFile {dir}/apache.pid
ErrorLog {dir}/apache.log
LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so
LoadModule authz_core_module {modules}/mod_authz_core.so
StartServers 3
MinSpareServers 3
Listen {port}
User www-data
Group www-data
DocumentRoot {dir}/www
EnableSendfile on
EnableMMAP off
"""


@case("apache", "Apache prefork, curl", ["apache2", "curl"], ("-v",), "processes that take turns to accept",
      "8 MB by HTTP")
def apache(s):
    need_users()
    data = random_bytes(8_000_000)
    s.file("www/big", data)
    s.file("apache.conf", CONFIG.format(dir=s.dir, modules=MODULES, port=PORT))
    s.server("/usr/sbin/apache2", "-D", "FOREGROUND", "-f", s.path("apache.conf"))
    target = s.path("target")
    client = s.client("curl", "-sS", "-o", target, f"http://tage:{PORT}/big")
    s.cuts_during("the file", lambda: size(target), len(data))
    s.end(client)
    s.same_file(target, data)
