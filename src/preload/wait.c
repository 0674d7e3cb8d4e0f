/*
 * Calls that wait for readiness: poll, ppoll, select, pselect, epoll_* and
 * their twins.
 *
 * The engine is asked each time when it holds anything (ns_engaged), since whether
 * it must take part depends on the sessions' state; it answers NS_NOT_OURS as long as
 * libc's own call can do it. What the kernel refuses (a negative count, a time that is none) goes
 * to libc unseen.
 */
#include "preload/interpose.h"
#include "preload/wait.h"

#define NS_PER_S  1000000000L
#define NS_PER_MS 1000000L

bool ns_wait_valid(const struct timespec *t)
{
    return !t || (ns_plausible(t) && t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < NS_PER_S);
}

/* Saturates, as the kernel does, since the span may mean "for ever". */
struct timespec ns_wait_end(struct timespec span)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += span.tv_nsec;
    if (__builtin_add_overflow(t.tv_sec, span.tv_sec, &t.tv_sec) ||
        (t.tv_nsec >= NS_PER_S && __builtin_add_overflow(t.tv_sec, 1, &t.tv_sec)))
        return (struct timespec){ INT64_MAX, NS_PER_S - 1 };
    t.tv_nsec %= NS_PER_S;
    return t;
}

struct timespec ns_wait_left(struct timespec end)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    end.tv_sec -= t.tv_sec;
    end.tv_nsec -= t.tv_nsec;
    if (end.tv_nsec < 0) {
        end.tv_sec--;
        end.tv_nsec += NS_PER_S;
    }
    return end.tv_sec < 0 ? (struct timespec){ 0 } : end;
}

/* ---- poll ---- */

int ns_wait_poll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    if (!ns_ready() || n == 0 || n > NS_FD_MAX || !ns_plausible(fds) || !ns_wait_valid(timeout))
        return NS_NOT_OURS;
    return ns_ppoll(fds, n, timeout, mask);
}

NS_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    struct timespec t;
    int r;

    if (!ns_engaged())
        return ns_real.poll(fds, n, timeout_ms);
    t = (struct timespec){ timeout_ms / 1000, timeout_ms % 1000 * NS_PER_MS };
    r = ns_wait_poll(fds, n, timeout_ms < 0 ? NULL : &t, NULL);
    return r == NS_NOT_OURS ? ns_real.poll(fds, n, timeout_ms) : (int)ns_result(r);
}

NS_TWIN(__poll, poll);

NS_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    int r = ns_engaged() ? ns_wait_poll(fds, n, timeout, mask) : NS_NOT_OURS;

    return r == NS_NOT_OURS ? ns_real.ppoll(fds, n, timeout, mask) : (int)ns_result(r);
}

NS_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room);
NS_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
                          size_t room);

int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room)
{
    if (room / sizeof *fds < n)
        __chk_fail();
    return poll(fds, n, timeout_ms);
}

int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
    if (room / sizeof *fds < n)
        __chk_fail();
    return ppoll(fds, n, timeout, mask);
}

/* ---- select ---- */

int ns_wait_select(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
                   const sigset_t *mask)
{
    if (!ns_ready() || n <= 0 || n > NS_FD_MAX || !ns_wait_valid(timeout))
        return NS_NOT_OURS;
    if ((r && !ns_plausible(r)) || (w && !ns_plausible(w)) || (e && !ns_plausible(e)))
        return NS_NOT_OURS;
    return ns_pselect(n, r, w, e, timeout, mask);
}

/* Linux leaves the time not slept in *timeout, unless that was zero (select(2), NOTES). */
NS_EXPORT int select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
    struct timespec t, end;
    int ret;

    if (!ns_engaged())
        return ns_real.select(n, r, w, e, timeout);
    if (!ns_ready() || (timeout && (!ns_plausible(timeout) || timeout->tv_sec < 0 || timeout->tv_usec < 0)))
        return ns_real.select(n, r, w, e, timeout);
    if (timeout) {
        t.tv_nsec = timeout->tv_usec % 1000000 * 1000;
        if (__builtin_add_overflow(timeout->tv_sec, timeout->tv_usec / 1000000, &t.tv_sec))
            t.tv_sec = INT64_MAX;
        end = ns_wait_end(t);
    }
    ret = ns_wait_select(n, r, w, e, timeout ? &t : NULL, NULL);
    if (ret == NS_NOT_OURS)
        return ns_real.select(n, r, w, e, timeout);
    if (timeout && (t.tv_sec || t.tv_nsec)) {
        t = ns_wait_left(end);
        *timeout = (struct timeval){ t.tv_sec, t.tv_nsec / 1000 };
    }
    return (int)ns_result(ret);
}

NS_TWIN(__select, select);

NS_EXPORT int pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
                      const sigset_t *mask)
{
    int ret = ns_engaged() ? ns_wait_select(n, r, w, e, timeout, mask) : NS_NOT_OURS;

    return ret == NS_NOT_OURS ? ns_real.pselect(n, r, w, e, timeout, mask) : (int)ns_result(ret);
}

/* ---- epoll ---- */

/* Any descriptor may become a session while it is registered: the engine sees them all. */
NS_EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    bool sound = op == EPOLL_CTL_DEL || ns_plausible(event);
    int r = ns_ready() && sound ? ns_epoll_ctl(epfd, op, fd, event) : NS_NOT_OURS;

    return r == NS_NOT_OURS ? ns_real.epoll_ctl(epfd, op, fd, event) : (int)ns_result(r);
}

int ns_wait_epoll(int epfd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask)
{
    if (!ns_ready() || max <= 0 || !ns_plausible(events))
        return NS_NOT_OURS;
    return ns_epoll_pwait(epfd, events, max, timeout_ms, mask);
}

NS_EXPORT int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms)
{
    int r = ns_engaged() ? ns_wait_epoll(epfd, events, max, timeout_ms, NULL) : NS_NOT_OURS;

    return r == NS_NOT_OURS ? ns_real.epoll_wait(epfd, events, max, timeout_ms) : (int)ns_result(r);
}

NS_EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask)
{
    int r = ns_engaged() ? ns_wait_epoll(epfd, events, max, timeout_ms, mask) : NS_NOT_OURS;

    return r == NS_NOT_OURS ? ns_real.epoll_pwait(epfd, events, max, timeout_ms, mask) : (int)ns_result(r);
}

/*
 * The engine counts in milliseconds: whole ones are waited there, and what is
 * left below one on the epoll descriptor itself, so that the call ends neither
 * early nor a millisecond late.
 */
static int wait_epoll_finely(int epfd, struct epoll_event *events, int max, struct timespec end,
                             const sigset_t *mask)
{
    for (;;) {
        struct timespec left = ns_wait_left(end);
        struct pollfd p = { .fd = epfd, .events = POLLIN };
        int ms = left.tv_sec >= INT_MAX / 1000 ? INT_MAX
                                               : (int)(left.tv_sec * 1000 + left.tv_nsec / NS_PER_MS);
        int r = ns_wait_epoll(epfd, events, max, ms, mask);

        if (r == NS_NOT_OURS)
            return ns_real.epoll_pwait2(epfd, events, max, &left, mask);
        if (r != 0)
            return (int)ns_result(r);
        left = ns_wait_left(end);
        if (left.tv_sec == 0 && left.tv_nsec == 0)
            return 0;
        if (left.tv_sec == 0 && left.tv_nsec < NS_PER_MS && ns_real.ppoll(&p, 1, &left, mask) < 0)
            return -1;
    }
}

NS_EXPORT int epoll_pwait2(int epfd, struct epoll_event *events, int max, const struct timespec *timeout,
                           const sigset_t *mask)
{
    int r;

    if (!ns_engaged() || !ns_ready() || !ns_wait_valid(timeout))
        return ns_real.epoll_pwait2(epfd, events, max, timeout, mask);
    if (timeout && (timeout->tv_sec || timeout->tv_nsec))
        return wait_epoll_finely(epfd, events, max, ns_wait_end(*timeout), mask);
    r = ns_wait_epoll(epfd, events, max, timeout ? 0 : -1, mask);
    return r == NS_NOT_OURS ? ns_real.epoll_pwait2(epfd, events, max, timeout, mask) : (int)ns_result(r);
}
