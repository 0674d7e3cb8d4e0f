#include "engine/block.h"

#include "engine/engine.h"
#include "engine/libc.h"
#include "engine/sys.h"

#include <errno.h>

bool ns_nonblocking(int fd, int flags)
{
    if (flags & MSG_DONTWAIT)
        return true;
    int fl = ns_sys_fcntl(fd, F_GETFL, 0);
    return fl >= 0 && (fl & O_NONBLOCK);
}

struct ns_time ns_timeout_at(int fd, int name)
{
    struct timeval tv = { 0 };
    socklen_t len = sizeof tv;
    if (ns_sys_getsockopt(fd, SOL_SOCKET, name, &tv, &len) < 0 || (tv.tv_sec == 0 && tv.tv_usec == 0))
        return NS_NEVER;
    return ns_time_add(ns_now(), (struct ns_time){ tv.tv_sec * 1000000000LL + tv.tv_usec * 1000LL });
}

/* The kernel's own struct sigaction, as rt_sigaction(2) takes it. */
struct kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

bool ns_signals_restart(void)
{
    for (int sig = 1; sig < _NSIG; sig++) {
        struct kernel_sigaction a;
        if (ns_syscall6(SYS_rt_sigaction, sig, 0, (long)&a, 8, 0, 0) < 0)
            continue;
        if (a.handler != SIG_DFL && a.handler != SIG_IGN && !(a.flags & SA_RESTART))
            return false;
    }
    return true;
}

static struct timespec remaining(struct ns_time deadline)
{
    int64_t ns = deadline.ns - ns_now().ns;
    if (ns < 0)
        ns = 0;
    return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

static int wait_polling(int wait_fd, int fd, short events, struct ns_time deadline)
{
    struct pollfd p[2] = { { .fd = wait_fd, .events = POLLIN }, { .fd = events ? fd : -1, .events = events } };
    bool ever = deadline.ns == INT64_MAX;
    for (;;) {
        struct timespec ts = remaining(deadline);
        int n = ns_libc.ppoll(p, 2, ever ? NULL : &ts, NULL);
        if (n > 0)
            return 0;
        if (n == 0)
            return -EAGAIN;
        if (errno != EINTR || !ever || !ns_signals_restart())
            return -errno;
    }
}

int ns_block(struct ns_sock *s, struct ns_slot *slot, int fd, short events, struct ns_time deadline,
             bool (*still)(const struct ns_sock *s))
{
    int saved = errno;
    int wait_fd = ns_slot_wait_prepare(slot);
    if (wait_fd < 0)
        return wait_fd;
    int err = 0;
    if (still(s)) {
        if (events || deadline.ns != INT64_MAX) {
            err = wait_polling(wait_fd, fd, events, deadline);
        } else {
            /* read() restarts after a signal exactly where recv() and send() would. */
            uint64_t count;
            if (ns_libc.read(wait_fd, &count, sizeof count) < 0)
                err = -errno;
        }
    }
    ns_slot_wait_finish(slot);
    errno = saved;
    return err;
}
