#include "engine/await.h"

#include "engine/connect.h"
#include "engine/engine.h"
#include "engine/ledger.h"
#include "engine/ready.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>

#define VAIN_MS 1000
/* It may wait so long, in all, for what comes of a reset: far more than it takes unless the machine is busy. */
#define VERDICT_MS 500

static int64_t near_until_ns; /* when the last wait for a peer nearby is over; atomic */
static int64_t vain_until_ns; /* atomic */

/* Most of the time there is nobody to wait for: then nothing is looked through. */
static bool none_near(void)
{
    int64_t until_ns = __atomic_load_n(&near_until_ns, __ATOMIC_SEQ_CST);
    return until_ns == 0 || until_ns <= ns_now().ns;
}

static void near_until(int64_t ns)
{
    int64_t before_ns = __atomic_load_n(&near_until_ns, __ATOMIC_SEQ_CST);
    while (before_ns < ns && !__atomic_compare_exchange_n(&near_until_ns, &before_ns, ns, false, __ATOMIC_SEQ_CST,
                                                          __ATOMIC_SEQ_CST))
        ;
}

/* Whether an application may be kept waiting for a round trip. */
static bool is_near(int64_t rtt_us)
{
    return rtt_us <= ns_engine.policy.near_ms * 1000;
}

void ns_await_mark(struct ns_sock *s, int64_t rtt_us)
{
    s->near = is_near(rtt_us);
    if (s->near)
        near_until(s->hold_until.ns);
}

void ns_await_mark_reset(struct ns_sock *s, int fd, int error)
{
    struct ns_ledger l;
    int64_t until_ns = 0;
    bool reset = error == -ECONNRESET || error == -EPIPE || error == NS_ERROR_END;
    if (reset && s->session.role == NS_CLIENT && ns_ledger_read(fd, &l) == 0 && is_near(l.rtt_us))
        until_ns = ns_now().ns + VERDICT_MS * 1000000LL;
    __atomic_store_n(&s->verdict_until_ns, until_ns, __ATOMIC_SEQ_CST);
    near_until(until_ns);
}

/* How long its peer, who is nearby, is waited for; 0 when it is not. */
static int64_t awaited_until_ns(const struct ns_sock *s)
{
    int64_t ns = 0;
    enum ns_state state = ns_sock_state(s);
    if (state == NS_ASKING && s->near)
        ns = s->hold_until.ns;
    else if (state == NS_SUSPENDED)
        ns = __atomic_load_n(&s->verdict_until_ns, __ATOMIC_SEQ_CST);
    return ns && ns > ns_now().ns ? ns : 0;
}

/* Until any session changes, or the time is over. */
static void sleep_on(struct ns_slot *slot, const struct ns_sock *s)
{
    int wait_fd = ns_slot_wait_prepare(slot);
    int64_t until_ns = awaited_until_ns(s), ns = until_ns - ns_now().ns;
    if (wait_fd < 0 && ns > NS_SLOT_BLIND_MS * 1000000L)
        ns = NS_SLOT_BLIND_MS * 1000000L;
    if (until_ns && ns > 0) {
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
    while (awaited_until_ns(s)) {
        if (!slot || ns_now().ns < __atomic_load_n(&vain_until_ns, __ATOMIC_RELAXED))
            return false;
        waited = true;
        sleep_on(slot, s);
    }
    enum ns_state state = ns_sock_state(s);
    bool vain = state == NS_ASKING || state == NS_SUSPENDED;
    if (vain && waited)
        __atomic_store_n(&vain_until_ns, ns_now().ns + VAIN_MS * 1000000LL, __ATOMIC_RELAXED);
    return !vain || (state == NS_ASKING && !ns_sock_held(s));
}

/* ---- poll and select ---- */

/* Whether a wait that asks for these events, and is over at once, would say less than plain TCP. */
static bool concerns(const struct ns_sock *s, uint32_t events, bool at_once)
{
    return ns_sock_state(s) == NS_SUSPENDED ? at_once : (events & NS_WRITING) != 0;
}

bool ns_await_asked(const struct pollfd *fds, nfds_t n, bool at_once)
{
    if (none_near())
        return false;
    for (nfds_t i = 0; i < n; i++) {
        struct ns_object *o = ns_object_at(fds[i].fd);
        if (o && ns_object_kind(o) == NS_KIND_SOCK && concerns((struct ns_sock *)o, (uint32_t)fds[i].events, at_once))
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

/* One in here whose peer is waited for; table held. */
static struct ns_sock *one_registered(const struct ns_object *epoll, bool at_once)
{
    for (struct ns_watch *w = epoll->watches; w; w = w->next_in) {
        struct ns_sock *s = (struct ns_sock *)w->object;
        if (w->object->kind == NS_KIND_SOCK && awaited_until_ns(s) && concerns(s, w->event.events, at_once))
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
        if (ns_sock_state(s) == NS_ASKING && awaited_until_ns(s))
            return s;
        if (!s->o.watches) /* known to be plain: forgotten, and `next` with it, perhaps */
            return NULL;
    }
    return NULL;
}

static struct ns_sock *one_in(int epfd, const struct epoll_event *e, bool at_once)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_object *epoll = ns_object_at(epfd);
    struct ns_sock *s = NULL;
    if (epoll && epoll->kind == NS_KIND_EPOLL)
        s = e ? one_reported(epoll, e) : one_registered(epoll, at_once);
    ns_table_unhold(&hold);
    return s;
}

/* One after the other. Who applies an answer has the table until he has unmuted them,
 * and to look once more is to wait for that, too. */
static void await_in(int epfd, const struct epoll_event *e, bool at_once)
{
    struct ns_slot *slot = ns_slot_self();
    struct ns_sock *s;
    if (!slot || !ns_slot_enter(slot, slot))
        return;
    do {
        s = one_in(epfd, e, at_once);
    } while (s && ns_await_answer(s));
    ns_slot_leave(slot);
}

bool ns_await_registered(int epfd, bool at_once)
{
    if (none_near())
        return false;
    await_in(epfd, NULL, at_once);
    return true;
}

void ns_await_reported(int epfd, const struct epoll_event *events, int n)
{
    for (int i = 0; i < n && __atomic_load_n(&ns_count_asking, __ATOMIC_RELAXED); i++)
        await_in(epfd, &events[i], false);
}
