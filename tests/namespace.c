#include "namespace.h"

#include <dirent.h>
#include <err.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

static bool refused(const char *what)
{
    warn("skipped: no namespaces of its own: %s", what);
    return false;
}

static bool unshare_as_root(void)
{
    const int wanted = CLONE_NEWNET | CLONE_NEWNS;
    unsigned uid = getuid(), gid = getgid();
    char map[64];

    if (unshare(wanted) == 0)
        return true;
    if (unshare(wanted | CLONE_NEWUSER) < 0)
        return refused("unshare");
    ns_test_write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof(map), "0 %u 1", uid);
    ns_test_write_file("/proc/self/uid_map", map);
    snprintf(map, sizeof(map), "0 %u 1", gid);
    ns_test_write_file("/proc/self/gid_map", map);
    return true;
}

static bool loopback_up(void)
{
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int result = ioctl(fd, SIOCSIFFLAGS, &request);

    close(fd);
    return result == 0 || refused("loopback");
}

/* ip(8) and dnsmasq(8) are where an ordinary user's PATH does not lead. */
static void find_system_programs(void)
{
    const char *path = getenv("PATH");
    char longer[4096];

    snprintf(longer, sizeof(longer), "%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin");
    setenv("PATH", longer, 1);
}

bool ns_test_enter_namespace(void)
{
    find_system_programs();
    if (!unshare_as_root() || !loopback_up())
        return false;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/etc", "tmpfs", 0, "size=1m,mode=755") < 0)
        return refused("mount");
    ns_test_write_file("/etc/passwd", "root:x:0:0:root:/:/bin/sh\n");
    ns_test_write_file("/etc/group", "root:x:0:\n");
    return true;
}

void ns_test_write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    if (!file || fputs(text, file) == EOF || fclose(file) == EOF)
        err(1, "%s", path);
}

void ns_test_run(const char *command)
{
    if (system(command) != 0)
        errx(1, "failed: %s", command);
}

int ns_test_count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = -3; /* "." and ".." and the directory's own descriptor */

    if (!dir)
        err(1, "/proc/self/fd");
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}
