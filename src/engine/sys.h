/*
 * System calls without libc in between.
 *
 * The shim exports symbols named socket, connect, close, ...; the engine lives
 * in the same object and must never land in them, nor be a cancellation point,
 * nor touch the application's errno. Every function here makes the one system
 * call of its name and returns its result, or a negative errno. All are
 * async-signal-safe and may be called from any thread. Pointers are borrowed
 * for the call. None retries after -EINTR.
 *
 * On x86_64 and aarch64 the trap instruction is inline. Elsewhere the call
 * goes through syscall(2), whose errno is put back.
 */
#ifndef NS_ENGINE_SYS_H
#define NS_ENGINE_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__LP64__)

static inline long ns_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;

    /* The instruction itself destroys rcx (return address) and r11 (flags). */
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

#elif defined(__aarch64__) && defined(__LP64__)

static inline long ns_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;

    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}

#else

static inline long ns_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    int saved = errno;
    long ret = syscall(nr, a, b, c, d, e, f);

    if (ret == -1)
        ret = -errno;
    errno = saved;
    return ret;
}

#endif

/* The kernel's signal set is 64 signals everywhere but on MIPS, whatever libc's sigset_t measures. */
#define NS_SYS_SIGSET_BYTES (_NSIG / 8)

/* ---- sockets ---- */

static inline int ns_sys_socket(int domain, int type, int protocol)
{
    return (int)ns_syscall6(SYS_socket, domain, type, protocol, 0, 0, 0);
}

static inline int ns_sys_socketpair(int domain, int type, int protocol, int pair[2])
{
    return (int)ns_syscall6(SYS_socketpair, domain, type, protocol, (long)pair, 0, 0);
}

static inline int ns_sys_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    return (int)ns_syscall6(SYS_connect, fd, (long)addr, len, 0, 0, 0);
}

static inline int ns_sys_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    return (int)ns_syscall6(SYS_bind, fd, (long)addr, len, 0, 0, 0);
}

static inline int ns_sys_listen(int fd, int backlog)
{
    return (int)ns_syscall6(SYS_listen, fd, backlog, 0, 0, 0, 0);
}

static inline int ns_sys_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    return (int)ns_syscall6(SYS_accept4, fd, (long)addr, (long)len, flags, 0, 0);
}

static inline ssize_t ns_sys_sendto(int fd, const void *buf, size_t len, int flags,
                                    const struct sockaddr *addr, socklen_t addr_len)
{
    return ns_syscall6(SYS_sendto, fd, (long)buf, (long)len, flags, (long)addr, addr_len);
}

static inline ssize_t ns_sys_recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *addr,
                                      socklen_t *addr_len)
{
    return ns_syscall6(SYS_recvfrom, fd, (long)buf, (long)len, flags, (long)addr, (long)addr_len);
}

static inline ssize_t ns_sys_send(int fd, const void *buf, size_t len, int flags)
{
    return ns_sys_sendto(fd, buf, len, flags, NULL, 0);
}

static inline ssize_t ns_sys_recv(int fd, void *buf, size_t len, int flags)
{
    return ns_sys_recvfrom(fd, buf, len, flags, NULL, NULL);
}

static inline ssize_t ns_sys_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return ns_syscall6(SYS_sendmsg, fd, (long)msg, flags, 0, 0, 0);
}

static inline ssize_t ns_sys_recvmsg(int fd, struct msghdr *msg, int flags)
{
    return ns_syscall6(SYS_recvmsg, fd, (long)msg, flags, 0, 0, 0);
}

static inline int ns_sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return (int)ns_syscall6(SYS_getsockopt, fd, level, name, (long)value, (long)len, 0);
}

static inline int ns_sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return (int)ns_syscall6(SYS_setsockopt, fd, level, name, (long)value, len, 0);
}

static inline int ns_sys_set_int(int fd, int level, int name, int value)
{
    return ns_sys_setsockopt(fd, level, name, &value, sizeof value);
}

static inline int ns_sys_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    return (int)ns_syscall6(SYS_getsockname, fd, (long)addr, (long)len, 0, 0, 0);
}

static inline int ns_sys_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    return (int)ns_syscall6(SYS_getpeername, fd, (long)addr, (long)len, 0, 0, 0);
}

static inline int ns_sys_shutdown(int fd, int how)
{
    return (int)ns_syscall6(SYS_shutdown, fd, how, 0, 0, 0, 0);
}

/* ---- descriptors ---- */

/* The descriptor is gone whatever is returned, -EINTR included. */
static inline int ns_sys_close(int fd)
{
    return (int)ns_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
}

static inline int ns_sys_dup3(int oldfd, int newfd, int flags)
{
    return (int)ns_syscall6(SYS_dup3, oldfd, newfd, flags, 0, 0, 0);
}

static inline int ns_sys_fcntl(int fd, int cmd, long arg)
{
#ifdef SYS_fcntl64
    return (int)ns_syscall6(SYS_fcntl64, fd, cmd, arg, 0, 0, 0);
#else
    return (int)ns_syscall6(SYS_fcntl, fd, cmd, arg, 0, 0, 0);
#endif
}

static inline int ns_sys_ioctl(int fd, unsigned long request, void *arg)
{
    return (int)ns_syscall6(SYS_ioctl, fd, (long)request, (long)arg, 0, 0, 0);
}

static inline ssize_t ns_sys_read(int fd, void *buf, size_t len)
{
    return ns_syscall6(SYS_read, fd, (long)buf, (long)len, 0, 0, 0);
}

static inline ssize_t ns_sys_write(int fd, const void *buf, size_t len)
{
    return ns_syscall6(SYS_write, fd, (long)buf, (long)len, 0, 0, 0);
}

static inline int ns_sys_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    return (int)ns_syscall6(SYS_openat, dirfd, (long)path, flags, (long)mode, 0, 0);
}

static inline int ns_sys_pipe2(int fds[2], int flags)
{
    return (int)ns_syscall6(SYS_pipe2, (long)fds, flags, 0, 0, 0, 0);
}

static inline int ns_sys_eventfd2(unsigned count, int flags)
{
    return (int)ns_syscall6(SYS_eventfd2, (long)count, flags, 0, 0, 0, 0);
}

/* ---- waiting ---- */

static inline int ns_sys_epoll_create1(int flags)
{
    return (int)ns_syscall6(SYS_epoll_create1, flags, 0, 0, 0, 0, 0);
}

static inline int ns_sys_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return (int)ns_syscall6(SYS_epoll_ctl, epfd, op, fd, (long)event, 0, 0);
}

static inline int ns_sys_epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout_ms,
                                     const sigset_t *mask)
{
    return (int)ns_syscall6(SYS_epoll_pwait, epfd, (long)events, max, timeout_ms, (long)mask,
                            NS_SYS_SIGSET_BYTES);
}

/* `timeout` NULL waits for ever. Unlike the bare call it leaves *timeout alone. */
static inline int ns_sys_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                               const sigset_t *mask)
{
    struct timespec left = timeout ? *timeout : (struct timespec){ 0 };

    return (int)ns_syscall6(SYS_ppoll, (long)fds, (long)n, timeout ? (long)&left : 0, (long)mask,
                            NS_SYS_SIGSET_BYTES, 0);
}

/*
 * Sleeps while *word == value, at most `timeout` (a span, NULL: for ever).
 * Returns 0 when woken (perhaps for nothing), -EAGAIN when the value differed,
 * -ETIMEDOUT, -EINTR. Not FUTEX_PRIVATE: the word may be in memory that
 * several processes share.
 */
static inline int ns_sys_futex_wait(const uint32_t *word, uint32_t value, const struct timespec *timeout)
{
    return (int)ns_syscall6(SYS_futex, (long)word, FUTEX_WAIT, (long)value, (long)timeout, 0, 0);
}

/* Wakes at most `count` sleepers; returns how many there were. */
static inline int ns_sys_futex_wake(const uint32_t *word, int count)
{
    return (int)ns_syscall6(SYS_futex, (long)word, FUTEX_WAKE, count, 0, 0, 0);
}

/* ---- the process ---- */

static inline int ns_sys_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    return (int)ns_syscall6(SYS_rt_sigprocmask, how, (long)set, (long)old, _NSIG / 8, 0, 0);
}

static inline int ns_sys_fstat(int fd, struct stat *out)
{
#ifdef SYS_fstat
    return (int)ns_syscall6(SYS_fstat, fd, (long)out, 0, 0, 0, 0);
#else
    return (int)ns_syscall6(SYS_newfstatat, fd, (long)"", (long)out, AT_EMPTY_PATH, 0, 0);
#endif
}

static inline pid_t ns_sys_getpid(void)
{
    return (pid_t)ns_syscall6(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

static inline pid_t ns_sys_getppid(void)
{
    return (pid_t)ns_syscall6(SYS_getppid, 0, 0, 0, 0, 0, 0);
}

static inline pid_t ns_sys_gettid(void)
{
    return (pid_t)ns_syscall6(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

static inline ssize_t ns_sys_getrandom(void *buf, size_t len, unsigned flags)
{
    return ns_syscall6(SYS_getrandom, (long)buf, (long)len, (long)flags, 0, 0, 0);
}

/* The soft RLIMIT_NOFILE, or 1024 where it cannot be read. */
static inline uint64_t ns_sys_fd_limit(void)
{
    uint64_t limit[2]; /* the kernel's struct rlimit64: soft, hard */

    if (ns_syscall6(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)limit, 0, 0) < 0)
        return 1024;
    return limit[0];
}

/*
 * Highest number that ns_sys_high starts from: what it is under the usual limit of
 * 1024. The kernel's descriptor table is as long as the highest number in use, and
 * fork copies it.
 */
#define NS_SYS_HIGH_MAX 768

/* Under a soft limit below this no number is taken from the application: it may count on each of
 * them. */
#define NS_SYS_FD_FEW 32

/*
 * Takes `fd` and returns it under a high number, close-on-exec, out of the
 * way of applications that count on low ones: from three quarters of the soft
 * limit on, NS_SYS_HIGH_MAX at most. Where no such number is free, the
 * descriptor keeps its own (made close-on-exec), unless that is 0, 1 or 2:
 * then the lowest from 3 on is taken, and if even that fails the descriptor
 * is closed and -EMFILE (or what the kernel said) returned. A negative `fd`
 * is returned as it is, so that the call may wrap the one that made it. Where the application has
 * but few, the descriptor is closed: -EMFILE.
 */
static inline int ns_sys_high(int fd)
{
    uint64_t limit, from;
    int moved;

    if (fd < 0)
        return fd;
    limit = ns_sys_fd_limit();
    if (limit < NS_SYS_FD_FEW) {
        ns_sys_close(fd);
        return -EMFILE;
    }
    from = limit / 4 * 3;
    if (from > NS_SYS_HIGH_MAX)
        from = NS_SYS_HIGH_MAX;
    if (from < 3)
        from = 3;
    moved = ns_sys_fcntl(fd, F_DUPFD_CLOEXEC, (long)from);
    if (moved < 0 && fd <= 2)
        moved = ns_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (moved < 0 && fd > 2) {
        ns_sys_fcntl(fd, F_SETFD, FD_CLOEXEC);
        return fd;
    }
    ns_sys_close(fd);
    return moved;
}

#endif
