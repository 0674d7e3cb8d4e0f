#include "engine/internal.h"

#include "engine/socket.h"
#include "engine/sys.h"

static uint64_t noted[NS_FD_MAX / 64];
static uint64_t inherited[NS_FD_MAX / 64]; /* of them, those that a forked child keeps */

static void set(uint64_t *bits, int fd, bool on)
{
    uint64_t bit = (uint64_t)1 << (fd % 64);
    if ((unsigned)fd >= NS_FD_MAX)
        return;
    if (on)
        __atomic_fetch_or(&bits[fd / 64], bit, __ATOMIC_RELAXED);
    else
        __atomic_fetch_and(&bits[fd / 64], ~bit, __ATOMIC_RELAXED);
}

static void note(int fd, bool on)
{
    set(noted, fd, on);
    if (!on && (unsigned)fd < NS_FD_MAX && __atomic_load_n(&inherited[fd / 64], __ATOMIC_RELAXED))
        set(inherited, fd, false);
}

void ns_internal_inherit(int fd)
{
    set(inherited, fd, true);
}

int ns_internal(int fd)
{
    fd = ns_sys_high(fd);
    if (fd >= 0)
        note(fd, true);
    return fd;
}

void ns_internal_release(int fd)
{
    note(fd, false);
}

void ns_internal_close(int fd)
{
    if (fd < 0)
        return;
    note(fd, false);
    ns_sys_close(fd);
}

bool ns_fd_internal(int fd)
{
    return (unsigned)fd < NS_FD_MAX && (__atomic_load_n(&noted[fd / 64], __ATOMIC_RELAXED) >> (fd % 64) & 1);
}

void ns_internal_fork_child(void)
{
    for (size_t i = 0; i < sizeof noted / sizeof *noted; i++)
        for (int bit = 0; noted[i] && bit < 64; bit++)
            if ((noted[i] & ~inherited[i]) >> bit & 1)
                ns_internal_close((int)(i * 64) + bit);
}
