/* epoll_wait(2): what of the kernel's answer is the application's. */
#include "engine/await.h"
#include "engine/connect.h"
#include "engine/engine.h"
#include "engine/first.h"
#include "engine/libc.h"
#include "engine/listener.h"
#include "engine/ready.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>

#define TELLING (EPOLLERR | EPOLLHUP | EPOLLRDHUP)

/* The event as the application may see it; 0: not at all. */
static uint32_t judge(struct ns_object *o, int fd, uint32_t asked, uint32_t events)
{
    if (o->kind == NS_KIND_LISTENER)
        return (events & (EPOLLIN | EPOLLRDNORM)) && !ns_listener_ready((struct ns_listener *)o, fd) ? 0
                                                                                                     : events;
    /* What is readable all the same: an inbox, a reading side that was shut down. */
    if (ns_object_suspended(o) && ns_ready_anyway((struct ns_sock *)o, fd))
        return (events & (EPOLLIN | EPOLLRDNORM)) |
               (__atomic_load_n(&((struct ns_sock *)o)->rx_shut, __ATOMIC_SEQ_CST) ? asked & EPOLLRDHUP : 0);
    enum ns_readiness r = ns_ready_judge((struct ns_sock *)o, fd, (short)events);
    if (r == NS_READY_AS_TOLD && (events & NS_WRITING) && !(events & (EPOLLERR | EPOLLHUP)) &&
        ns_sock_held((struct ns_sock *)o))
        return events & ~(uint32_t)NS_WRITING; /* it has only now been seen to stand */
    if (r == NS_READY_AS_TOLD)
        return events | (ns_sock_failure((struct ns_sock *)o) ? (uint32_t)EPOLLERR : 0);
    if (r == NS_READY_NOT)
        return 0;
    struct pollfd p = { .fd = fd, .events = (short)(asked & 0xffff) };
    ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL);
    return (uint16_t)p.revents;
}

/*
 * An edge that NEW alone has made: the server's application was told that it may
 * write, has not written since, and there is nothing for it to read.
 */
static bool new_edge(struct ns_watch *w, bool awaited, uint32_t seen)
{
    const struct ns_sock *s = (const struct ns_sock *)w->object;
    if (!awaited)
        return false;
    bool again = w->told_writable && s->session.ring.head == 0 && seen && !(seen & ~(uint32_t)NS_WRITING);
    w->told_writable |= (seen & NS_WRITING) != 0;
    return again && (w->event.events & EPOLLET);
}

static bool awaits_first(const struct ns_object *o)
{
    return o->kind == NS_KIND_SOCK && ns_sock_state((const struct ns_sock *)o) == NS_AWAITING;
}

/* `beside`: whether something that stands beside it may report it, too. */
static uint32_t filter_one(struct ns_object *epoll, const struct epoll_event *e, bool *beside)
{
    uint32_t seen = 0;
    bool known = false;
    struct ns_watch *next;
    for (struct ns_watch *w = ns_watch_with(epoll, e->data.u64); w; w = next) {
        next = ns_watch_also(w);
        known = true;
        *beside |= w->companion >= 0;
        struct ns_object *o = w->object;
        if (ns_object_kind(o) == NS_KIND_DORMANT && !ns_sock_wake(o))
            return e->events;
        bool awaited = awaits_first(o);
        uint32_t judged = judge(o, w->fd, w->event.events, e->events);
        if (awaited && !o->watches) /* judging has forgotten it */
            return (seen | judged) & (e->events | TELLING);
        seen |= new_edge(w, awaited, judged) ? 0 : judged;
        /* What the application is not shown did not fire. */
        if (ns_object_suspended(o) && !w->removed && (w->event.events & EPOLLONESHOT))
            ns_watch_take_out(w);
        ns_watch_mute(o); /* else a level-triggered wait would spin */
        if (ns_object_suspended(o))
            ns_watch_suspend(o);
        else if (!seen && (w->event.events & EPOLLONESHOT) && !w->removed && o->watches)
            ns_watch_rearm(w);
        /* Judging may have forgotten the object and its registrations. */
        if (!o->watches)
            break;
    }
    return known ? seen & (e->events | TELLING) : e->events;
}

/* A registration and what stands beside it are one to the application. */
static bool merged(struct epoll_event *events, int n, const struct epoll_event *e)
{
    for (int i = 0; i < n; i++)
        if (events[i].data.u64 == e->data.u64) {
            events[i].events |= e->events;
            return true;
        }
    return false;
}

static int filter(int epfd, struct epoll_event *events, int n)
{
    struct ns_hold hold;
    int kept = 0;
    ns_table_hold(&hold);
    struct ns_object *epoll = ns_object_at(epfd);
    for (int i = 0; i < n; i++) {
        bool beside = __atomic_load_n(&ns_count_special, __ATOMIC_RELAXED) > 0;
        if (epoll && epoll->kind == NS_KIND_EPOLL)
            events[i].events = filter_one(epoll, &events[i], &beside);
        if (events[i].events && !(beside && merged(events, kept, &events[i])))
            events[kept++] = events[i];
    }
    ns_table_unhold(&hold);
    return kept;
}

static bool telling(const struct epoll_event *events, int n)
{
    if (__atomic_load_n(&ns_count_awaiting, __ATOMIC_RELAXED) ||
        __atomic_load_n(&ns_count_asking, __ATOMIC_RELAXED) ||
        __atomic_load_n(&ns_count_special, __ATOMIC_RELAXED) ||
        __atomic_load_n(&ns_count_listeners, __ATOMIC_RELAXED))
        return true;
    for (int i = 0; i < n; i++)
        if (events[i].events & TELLING)
            return true;
    return false;
}

/* One in here that another process may have. Table not held. */
static struct ns_object *one_dormant(int epfd)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_object *epoll = ns_object_at(epfd);
    struct ns_watch *w = epoll && epoll->kind == NS_KIND_EPOLL ? epoll->watches : NULL;
    while (w && ns_object_kind(w->object) != NS_KIND_DORMANT)
        w = w->next_in;
    struct ns_object *o = w ? w->object : NULL;
    ns_table_unhold(&hold);
    return o;
}

/* Who waits for a session calls for it. None is dormant afterwards. */
static void wake_all_in(int epfd)
{
    struct ns_object *o;
    while ((o = one_dormant(epfd)))
        ns_sock_wake(o);
}

static int ms_until(struct ns_time end)
{
    int64_t left = end.ns - ns_now().ns;
    return left <= 0 ? 0 : (int)((left + 999999) / 1000000);
}

int ns_epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask)
{
    struct ns_object *o = ns_object_at(epfd);
    if (__atomic_load_n(&ns_count_offering, __ATOMIC_RELAXED))
        ns_offer_all();
    if (!o || o->kind != NS_KIND_EPOLL)
        return NS_NOT_OURS;
    if (__atomic_load_n(&ns_count_dormant, __ATOMIC_RELAXED))
        wake_all_in(epfd);
    struct ns_time end = timeout_ms < 0 ? NS_NEVER : ns_time_add(ns_now(), ns_time_ms(timeout_ms));
    struct ns_handled since = ns_handled;
    int saved = errno;
    bool at_once = timeout_ms == 0, late = ns_await_registered(epfd, at_once);
    for (;;) {
        if (late && timeout_ms > 0)
            timeout_ms = ms_until(end);
        if (ns_helper_is_late() && timeout_ms != 0)
            ns_helper_start();
        /* One that came while an answer was awaited no kernel saw. */
        bool interrupted = since.all != ns_handled.all;
        int n = ns_libc.epoll_pwait(epfd, events, max, interrupted ? 0 : timeout_ms, mask);
        if (n < 0)
            n = -errno;
        errno = saved;
        if (n == 0 && interrupted)
            return -EINTR;
        if (n <= 0 || !telling(events, n))
            return n;
        ns_await_reported(epfd, events, n);
        n = filter(epfd, events, n);
        if (n > 0)
            return n;
        if (since.all != ns_handled.all)
            return -EINTR;
        /* What they have told may be that a peer has hung up. */
        bool more = at_once && ns_await_registered(epfd, true);
        at_once = false;
        if (!more && timeout_ms >= 0 && !ns_time_before(ns_now(), end))
            return 0;
        late = true;
    }
}
