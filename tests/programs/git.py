"""git clone: from git's own daemon, and over ssh."""
import os

from rig.pair import PORT, Wrong

from . import openssh
from .stage import case, find, random_bytes, size

BLOBS = 8


def repository(s, name):
    """A repository with 8 MB that do not compress. Returns the hash that its contents go by."""
    work = s.path("work")

    def git(*argv):
        done = s.rig.tage.run("git", "-c", "user.name=Troels", "-c", "user.email=troels@example.org", "-c",
                              "init.defaultBranch=main", "-C", work, *argv)
        if done.returncode:
            raise Wrong(f"git {argv[0]}: {done.stderr}")
        return done.stdout.strip()
    os.mkdir(work)
    for n in range(BLOBS):
        s.file(f"work/blob{n}", random_bytes(1_000_000, b"blob%d" % n))
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "blobs")
    git("clone", "-q", "--bare", work, s.path(name))
    return git("rev-parse", "HEAD^{tree}")


def arrived(directory):
    """Bytes in the pack that is being received."""
    packs = os.path.join(directory, ".git/objects/pack")
    try:
        return sum(size(os.path.join(packs, name)) for name in os.listdir(packs))
    except FileNotFoundError:
        return 0


def cloned(s, tree, url, settings=()):
    target = s.path("target")
    client = s.client("git", "-c", "core.compression=0", "clone", "-q", url, target, settings=settings)
    s.cuts_during("the pack", lambda: arrived(target), BLOBS * 1_000_000)
    s.end(client)
    # The name of a tree is a hash over all that is in it; fsck looks whether the objects are what they are called.
    check = s.rig.troels.run("git", "-C", target, "fsck", "--full", "--strict")
    if check.returncode:
        raise Wrong(f"git fsck: {check.stderr}")
    got = s.rig.troels.run("git", "-C", target, "rev-parse", "HEAD^{tree}").stdout.strip()
    s.same("the tree", got, tree, BLOBS * 1_000_000)


@case("git-daemon", "git clone git://", ["git"], shape="fork and exec for each connection; the client hands the socket to a thread",
      done="8 MB cloned from git daemon, git fsck")
def daemon(s):
    tree = repository(s, "served/repo.git")
    s.server(find("git"), "daemon", f"--base-path={s.path('served')}", "--export-all", "--reuseaddr", f"--port={PORT}")
    cloned(s, tree, f"git://tage:{PORT}/repo.git")


@case("git-ssh", "git clone ssh://", ["git", "sshd", "ssh", "ssh-keygen"], shape=openssh.SHAPE,
      done="8 MB cloned over ssh, git fsck")
def over_ssh(s):
    home = openssh.sshd(s)
    tree = repository(s, "home/repo.git")
    s.rig.tage.run("chown", "-R", f"{openssh.UID}:{openssh.UID}", home)
    command = " ".join(map(str, ["ssh", *openssh.options(s)]))
    cloned(s, tree, f"ssh://{openssh.USER}@tage:{PORT}{home}/repo.git", {"GIT_SSH_COMMAND": command})
