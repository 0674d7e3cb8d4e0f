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

static struct timespec remaining(struct ns_time deadline)
{
    int64_t ns = deadline.ns - ns_now().ns;
    if (ns < 0)
        ns = 0;
    return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

/* Without a descriptor that wakes us (wait_fd < 0) the condition is looked at again now and then. */
static int wait_polling(int wait_fd, const struct ns_wait *w)
{
    struct pollfd p[2] = { { .fd = wait_fd, .events = POLLIN }, { .fd = w->events ? w->fd : -1, .events = w->events } };
    struct ns_time again = wait_fd >= 0 ? NS_NEVER : ns_time_add(ns_now(), ns_time_ms(NS_SLOT_BLIND_MS));
    bool blind = ns_time_before(again, w->deadline);
    struct ns_time until = blind ? again : w->deadline;
    bool ever = until.ns == INT64_MAX;
    for (;;) {
        struct timespec ts = remaining(until);
        uint32_t before = ns_handled.all;
        int n = ns_libc.ppoll(p, 2, ever ? NULL : &ts, NULL);
        if (n > 0)
            return 0;
        if (n == 0)
            return blind ? 0 : -EAGAIN;
        if (errno != EINTR)
            return -errno;
        /* Of a handler that nobody stood in front of the kernel does not say which it was. */
        bool unseen = ns_handled.all == before;
        if (unseen ? w->done || w->timed || !ns_signals_restart() : ns_interrupted(w->since, w->done, w->timed))
            return -EINTR;
    }
}

int ns_block(struct ns_sock *s, struct ns_slot *slot, const struct ns_wait *w)
{
    int saved = errno;
    if (ns_helper_is_late())
        ns_helper_start();
    int wait_fd = ns_slot_wait_prepare(slot); /* or none: no descriptor is free */
    int err = 0;
    /* A signal from here on wakes us (ns_signal_handling), an earlier one is seen now. */
    if (!w->still(s)) {
        err = 0;
    } else if (ns_interrupted(w->since, w->done, w->timed)) {
        err = -EINTR;
    } else if (w->events || w->deadline.ns != INT64_MAX || wait_fd < 0) {
        err = wait_polling(wait_fd, w);
    } else {
        /* read() restarts after a signal exactly where recv() and send() would. */
        uint64_t count;
        if (ns_libc.read(wait_fd, &count, sizeof count) < 0)
            err = -errno;
    }
    if (wait_fd >= 0)
        ns_slot_wait_finish(slot);
    errno = saved;
    return err;
}
