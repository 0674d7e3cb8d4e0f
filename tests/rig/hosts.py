"""The rig: hosts `troels` and `tage` of the thesis's figure 6.1, each a network namespace.

    troels  link-a  3ffe:2a00:100:3100::f00d:cafe  10.31.0.1 ---- 10.31.0.2  ...3100::dead:beef  link-a  tage
            link-b  3ffe:2a00:100:3200::f00d:cafe  10.32.0.1 ---- 10.32.0.2  ...3200::dead:beef  link-b

With nat=True there is one link, IPv4 only, with a translating router in the middle:

    troels  link-a  10.33.0.1 ---- 10.33.0.254  nat  10.31.0.254 ---- 10.31.0.2  link-a  tage

Names are served by dnsmasq on every host (AAAA and A), by /etc/hosts, or by both. Every namespace, process
and file has a name of its own and goes away with the rig; nothing else is touched.
"""
import atexit
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from . import netns, wire
from .procs import DEADLINE_S, Proc, Log, wait_for

PREFIX = {"link-a": "3ffe:2a00:100:3100::", "link-b": "3ffe:2a00:100:3200::"}
PREFIX4 = {"link-a": "10.31.0.", "link-b": "10.32.0."}
HOST_ID = {"troels": ("f00d:cafe", 1), "tage": ("dead:beef", 2)}
NAT_INSIDE = "10.33.0."

_serial = itertools.count(1)


class RigError(Exception):
    pass


def become_root():
    """Not root: run this program again as root of an own user namespace. Returns when there is nothing to do."""
    if os.geteuid() == 0:
        if os.environ.get("NS_RIG_USERNS") == "1":
            os.environ["NS_RIG_USERNS"] = "2"
            # ip-netns keeps its names under /run, which is the outer root's: cover it.
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        return
    if os.environ.get("NS_RIG_USERNS") or not shutil.which("unshare"):
        raise RigError("this needs root, or `unshare -Urnm` (util-linux, and user namespaces allowed)")
    os.environ["NS_RIG_USERNS"] = "1"
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", "-Urnm", sys.executable] + sys.argv)


def run(argv, **kw):
    done = subprocess.run(argv, text=True, capture_output=True, **kw)
    if done.returncode:
        raise RigError(f"{' '.join(argv)}: {done.stderr.strip()}\n{kw.get('input', '')}")
    return done.stdout


class Host:
    """One namespace. `net` is its path; `socket` an IPv6 datagram socket inside it, for ioctl."""

    def __init__(self, rig, name):
        self.rig = rig
        self.name = name
        self.ns = f"{rig.prefix}-{name}"
        self.net = f"/run/netns/{self.ns}"
        self.etc = os.path.join(rig.dir, "etc-" + name)
        self.holder = None
        self.dnsmasq = None
        self.addresses = {}                                   # (link, address/len) that belong here
        os.mkdir(self.etc)
        run(["ip", "netns", "add", self.ns])
        with netns.inside(self.net):
            self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            for key, value in (("ipv6/conf/all/accept_dad", 0), ("ipv6/conf/default/accept_dad", 0),
                               ("ipv6/conf/default/accept_ra", 0), ("ipv6/conf/default/router_solicitations", 0),
                               # Without this the kernel drops a link's newer IPv4 addresses with its first one.
                               ("ipv4/conf/all/promote_secondaries", 1)):
                with open("/proc/sys/net/" + key, "w") as f:
                    f.write(str(value))
        netns.set_link(self.socket, "lo", True)

    # -- addresses and links --------------------------------------------------------------------------------

    def ip(self, *lines):
        """Several `ip` commands in one process."""
        run(["ip", "-n", self.ns, "-batch", "-"], input="\n".join(lines) + "\n")

    def own(self, link, *addresses):
        """Addresses (with /length) that `link` has from now on, and again after each link_up."""
        self.addresses.setdefault(link, []).extend(addresses)
        self.ip(*(self._add(link, a) for a in addresses))

    @staticmethod
    def _add(link, address):
        return f"address add {address} dev {link}" + (" nodad" if ":" in address else "")

    def link_down(self, link):
        netns.set_link(self.socket, link, False)

    def link_up(self, link):
        """Up, and the addresses back that the kernel dropped with the link (all the IPv6 ones)."""
        netns.set_link(self.socket, link, True)
        self.ip(*("address replace" + self._add(link, a)[len("address add"):] for a in self.addresses[link]))

    def address_del(self, link, which=None):
        """Remove the link's addresses (those for which which(address) holds), at once."""
        gone = [a for a in self.addresses[link] if which is None or which(a)]
        self.ip(*(f"address del {a} dev {link}" for a in gone))

    def address_add(self, link):
        self.link_up(link)

    def disown(self, link, *addresses):
        self.addresses[link] = [a for a in self.addresses[link] if a not in addresses]
        self.ip(*(f"address del {a} dev {link}" for a in addresses))

    def address(self, link, family=6):
        for a in self.addresses[link]:
            if (":" in a) == (family == 6):
                return a.split("/")[0]
        raise RigError(f"{self.name} has no IPv{family} address on {link}")

    # -- packet filter --------------------------------------------------------------------------------------

    def nft(self, text):
        run(["nsenter", f"--net={self.net}", "nft", "-f", "-"], input=text)

    def nft_list(self, *what):
        return run(["nsenter", f"--net={self.net}", "nft", "list", *what])

    def drop_incoming(self, link):
        """What arrives on `link` vanishes. Neighbour discovery still works: the hole is further on."""
        self.nft(f"""table inet hole_{link.replace('-', '_')} {{
            chain in {{ type filter hook prerouting priority -400;
                iifname "{link}" meta l4proto != ipv6-icmp drop;
            }}
        }}""")

    def pass_incoming(self, link):
        self.nft(f"delete table inet hole_{link.replace('-', '_')}")

    # -- programs -------------------------------------------------------------------------------------------

    def argv(self, argv, env=None):
        """argv as a command line that runs on this host. The environment is set after the last exec of ours,
        so that a preloaded library gets into the program alone."""
        setting = [f"{k}={v}" for k, v in (env or {}).items()]
        return ["nsenter", "-t", str(self.holder.pid), "-n", "-m", f"--wd={os.getcwd()}",
                "env", "-u", "LD_PRELOAD", *setting, *argv]

    def start(self, name, argv, env=None, **kw):
        proc = Proc(name, self.argv([str(a) for a in argv], env), self.rig.dir, **kw)
        self.rig.procs.append(proc)
        return proc

    def run(self, *argv, **kw):
        return subprocess.run(self.argv([str(a) for a in argv]), text=True, capture_output=True, **kw)

    def hold(self):
        """A process that keeps this host's own /etc files mounted, and dies with the rig."""
        mounts = " && ".join(f"mount --bind {self.etc}/{f} /etc/{f}" for f in ("resolv.conf", "hosts", "nsswitch.conf"))
        self.holder = subprocess.Popen(
            ["ip", "netns", "exec", self.ns, "sh", "-c", f"{mounts} && echo ready && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=netns.die_with_parent)
        if self.holder.stdout.readline() != b"ready\n":
            raise RigError(f"cannot mount own /etc files on {self.name}")

    def flows(self, port, states=("ESTAB", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT")):
        """Connections that carry data with `port` at either end: list of (local, lport, remote, rport).

        HELLO connections, which stay open half closed (docs/protocol.md), are not among them: the client has sent
        one byte on them and its FIN.
        """
        out = run(["ss", "-N", self.ns, "-tniHO", f"( sport = :{port} or dport = :{port} )"])
        flows = []
        for line in out.splitlines():
            state, _, _, *ends = line.split()[:5]
            if state not in states:
                continue
            count = {key: int(n) for key, n in re.findall(r"(bytes_sent|bytes_received):(\d+)", line)}
            if (state.startswith("FIN-WAIT") and count.get("bytes_sent", 0) <= 2 or
                    state == "CLOSE-WAIT" and count.get("bytes_received", 0) <= 2):
                continue
            (local, lport), (remote, rport) = (e.rsplit(":", 1) for e in ends)
            strip = lambda a: a.strip("[]").replace("::ffff:", "")
            flows.append((strip(local), int(lport), strip(remote), int(rport)))
        return flows

    def backlog(self, port):
        """How many connections wait to be accepted."""
        return sum(int(line.split()[0]) for line in
                   run(["ss", "-N", self.ns, "-tlnHO", f"sport = :{port}"]).replace("LISTEN", "").splitlines())

    def end_all(self):
        """Whatever runs on this host: what the programs have started in turn, too, which their end does not end."""
        for pid in subprocess.run(["ip", "netns", "pids", self.ns], capture_output=True, text=True).stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def close(self):
        if self.holder:
            self.holder.kill()
            self.holder.wait()
            self.holder.stdin.close()
            self.holder.stdout.close()
        self.socket.close()
        subprocess.run(["ip", "netns", "del", self.ns], capture_output=True)


class Rig:
    """names: "dns", "hosts" or "both"."""

    def __init__(self, names="dns", nat=False, keep=None):
        self.prefix = f"ns{os.getpid()}x{next(_serial)}"
        self.dir = keep or tempfile.mkdtemp(prefix="namesocket-rig-")
        self.keep = keep is not None
        os.makedirs(self.dir, exist_ok=True)
        os.chmod(self.dir, 0o755)
        self.names = names
        self.procs = []
        self.closed = False
        self.hosts = []
        self.records = {}                                     # name -> list of addresses, as DNS has them now
        atexit.register(self.close)
        # However this process ends, the guard sees its pipe close and takes the namespaces away.
        self.guard = subprocess.Popen(
            ["sh", "-c", 'trap "" INT TERM HUP; cat; for n in /run/netns/"$0"-*; do [ -e "$n" ] && '
             'ip netns del "${n##*/}"; done', self.prefix],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            self._build(nat)
        except BaseException:
            self.close()
            raise

    def _build(self, nat):
        self.troels, self.tage = self._host("troels"), self._host("tage")
        self.nat = self._host("nat") if nat else None
        if nat:
            self._wire(self.troels, "link-a", self.nat, "inside")
            self._wire(self.nat, "outside", self.tage, "link-a")
            self.troels.own("link-a", NAT_INSIDE + "1/24")
            self.nat.own("inside", NAT_INSIDE + "254/24")
            self.nat.own("outside", "10.31.0.254/24")
            self.tage.own("link-a", "10.31.0.2/24")
            self.troels.ip(f"route add default via {NAT_INSIDE}254")
            with netns.inside(self.nat.net), open("/proc/sys/net/ipv4/ip_forward", "w") as f:
                f.write("1")
            self.nat_ports = (40000, 44999)
            self._masquerade()
        else:
            for link in PREFIX:
                self._wire(self.troels, link, self.tage, link)
                for host in (self.troels, self.tage):
                    id6, id4 = HOST_ID[host.name]
                    host.own(link, f"{PREFIX[link]}{id6}/64", f"{PREFIX4[link]}{id4}/24")
        for host in (self.troels, self.tage):
            self.records[host.name] = [a.split("/")[0] for link in host.addresses for a in host.addresses[link]]
        self._name_service()

    def _host(self, name):
        host = Host(self, name)
        self.hosts.append(host)
        return host

    def _wire(self, left, left_link, right, right_link):
        run(["ip", "link", "add", left_link, "netns", left.ns, "type", "veth", "peer", "name", right_link,
             "netns", right.ns])
        netns.set_link(left.socket, left_link, True)
        netns.set_link(right.socket, right_link, True)

    # -- names ----------------------------------------------------------------------------------------------

    def _name_service(self):
        for host in (self.troels, self.tage):
            self._write(host, "nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
            dns = self.names != "hosts"
            self._write(host, "resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n" if dns else
                        "# no DNS here\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            self._hosts_files(host)
            host.hold()
            if dns:
                self._dnsmasq(host)

    @staticmethod
    def _write(host, name, text):
        # Written in place: the bind mount holds on to the inode.
        with open(os.path.join(host.etc, name), "w") as f:
            f.write(text)

    def _hosts_files(self, host):
        local = "127.0.0.1 localhost\n::1 localhost\n"
        table = "".join(f"{a} {name}\n" for name, addresses in self.records.items() for a in addresses)
        self._write(host, "hosts", local + (table if self.names != "dns" else ""))
        self._write(host, "dns-records", table)

    def _dnsmasq(self, host):
        dnsmasq = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
        user = [] if os.environ.get("NS_RIG_USERNS") is None else ["--user=root", "--group=root"]
        host.dnsmasq = host.start(f"dnsmasq-{host.name}", [
            dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-daemon",
            "--log-queries", "--no-round-robin", f"--addn-hosts={host.etc}/dns-records", "--local-ttl=0", f"--pid-file={host.etc}/pid",
            *user])

        def answers():
            with netns.inside(host.net), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.settimeout(0.1)
                s.connect(("127.0.0.1", 53))
                try:
                    s.send(bytes.fromhex("abcd01000001000000000000") + b"\4tage\0" + bytes.fromhex("00010001"))
                    return s.recv(512)[7] > 0
                except OSError:
                    return False
        wait_for("dnsmasq answers", answers, 10)

    def rename(self, name, addresses):
        """From now on `name` has these addresses, in DNS and in /etc/hosts."""
        self.records[name] = list(addresses)
        for host in (self.troels, self.tage):
            self._hosts_files(host)
            if host.dnsmasq:
                log = Log(host.dnsmasq.err_path)
                before = log.count("dns-records")
                host.dnsmasq.p.send_signal(signal.SIGHUP)
                wait_for("dnsmasq reads its records again", lambda: log.count("dns-records") > before)

    # -- faults that take both hosts ------------------------------------------------------------------------

    def other(self, host):
        return self.tage if host is self.troels else self.troels

    def renumber(self, host, new_id6="feed:face", new_id4=77):
        """A new address on every link, new records, then the old addresses go."""
        old = {link: list(a) for link, a in host.addresses.items()}
        for link in old:
            host.own(link, f"{PREFIX[link]}{new_id6}/64", f"{PREFIX4[link]}{new_id4}/24")
        now = [a for link in old for a in host.addresses[link] if a not in old[link]]
        self.rename(host.name, [a.split("/")[0] for a in now])
        for link in old:
            host.disown(link, *old[link])

    def reset_flows(self, victims, port, timeout_s=DEADLINE_S):
        """A RST with the exact sequence number into every connection on `port` at each of `victims`.

        The victim's packet filter answers the victim's own next segment with a RST (it takes the sequence
        number from that segment, so it is right by construction); a stray segment from the other side makes
        the victim send one, an idle connection too (the challenge ACK of RFC 5961, section 5).
        """
        flows = {v: v.flows(port) for v in victims}
        for victim in victims:
            if not flows[victim]:
                raise RigError(f"{victim.name} has no connection on port {port}")
            rules = "".join(
                f"{'ip6' if ':' in remote else 'ip'} daddr {remote} tcp sport {lport} tcp dport {rport} "
                "counter reject with tcp reset;\n" for _, lport, remote, rport in flows[victim])
            victim.nft(f"table inet rst {{ chain out {{ type filter hook output priority 0;\n{rules} }}\n}}")
        try:
            for victim in victims:
                for flow in flows[victim]:
                    wire.stray_segment(victim, self.other(victim), flow)
            for victim in victims:
                dead = set(flows[victim])
                wait_for(f"reset at {victim.name}", lambda: not dead & set(victim.flows(port)), timeout_s)
        finally:
            for victim in victims:
                victim.nft("delete table inet rst")

    def _masquerade(self):
        low, high = self.nat_ports
        self.nat.nft("table ip nat\ndelete table ip nat\n"
                     "table ip nat { chain out { type nat hook postrouting priority 100;\n"
                     f'oifname "outside" meta l4proto tcp masquerade to :{low}-{high} random;\n'
                     'oifname "outside" masquerade;\n}\n}')

    def change_nat_ports(self):
        """The router forgets its translations and picks ports from another range: what a reboot of it does."""
        self.nat_ports = (50000, 54999) if self.nat_ports[0] == 40000 else (40000, 44999)
        self._masquerade()
        netns.flush_conntrack(self.nat.net)

    # -- end ------------------------------------------------------------------------------------------------

    def close(self):
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        for host in self.hosts:
            host.end_all()
        for proc in reversed(self.procs):
            proc.kill()
            for f in (proc.p.stdin, proc.p.stdout):
                if f:
                    try:
                        f.close()
                    except OSError:
                        pass
        for host in self.hosts:
            host.close()
        self.guard.stdin.close()
        self.guard.wait()
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
