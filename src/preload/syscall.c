/*
 * syscall(2), as event loops and language runtimes use it around libc.
 *
 * A call on a session goes to the interposed function of the same name; every
 * other call goes to the kernel as it came, since whoever uses a number
 * instead of a name may count on it not being a cancellation point. The
 * functions below return NS_NOT_OURS for a call that the kernel is to have.
 */
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>

#include "engine/caller.h"
#include "preload/interpose.h"
#include "preload/passing.h"
#include "preload/sandbox.h"
#include "preload/wait.h"

#define FD(n)     ((int)a[n])
#define PTR(n)    ((void *)a[n])
#define SIZE(n)   ((size_t)a[n])
#define LENGTH(n) ((socklen_t)a[n])

static long on_data(long number, const long *a)
{
    switch (number) {
    case SYS_read:
        return read(FD(0), PTR(1), SIZE(2));
    case SYS_readv:
        return readv(FD(0), PTR(1), (int)a[2]);
    case SYS_preadv2:
        return preadv2(FD(0), PTR(1), (int)a[2], a[3], (int)a[5]);
    case SYS_recvfrom:
        return recvfrom(FD(0), PTR(1), SIZE(2), (int)a[3], PTR(4), PTR(5));
    case SYS_recvmsg:
        return recvmsg(FD(0), PTR(1), (int)a[2]);
    case SYS_recvmmsg:
        return recvmmsg(FD(0), PTR(1), (unsigned)a[2], (int)a[3], PTR(4));
    case SYS_write:
        return write(FD(0), PTR(1), SIZE(2));
    case SYS_writev:
        return writev(FD(0), PTR(1), (int)a[2]);
    case SYS_pwritev2:
        return pwritev2(FD(0), PTR(1), (int)a[2], a[3], (int)a[5]);
    case SYS_sendto:
        return sendto(FD(0), PTR(1), SIZE(2), (int)a[3], PTR(4), LENGTH(5));
    case SYS_sendmsg:
        return sendmsg(FD(0), PTR(1), (int)a[2]);
    case SYS_sendmmsg:
        return sendmmsg(FD(0), PTR(1), (unsigned)a[2], (int)a[3]);
    case SYS_sendfile:
        return sendfile(FD(0), FD(1), PTR(2), SIZE(3));
    case SYS_splice:
        return splice(FD(0), PTR(1), FD(2), PTR(3), SIZE(4), (unsigned)a[5]);
    default:
        return NS_NOT_OURS;
    }
}

static long on_connection(long number, const long *a)
{
    switch (number) {
#ifdef SYS_accept
    case SYS_accept:
        return accept(FD(0), PTR(1), PTR(2));
#endif
    case SYS_accept4:
        return accept4(FD(0), PTR(1), PTR(2), (int)a[3]);
    case SYS_shutdown:
        return shutdown(FD(0), (int)a[1]);
    case SYS_getsockname:
        return getsockname(FD(0), PTR(1), PTR(2));
    case SYS_getpeername:
        return getpeername(FD(0), PTR(1), PTR(2));
    case SYS_getsockopt:
        return getsockopt(FD(0), (int)a[1], (int)a[2], PTR(3), PTR(4));
    case SYS_setsockopt:
        return setsockopt(FD(0), (int)a[1], (int)a[2], PTR(3), LENGTH(4));
    case SYS_ioctl:
        return ioctl(FD(0), (unsigned long)a[1], PTR(2));
    default:
        return NS_NOT_OURS;
    }
}

/* A result of the engine's; -1 with errno for the caller, or on to the kernel. */
static long engine(int r)
{
    return r == NS_NOT_OURS ? r : ns_result(r);
}

/* Calls that concern the engine whatever the descriptor is. */
static long on_any(long number, const long *a)
{
    int r;

    switch (number) {
    case SYS_connect:
        return ns_plausible(PTR(1)) ? engine(ns_connect(FD(0), PTR(1), LENGTH(2))) : NS_NOT_OURS;
    case SYS_listen:
        return engine(ns_listen(FD(0), (int)a[1]));
    case SYS_close:
        if (ns_fd_internal(FD(0)))
            return ns_result(-EBADF);
        if (ns_ours(FD(0)))
            ns_fd_closing(FD(0));
        return NS_NOT_OURS;
    case SYS_close_range:
        return close_range((unsigned)a[0], (unsigned)a[1], (int)a[2]);
    case SYS_dup:
        return dup(FD(0));
#ifdef SYS_dup2
    case SYS_dup2:
        return dup2(FD(0), FD(1));
#endif
    case SYS_dup3:
        return dup3(FD(0), FD(1), (int)a[2]);
    case SYS_fcntl:
        if (a[1] == F_DUPFD || a[1] == F_DUPFD_CLOEXEC)
            return fcntl(FD(0), (int)a[1], a[2]);
        return NS_NOT_OURS;
    case SYS_epoll_ctl:
        return epoll_ctl(FD(0), (int)a[1], FD(2), PTR(3));
    case SYS_sendmsg:
        r = ns_passing_sent(PTR(1));
        return r < 0 ? ns_result(r) : NS_NOT_OURS;
    case SYS_splice:
        return splice(FD(0), PTR(1), FD(2), PTR(3), (size_t)a[4], (unsigned)a[5]);
    case SYS_execve:
        return execve(PTR(0), PTR(1), PTR(2));
    case SYS_execveat:
        return execveat(FD(0), PTR(1), PTR(2), PTR(3), (int)a[4]);
    case SYS_seccomp:
        ns_sandbox_seccomp((unsigned)a[0], PTR(2));
        return NS_NOT_OURS;
    case SYS_prctl:
        ns_sandbox_prctl((int)a[0], (unsigned long)a[1], PTR(2));
        return NS_NOT_OURS;
    case SYS_exit_group:
        ns_process_exiting();
        return NS_NOT_OURS;
    default:
        return NS_NOT_OURS;
    }
}

/* The kernel's mask is shorter than libc's: widened into *wide. NULL stays NULL. */
static const sigset_t *widen(const void *mask, sigset_t *wide)
{
    if (!mask)
        return NULL;
    memset(wide, 0, sizeof *wide);
    memcpy(wide, mask, NS_SYS_SIGSET_BYTES);
    return wide;
}

/* What libc's functions would read themselves: where it cannot be read the kernel says so, and no signal does. */
static bool unreadable(const void *p, size_t bytes)
{
    char there[sizeof(struct timespec)];

    return p && ns_caller_read(there, p, bytes) < 0;
}

/* A number, unlike its libc function, leaves the time not slept in *timeout (ppoll(2), pselect(2)). */
static long poll_with_rest(const long *a)
{
    struct timespec *timeout = PTR(2), end = { 0 };
    sigset_t wide;
    int r;

    if (a[3] && (a[4] != NS_SYS_SIGSET_BYTES || unreadable(PTR(3), NS_SYS_SIGSET_BYTES)))
        return NS_NOT_OURS;
    if (unreadable(timeout, sizeof *timeout))
        return NS_NOT_OURS;
    if (timeout)
        end = ns_wait_end(*timeout);
    r = ns_wait_poll(PTR(0), (nfds_t)a[1], timeout, widen(PTR(3), &wide));
    if (r != NS_NOT_OURS && timeout)
        *timeout = ns_wait_left(end);
    return engine(r);
}

static long select_with_rest(const long *a)
{
    const struct {
        const void *mask;
        size_t bytes;
    } *set = PTR(5);
    struct timespec *timeout = PTR(4), end = { 0 };
    const void *mask;
    sigset_t wide;
    int r;

    if (unreadable(set, sizeof *set) || unreadable(timeout, sizeof *timeout))
        return NS_NOT_OURS;
    mask = set ? set->mask : NULL;
    if (mask && (set->bytes != NS_SYS_SIGSET_BYTES || unreadable(mask, NS_SYS_SIGSET_BYTES)))
        return NS_NOT_OURS;
    if (timeout)
        end = ns_wait_end(*timeout);
    r = ns_wait_select((int)a[0], PTR(1), PTR(2), PTR(3), timeout, widen(mask, &wide));
    if (r != NS_NOT_OURS && timeout)
        *timeout = ns_wait_left(end);
    return engine(r);
}

static long on_wait(long number, const long *a)
{
    struct timespec t;
    sigset_t wide;

    switch (number) {
#ifdef SYS_poll
    case SYS_poll:
        t = (struct timespec){ (int)a[2] / 1000, (int)a[2] % 1000 * 1000000L };
        return engine(ns_wait_poll(PTR(0), (nfds_t)a[1], (int)a[2] < 0 ? NULL : &t, NULL));
#endif
#ifdef SYS_select
    case SYS_select:
        if (unreadable(PTR(4), sizeof(struct timeval)))
            return NS_NOT_OURS;
        return select((int)a[0], PTR(1), PTR(2), PTR(3), PTR(4));
#endif
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
        return engine(ns_wait_epoll(FD(0), PTR(1), (int)a[2], (int)a[3], NULL));
#endif
    case SYS_ppoll:
        return poll_with_rest(a);
    case SYS_pselect6:
        return select_with_rest(a);
    case SYS_epoll_pwait:
        if (a[4] && (a[5] != NS_SYS_SIGSET_BYTES || unreadable(PTR(4), NS_SYS_SIGSET_BYTES)))
            return NS_NOT_OURS;
        return engine(ns_wait_epoll(FD(0), PTR(1), (int)a[2], (int)a[3], widen(PTR(4), &wide)));
#ifdef SYS_epoll_pwait2
    case SYS_epoll_pwait2:
        if (a[4] && (a[5] != NS_SYS_SIGSET_BYTES || unreadable(PTR(4), NS_SYS_SIGSET_BYTES)))
            return NS_NOT_OURS;
        if (unreadable(PTR(3), sizeof(struct timespec)))
            return NS_NOT_OURS;
        return epoll_pwait2(FD(0), PTR(1), (int)a[2], PTR(3), widen(PTR(4), &wide));
#endif
    default:
        return NS_NOT_OURS;
    }
}

/* What the kernel's answer `r` tells: numbers that were born. Returns `r`. */
static long after(long number, const long *a, long r)
{
    switch (number) {
    case SYS_socket:
    case SYS_openat:
    case SYS_openat2:
    case SYS_accept4:
    case SYS_eventfd2:
    case SYS_epoll_create1:
    case SYS_timerfd_create:
    case SYS_inotify_init1:
    case SYS_memfd_create:
    case SYS_pidfd_open:
    case SYS_pidfd_getfd:
    case SYS_perf_event_open:
    case SYS_userfaultfd:
    case SYS_io_uring_setup:
#ifdef SYS_open
    case SYS_open:
    case SYS_creat:
    case SYS_accept:
    case SYS_eventfd:
    case SYS_epoll_create:
    case SYS_inotify_init:
#endif
        return ns_newborn((int)r);
    case SYS_pipe2:
#ifdef SYS_pipe
    case SYS_pipe:
#endif
    case SYS_socketpair:
        if (r == 0) {
            const int *fds = PTR(number == SYS_socketpair ? 3 : 0);

            ns_newborn(fds[0]);
            ns_newborn(fds[1]);
        }
        return r;
    case SYS_recvmsg:
        if (r >= 0)
            ns_passing_received(PTR(1));
        return r;
    default:
        return r;
    }
}

/* How many arguments there are, only the number tells: all six are passed on. */
NS_EXPORT long syscall(long number, ...)
{
    long a[6], r = NS_NOT_OURS;
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    if (!ns_ready())
        return ns_real.syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (ns_ours(FD(0)))
        r = on_data(number, a);
    if (r == NS_NOT_OURS && ns_ours(FD(0)))
        r = on_connection(number, a);
    if (r == NS_NOT_OURS)
        r = on_any(number, a);
    if (r == NS_NOT_OURS)
        r = on_wait(number, a);
    if (r != NS_NOT_OURS)
        return r;
    r = ns_real.syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    return after(number, a, r);
}
