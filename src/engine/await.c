#include "engine/await.h"

#include "engine/connect.h"
#include "engine/engine.h"
#include "engine/ready.h"
#include "engine/sys.h"
#include "engine/watch.h"

#define NEAR_US 2000 /* a round trip that an application may be kept waiting for */
#define VAIN_MS 1000

static int64_t near_until_ns; /* when the last hold of a peer nearby is over; atomic */
static int64_t vain_until_ns; /* atomic */

/* Most of the time there is nobody to wait for: then nothing is looked through. */
static bool none_near(void)
{
    int64_t until_ns = __atomic_load_n(&near_until_ns, __ATOMIC_SEQ_CST);
    return until_ns == 0 || until_ns <= ns_now().ns;
}

void ns_await_mark(struct ns_sock *s, int64_t rtt_us)
{
    s->near = rtt_us <= NEAR_US;
    int64_t before_ns = __atomic_load_n(&near_until_ns, __ATOMIC_SEQ_CST);
    while (s->near && before_ns < s->hold_until.ns &&
           !__atomic_compare_exchange_n(&near_until_ns, &before_ns, s->hold_until.ns, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
        ;
}

/* Its peer is nearby, and has not answered yet. */
static bool awaited(const struct ns_sock *s)
{
    return ns_sock_state(s) == NS_ASKING && s->near && ns_sock_held(s);
}

/* Until any session changes, or the hold is over. */
static void sleep_on(struct ns_slot *slot, const struct ns_sock *s)
{
    int wait_fd = ns_slot_wait_prepare(slot);
    int64_t ns = s->hold_until.ns - ns_now().ns;
    if (wait_fd < 0 && ns > NS_SLOT_BLIND_MS * 1000000L)
        ns = NS_SLOT_BLIND_MS * 1000000L;
    if (ns > 0 && awaited(s)) {
        struct pollfd p = { .fd = wait_fd, .events = POLLIN };
        ns_sys_ppoll(&p, 1, &(struct timespec){ ns / 1000000000, ns % 1000000000 }, NULL);
    }
    if (wait_fd >= 0)
        ns_slot_wait_finish(slot);
}

bool ns_await_answer(const struct ns_sock *s)
{
    struct ns_slot *slot = ns_slot_self();
    bool waited = false;
    while (awaited(s)) {
        if (!slot || ns_now().ns < __atomic_load_n(&vain_until_ns, __ATOMIC_RELAXED))
            return false;
        waited = true;
        sleep_on(slot, s);
    }
    bool vain = ns_sock_state(s) == NS_ASKING;
    if (vain && waited)
        __atomic_store_n(&vain_until_ns, ns_now().ns + VAIN_MS * 1000000LL, __ATOMIC_RELAXED);
    return !vain || !ns_sock_held(s);
}

/* ---- poll and select ---- */

bool ns_await_asked(const struct pollfd *fds, nfds_t n)
{
    if (none_near())
        return false;
    for (nfds_t i = 0; i < n; i++) {
        struct ns_object *o = fds[i].events & NS_WRITING ? ns_object_at(fds[i].fd) : NULL;
        if (o && ns_object_kind(o) == NS_KIND_SOCK)
            ns_await_answer((struct ns_sock *)o);
    }
    return true;
}

void ns_await_found(const struct pollfd *fds, nfds_t n)
{
    if (__atomic_load_n(&ns_count_asking, __ATOMIC_RELAXED) == 0)
        return;
    for (nfds_t i = 0; i < n; i++) {
        struct ns_object *o = fds[i].revents & NS_WRITING ? ns_object_at(fds[i].fd) : NULL;
        if (!o || ns_object_kind(o) != NS_KIND_SOCK)
            continue;
        struct ns_sock *s = (struct ns_sock *)o;
        if (ns_sock_state(s) == NS_CONNECTING)
            ns_client_established(s, fds[i].fd);
        ns_await_answer(s);
    }
}

/* ---- epoll ---- */

/* One in here that would not be writable because its peer is being asked; table held. */
static struct ns_sock *one_registered(const struct ns_object *epoll)
{
    for (struct ns_watch *w = epoll->watches; w; w = w->next_in) {
        struct ns_sock *s = (struct ns_sock *)w->object;
        if ((w->event.events & NS_WRITING) && w->object->kind == NS_KIND_SOCK && awaited(s))
            return s;
    }
    return NULL;
}

/* One that this event has found to stand; table held. */
static struct ns_sock *one_reported(const struct ns_object *epoll, const struct epoll_event *e)
{
    struct ns_watch *next;
    for (struct ns_watch *w = ns_watch_with(epoll, e->data.u64); w && (e->events & NS_WRITING); w = next) {
        next = ns_watch_also(w);
        struct ns_sock *s = (struct ns_sock *)w->object;
        if (w->object->kind != NS_KIND_SOCK)
            continue;
        if (ns_sock_state(s) == NS_CONNECTING)
            ns_client_established(s, w->fd);
        if (awaited(s))
            return s;
        if (!s->o.watches) /* known to be plain: forgotten, and `next` with it, perhaps */
            return NULL;
    }
    return NULL;
}

static struct ns_sock *one_in(int epfd, const struct epoll_event *e)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_object *epoll = ns_object_at(epfd);
    struct ns_sock *s = NULL;
    if (epoll && epoll->kind == NS_KIND_EPOLL)
        s = e ? one_reported(epoll, e) : one_registered(epoll);
    ns_table_unhold(&hold);
    return s;
}

/* One after the other. Who applies an answer has the table until he has unmuted them,
 * and to look once more is to wait for that, too. */
static void await_in(int epfd, const struct epoll_event *e)
{
    struct ns_slot *slot = ns_slot_self();
    struct ns_sock *s;
    if (!slot || !ns_slot_enter(slot, slot))
        return;
    do {
        s = one_in(epfd, e);
    } while (s && ns_await_answer(s));
    ns_slot_leave(slot);
}

bool ns_await_registered(int epfd)
{
    if (none_near())
        return false;
    await_in(epfd, NULL);
    return true;
}

void ns_await_reported(int epfd, const struct epoll_event *events, int n)
{
    for (int i = 0; i < n && __atomic_load_n(&ns_count_asking, __ATOMIC_RELAXED); i++)
        await_in(epfd, &events[i]);
}
