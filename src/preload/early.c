/*
 * What ns_real holds before ns_bind: bare system calls, and functions that
 * bind on their first call. See real.h for why.
 *
 * The bare ones are the generic forms of the calls (openat, ppoll, dup3, ...)
 * where an architecture may lack the older ones.
 */
#include <string.h>

#include "preload/interpose.h"

#define BARE(nr, a, b, c, d, e, f)                                                                         \
    ns_result(ns_syscall6(SYS_##nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)))

#define EARLY1(result, name, A)                                                                            \
    static result early_##name(A a)                                                                        \
    {                                                                                                      \
        return (result)BARE(name, a, 0, 0, 0, 0, 0);                                                       \
    }
#define EARLY2(result, name, A, B)                                                                         \
    static result early_##name(A a, B b)                                                                   \
    {                                                                                                      \
        return (result)BARE(name, a, b, 0, 0, 0, 0);                                                       \
    }
#define EARLY3(result, name, A, B, C)                                                                      \
    static result early_##name(A a, B b, C c)                                                              \
    {                                                                                                      \
        return (result)BARE(name, a, b, c, 0, 0, 0);                                                       \
    }
#define EARLY4(result, name, A, B, C, D)                                                                   \
    static result early_##name(A a, B b, C c, D d)                                                         \
    {                                                                                                      \
        return (result)BARE(name, a, b, c, d, 0, 0);                                                       \
    }
#define EARLY5(result, name, A, B, C, D, E)                                                                \
    static result early_##name(A a, B b, C c, D d, E e)                                                    \
    {                                                                                                      \
        return (result)BARE(name, a, b, c, d, e, 0);                                                       \
    }
#define EARLY6(result, name, A, B, C, D, E, F)                                                             \
    static result early_##name(A a, B b, C c, D d, E e, F f)                                               \
    {                                                                                                      \
        return (result)BARE(name, a, b, c, d, e, f);                                                       \
    }

EARLY3(ssize_t, read, int, void *, size_t)
EARLY3(ssize_t, readv, int, const struct iovec *, int)
EARLY6(ssize_t, recvfrom, int, void *, size_t, int, struct sockaddr *, socklen_t *)
EARLY3(ssize_t, recvmsg, int, struct msghdr *, int)
EARLY5(int, recvmmsg, int, struct mmsghdr *, unsigned, int, struct timespec *)
EARLY3(ssize_t, write, int, const void *, size_t)
EARLY3(ssize_t, writev, int, const struct iovec *, int)
EARLY6(ssize_t, sendto, int, const void *, size_t, int, const struct sockaddr *, socklen_t)
EARLY3(ssize_t, sendmsg, int, const struct msghdr *, int)
EARLY4(int, sendmmsg, int, struct mmsghdr *, unsigned, int)
EARLY4(ssize_t, sendfile, int, int, off_t *, size_t)
EARLY6(ssize_t, splice, int, off64_t *, int, off64_t *, size_t, unsigned)
EARLY4(int, epoll_ctl, int, int, int, struct epoll_event *)
EARLY3(int, connect, int, const struct sockaddr *, socklen_t)
EARLY2(int, listen, int, int)
EARLY4(int, accept4, int, struct sockaddr *, socklen_t *, int)
EARLY2(int, shutdown, int, int)
EARLY3(int, getsockname, int, struct sockaddr *, socklen_t *)
EARLY3(int, getpeername, int, struct sockaddr *, socklen_t *)
EARLY5(int, getsockopt, int, int, int, void *, socklen_t *)
EARLY5(int, setsockopt, int, int, int, const void *, socklen_t)
EARLY1(int, close, int)
EARLY3(int, close_range, unsigned, unsigned, int)
EARLY1(int, dup, int)
EARLY3(int, dup3, int, int, int)
EARLY3(int, socket, int, int, int)
EARLY4(int, socketpair, int, int, int, int *)
EARLY3(int, open_by_handle_at, int, struct file_handle *, int)
EARLY2(int, pipe2, int *, int)
EARLY1(int, epoll_create1, int)
EARLY2(int, timerfd_create, clockid_t, int)
EARLY1(int, inotify_init1, int)
EARLY2(int, fanotify_init, unsigned, unsigned)
EARLY2(int, memfd_create, const char *, unsigned)
EARLY2(int, pidfd_open, pid_t, unsigned)
EARLY3(int, pidfd_getfd, int, int, unsigned)
EARLY3(int, execve, const char *, char *const *, char *const *)
EARLY5(int, execveat, int, const char *, char *const *, char *const *, int)

/* The offset goes in two halves; the second is unused where long has 64 bits. */
static ssize_t early_preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    return BARE(preadv2, fd, iov, n, offset, (long)((int64_t)offset >> 32), flags);
}

static ssize_t early_pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    return BARE(pwritev2, fd, iov, n, offset, (long)((int64_t)offset >> 32), flags);
}

static ssize_t early_recv(int fd, void *buf, size_t len, int flags)
{
    return early_recvfrom(fd, buf, len, flags, NULL, NULL);
}

static ssize_t early_send(int fd, const void *buf, size_t len, int flags)
{
    return early_sendto(fd, buf, len, flags, NULL, 0);
}

static int early_accept(int fd, struct sockaddr *addr, socklen_t *len)
{
    return early_accept4(fd, addr, len, 0);
}

static int early_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    return (int)ns_result(ns_sys_ppoll(fds, n, timeout, mask));
}

static int early_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    struct timespec t = { timeout_ms / 1000, timeout_ms % 1000 * 1000000L };

    return early_ppoll(fds, n, timeout_ms < 0 ? NULL : &t, NULL);
}

static int early_pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
                         const sigset_t *mask)
{
    struct timespec left = timeout ? *timeout : (struct timespec){ 0 };
    struct {
        const sigset_t *mask;
        size_t bytes;
    } set = { mask, NS_SYS_SIGSET_BYTES };

    return (int)BARE(pselect6, n, r, w, e, timeout ? &left : NULL, &set);
}

static int early_select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
    struct timespec left = { 0 };
    int ret;

    if (timeout)
        left = (struct timespec){ timeout->tv_sec, timeout->tv_usec * 1000L };
    ret = (int)BARE(pselect6, n, r, w, e, timeout ? &left : NULL, NULL);
    if (timeout)
        *timeout = (struct timeval){ left.tv_sec, left.tv_nsec / 1000 };
    return ret;
}

static int early_epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout_ms,
                             const sigset_t *mask)
{
    return (int)ns_result(ns_sys_epoll_pwait(epfd, events, max, timeout_ms, mask));
}

static int early_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms)
{
    return early_epoll_pwait(epfd, events, max, timeout_ms, NULL);
}

static int early_epoll_pwait2(int epfd, struct epoll_event *events, int max, const struct timespec *timeout,
                              const sigset_t *mask)
{
#ifdef SYS_epoll_pwait2
    return (int)BARE(epoll_pwait2, epfd, events, max, timeout, mask, NS_SYS_SIGSET_BYTES);
#else
    return (int)ns_result(-ENOSYS);
#endif
}

static int early_fcntl(int fd, int cmd, ...)
{
    va_list ap;
    long arg;

    va_start(ap, cmd);
    arg = va_arg(ap, long);
    va_end(ap);
    return (int)ns_result(ns_sys_fcntl(fd, cmd, arg));
}

static int early_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    return (int)ns_result(ns_sys_ioctl(fd, request, arg));
}

/* dup3 refuses equal numbers, where dup2 only asks whether the number is open. */
static int early_dup2(int oldfd, int newfd)
{
    if (oldfd == newfd)
        return ns_sys_fcntl(oldfd, F_GETFD, 0) < 0 ? (int)ns_result(-EBADF) : newfd;
    return early_dup3(oldfd, newfd, 0);
}

static int early_openat(int dir, const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = (mode_t)va_arg(ap, unsigned);
    va_end(ap);
    return (int)ns_result(ns_sys_openat(dir, path, flags, mode));
}

static int early_open(const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = (mode_t)va_arg(ap, unsigned);
    va_end(ap);
    return early_openat(AT_FDCWD, path, flags, mode);
}

static int early_creat(const char *path, mode_t mode)
{
    return early_openat(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

static int early_pipe(int *fds)
{
    return early_pipe2(fds, 0);
}

static int early_eventfd(unsigned count, int flags)
{
    return (int)BARE(eventfd2, count, flags, 0, 0, 0, 0);
}

static int early_epoll_create(int size)
{
    return size <= 0 ? (int)ns_result(-EINVAL) : early_epoll_create1(0);
}

static int early_signalfd(int fd, const sigset_t *mask, int flags)
{
    return (int)BARE(signalfd4, fd, mask, NS_SYS_SIGSET_BYTES, flags, 0, 0);
}

static int early_inotify_init(void)
{
    return early_inotify_init1(0);
}

static void early__exit(int status)
{
    for (;;)
        ns_syscall6(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

static int early_prctl(int option, ...)
{
    unsigned long a[4];
    va_list ap;

    va_start(ap, option);
    for (int i = 0; i < 4; i++)
        a[i] = va_arg(ap, unsigned long);
    va_end(ap);
    return (int)BARE(prctl, option, a[0], a[1], a[2], a[3], 0);
}

static long early_syscall(long number, ...)
{
    long a[6];
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    return ns_result(ns_syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

/* Binds, then calls; where libc lacks the function it has failed with ENOSYS. */
#define X(result, failure, name, params, args)                                                             \
    static result early_##name params                                                                      \
    {                                                                                                      \
        ns_bind();                                                                                         \
        if (ns_real.name == early_##name) {                                                                \
            errno = ENOSYS;                                                                                \
            return failure;                                                                                \
        }                                                                                                  \
        return ns_real.name args;                                                                          \
    }
NS_REAL_WHOLE(X)
#undef X

static void early_quick_exit(int status)
{
    ns_bind();
    if (ns_real.quick_exit != early_quick_exit)
        ns_real.quick_exit(status);
    early__exit(status);
}

struct ns_real ns_real = {
#define X(result, name, args) .name = early_##name,
    NS_REAL_PLAIN(X)
#undef X
#define X(result, failure, name, params, args) .name = early_##name,
        NS_REAL_WHOLE(X)
#undef X
            .quick_exit = early_quick_exit,
};
