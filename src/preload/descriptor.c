/*
 * Calls on a descriptor's number and state: close, closefrom, close_range,
 * dup*, fcntl, ioctl and their twins.
 */
#include <linux/close_range.h>
#include <sys/ioctl.h>

#include "preload/interpose.h"
#include "preload/stream.h"

/* The engine's own descriptors do not exist for the application. */
NS_EXPORT int close(int fd)
{
    if (ns_ready() && ns_fd_internal(fd))
        return (int)ns_result(-EBADF);
    if (ns_ours(fd))
        ns_fd_closing(fd);
    return ns_real.close(fd);
}

NS_TWIN(__close, close);

/* A range that is being closed, from below, around the engine's descriptors. */
struct range {
    unsigned next; /* all below is done */
    int flags;
};

/* `fd` is open, and next in order. False when the kernel does not close what is below; errno says why. */
static bool visit(struct range *r, unsigned fd, bool spared)
{
    if (!spared && !ns_fd_internal((int)fd)) {
        if (ns_ours((int)fd))
            ns_fd_closing((int)fd);
        return true;
    }
    if (fd > r->next && ns_real.close_range(r->next, fd - 1, r->flags) < 0)
        return false;
    r->next = fd + 1;
    return true;
}

/* The number that a name in /proc/self/fd stands for; INT_MAX for "." and "..". */
static unsigned number(const char *name)
{
    unsigned n = 0;

    if (*name < '0' || *name > '9')
        return INT_MAX;
    for (; *name >= '0' && *name <= '9'; name++)
        n = n * 10 + (unsigned)(*name - '0');
    return n;
}

struct entry { /* getdents64(2) */
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

/*
 * Visits the open descriptors from r->next to `top`, in rising order as the kernel
 * lists them. No libc: closefrom is called between fork and exec. Returns 1, 0 when
 * they cannot be listed (the rest is to be visited otherwise), or -1 as `visit`.
 */
static int visit_open(struct range *r, unsigned top)
{
    int dir = ns_sys_openat(AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    _Alignas(struct entry) char buf[2048];
    unsigned first = r->next;
    bool going = true;
    long n = -1;

    if (dir < 0)
        return 0;
    while (going && (n = ns_syscall6(SYS_getdents64, dir, (long)buf, sizeof buf, 0, 0, 0)) > 0) {
        for (long at = 0; at < n && going; at += ((struct entry *)(buf + at))->bytes) {
            unsigned fd = number(((struct entry *)(buf + at))->name);

            if (fd >= first && fd <= top)
                going = visit(r, fd, fd == (unsigned)dir);
        }
    }
    ns_sys_close(dir);
    return !going ? -1 : n == 0;
}

/*
 * Closes what lies between the engine's own descriptors. No descriptor at or
 * above NS_FD_MAX is the engine's or a session. The table is walked only
 * where /proc is missing: a million entries take milliseconds.
 */
static int close_around(unsigned first, unsigned last, int flags)
{
    unsigned top = last < NS_FD_MAX ? last : NS_FD_MAX - 1;
    struct range r = { first, flags };
    int listed = visit_open(&r, top);

    for (unsigned fd = r.next; listed == 0 && fd <= top; fd++) {
        if (!visit(&r, fd, false))
            listed = -1;
    }
    if (listed < 0)
        return -1;
    return r.next <= last ? ns_real.close_range(r.next, last, flags) : 0;
}

/* CLOSE_RANGE_CLOEXEC closes nothing, and ours have that flag already. */
NS_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    if (!ns_ready() || first > last || flags & ~(int)CLOSE_RANGE_UNSHARE)
        return ns_real.close_range(first, last, flags);
    return close_around(first, last, flags);
}

/* Where the kernel has no close_range, or a sandbox forbids it: one by one, as glibc does. */
NS_EXPORT void closefrom(int low)
{
    int saved = errno;
    unsigned first = low < 0 ? 0 : (unsigned)low;
    uint64_t limit;

    if (close_range(first, ~0u, 0) == 0)
        return;
    limit = ns_sys_fd_limit();
    for (unsigned fd = first; fd < limit && fd < NS_FD_MAX; fd++)
        close((int)fd);
    errno = saved;
}

static int duplicated(struct ns_duplicate *d, int newfd)
{
    ns_fd_duplicated(d, newfd);
    ns_std_check(newfd);
    return newfd;
}

/* `call` makes a duplicate of `oldfd`: its result. */
#define DUPLICATE(oldfd, call)                                                                             \
    ({                                                                                                     \
        struct ns_duplicate d_;                                                                            \
        int r_;                                                                                            \
                                                                                                           \
        if (ns_ours(oldfd)) {                                                                              \
            ns_fd_duplicating(&d_, oldfd);                                                                 \
            r_ = duplicated(&d_, call);                                                                    \
        } else {                                                                                           \
            r_ = ns_newborn(call);                                                                         \
        }                                                                                                  \
        r_;                                                                                                \
    })

NS_EXPORT int dup(int fd)
{
    return DUPLICATE(fd, ns_real.dup(fd));
}

/*
 * Makes `newfd` free to be duplicated onto. An internal descriptor there may
 * not be lost: EBUSY, which dup2(2) gives when the number is being opened by
 * somebody else at this moment. They sit high, so that hardly anybody asks.
 */
static int give_up(int oldfd, int newfd)
{
    if (!ns_ready() || newfd < 0 || newfd >= NS_FD_MAX || ns_sys_fcntl(oldfd, F_GETFD, 0) < 0)
        return 0;
    if (ns_fd_internal(newfd))
        return -EBUSY;
    if (ns_ours(newfd))
        ns_fd_closing(newfd);
    return 0;
}

NS_EXPORT int dup2(int oldfd, int newfd)
{
    int r = oldfd == newfd ? 0 : give_up(oldfd, newfd);

    if (oldfd == newfd || r < 0)
        return r < 0 ? (int)ns_result(r) : ns_real.dup2(oldfd, newfd);
    return DUPLICATE(oldfd, ns_real.dup2(oldfd, newfd));
}

NS_TWIN(__dup2, dup2);

NS_EXPORT int dup3(int oldfd, int newfd, int flags)
{
    int r;

    if (oldfd == newfd || flags & ~O_CLOEXEC)
        return ns_real.dup3(oldfd, newfd, flags);
    r = give_up(oldfd, newfd);
    return r < 0 ? (int)ns_result(r) : DUPLICATE(oldfd, ns_real.dup3(oldfd, newfd, flags));
}

/* Whatever the command takes, it fits in a long, and libc passes it on unread. */
NS_EXPORT int fcntl(int fd, int cmd, ...)
{
    va_list ap;
    long arg;

    va_start(ap, cmd);
    arg = va_arg(ap, long);
    va_end(ap);
    if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
        return DUPLICATE(fd, ns_real.fcntl(fd, cmd, arg));
    if (cmd != F_GETFD && cmd != F_SETFD && ns_ours(fd)) {
        int r = NS_NOT_OURS;

        if (cmd == F_SETFL || cmd == F_SETOWN || cmd == F_SETOWN_EX || cmd == F_SETSIG)
            r = ns_fd_set(fd, SYS_fcntl, (unsigned)cmd, arg);
        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
        ns_fd_settle(fd);
    }
    return ns_real.fcntl(fd, cmd, arg);
}

NS_TWIN(fcntl64, fcntl);
NS_TWIN(__fcntl, fcntl);

NS_EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (ns_ours(fd)) {
        int r;

        if (request != FIOCLEX && request != FIONCLEX)
            ns_fd_settle(fd);
        if (request == FIONBIO || request == FIOASYNC || request == FIOSETOWN || request == SIOCSPGRP)
            r = ns_fd_set(fd, SYS_ioctl, request, (long)arg);
        else
            r = ns_ioctl(fd, request, arg);

        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_real.ioctl(fd, request, arg);
}

/* libc asks the kernel, inside. */
NS_EXPORT int sockatmark(int fd)
{
    int at;

    return ioctl(fd, SIOCATMARK, &at) < 0 ? -1 : at;
}
