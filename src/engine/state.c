/* Changes of a session's state that any thread may make. How it ends: end.c. */
#include "engine/await.h"
#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/ledger.h"
#include "engine/sys.h"
#include "engine/thread.h"

uint32_t ns_count_asking, ns_count_offering, ns_count_awaiting, ns_count_swaps, ns_count_special;

bool ns_name_learn(struct ns_name *name, int fd, int (*ask)(int, struct sockaddr *, socklen_t *))
{
    if (name->length)
        return true;
    name->length = sizeof name->address;
    if (ask(fd, (struct sockaddr *)&name->address, &name->length) < 0)
        name->length = 0;
    return name->length != 0;
}

static void count_state(enum ns_state state, uint32_t by)
{
    if (state == NS_OFFERING)
        __atomic_fetch_add(&ns_count_offering, by, __ATOMIC_SEQ_CST);
    else if (state == NS_AWAITING)
        __atomic_fetch_add(&ns_count_awaiting, by, __ATOMIC_SEQ_CST);
    else if (state == NS_SUSPENDED)
        __atomic_fetch_add(&ns_count_special, by, __ATOMIC_SEQ_CST);
    else if (state == NS_CONNECTING || state == NS_ASKING)
        __atomic_fetch_add(&ns_count_asking, by, __ATOMIC_SEQ_CST);
}

void ns_sock_set_full(struct ns_sock *s, bool full)
{
    if (__atomic_exchange_n(&s->tx_full, full, __ATOMIC_SEQ_CST) != full)
        __atomic_fetch_add(&ns_count_special, full ? 1 : -1u, __ATOMIC_SEQ_CST);
}

bool ns_sock_held(const struct ns_sock *s)
{
    enum ns_state state = ns_sock_state(s);
    return state == NS_ASKING ? ns_time_before(ns_now(), s->hold_until)
                              : (state == NS_CONNECTED || state == NS_AWAITING) &&
                                    __atomic_load_n(&s->tx_full, __ATOMIC_SEQ_CST);
}

void ns_sock_uncount(struct ns_sock *s)
{
    count_state(s->session.state, -1u);
    if (ns_sock_inbox_filled(s))
        __atomic_fetch_sub(&ns_count_special, 1, __ATOMIC_SEQ_CST);
    ns_sock_set_full(s, false);
}

void ns_sock_count(struct ns_sock *s)
{
    count_state(s->session.state, 1);
    if (ns_sock_inbox_filled(s))
        __atomic_fetch_add(&ns_count_special, 1, __ATOMIC_SEQ_CST);
}

bool ns_sock_event(struct ns_sock *s, enum ns_event event)
{
    enum ns_state old = s->session.state;
    if (!ns_session_event(&s->session, event))
        return false;
    enum ns_state new = s->session.state;
    count_state(old, -1u);
    count_state(new, 1);
    if (new == NS_PLAIN)
        ns_dormant_plain(s);
    if (new == NS_PLAIN && __atomic_load_n(&s->tx_full, __ATOMIC_SEQ_CST))
        ns_slots_wake(); /* who waits for room needs none */
    ns_debug("descriptor %d: %s, %s, now %s", ns_sock_number(s), ns_state_name(old), ns_event_name(event),
             ns_state_name(new));
    return true;
}

bool ns_sock_faithful(struct ns_sock *s, int fd)
{
    struct ns_ledger l;
    if (__atomic_load_n(&s->unfaithful, __ATOMIC_ACQUIRE) || !ns_dormant_ours(s) ||
        ns_ledger_read_still(fd, &l) < 0)
        return false;
    return ns_carrier_faithful(&s->session.carrier, l.acknowledged, l.unacknowledged, s->fin_queued);
}

/* The ring knows what was acknowledged only as of the last time that room was needed. */
bool ns_sock_delivered(const struct ns_sock *s, int fd)
{
    const struct ns_session *session = &s->session;
    if (session->ring.head == session->ring.tail)
        return true;
    if (s->retired)
        return s->delivered >= session->ring.head;
    int64_t left = ns_ledger_unacknowledged(fd);
    return session->carrier.adopted && left >= 0 &&
           ns_carrier_acknowledged(&session->carrier, (uint64_t)left, s->fin_queued) >= session->ring.head;
}

/* What the kernel keeps for the next call on the socket. */
static int take_error(int fd)
{
    int err = 0;
    socklen_t len = sizeof err;
    ns_sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
    return err ? -err : NS_ERROR_END;
}

bool ns_sock_lost(struct ns_sock *s, uint32_t generation, int error)
{
    sigset_t saved;
    ns_lock_quiet(&s->tx, &saved);
    enum ns_kind kind = ns_object_kind(&s->o);
    if (ns_kind_sleeps(kind) || kind == NS_KIND_RELAYED) { /* who calls next wakes it, or is told */
        ns_unlock_quiet(&s->tx, &saved);
        return true;
    }
    bool mine = s->generation == generation && s->session.state == NS_CONNECTED && !s->retired;
    int fd = s->o.fd >= 0 ? s->o.fd : s->linger_fd;
    bool resumable = mine ? fd >= 0 && ns_sock_faithful(s, fd) && ns_helper_here()
                          : ns_session_protected(&s->session);
    if (mine && error == NS_ERROR_UNREAD)
        error = resumable ? take_error(fd) : NS_ERROR_END;
    /* Who calls has looked without tx: shutdown may have ended our direction, and
     * the peer acknowledged it, before that was noted here. */
    if (mine && error == NS_ERROR_END && s->session.tx_ended && ns_ledger_unacknowledged(fd) == 0) {
        ns_unlock_quiet(&s->tx, &saved);
        return false;
    }
    if (mine && resumable)
        ns_await_mark_reset(s, fd, error);
    if (mine) {
        ns_sock_event(s, resumable ? NS_EVENT_LOST : NS_EVENT_DEMOTED);
        s->error = error;
        __atomic_store_n(&s->tx_open, false, __ATOMIC_SEQ_CST);
        if (resumable)
            __atomic_store_n(&s->rx_open, false, __ATOMIC_SEQ_CST);
    }
    ns_unlock_quiet(&s->tx, &saved);
    if (mine && resumable)
        ns_helper_post(s, NS_TODO_SUSPENDED);
    if (mine && !resumable) {
        ns_info("session demoted: bytes were written around it, or nobody can resume it");
        ns_sock_forget(s);
    }
    return resumable;
}

void ns_sock_born(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    if (s->o.fds == 0) { /* closed meanwhile */
        ns_table_unhold(&hold);
        return;
    }
    /* Only servers are asked for; a client of theirs may be in this process. */
    bool server = s->session.role == NS_SERVER;
    bool replayed = server && ns_sock_find(s->session.id) != NULL;
    if (server && !replayed)
        ns_sock_index(s);
    /* A helper that looks by itself before long finds it. Until then it is nobody's but the
     * application's: most servers that fork close it at once. */
    bool found = server && s->session.version == 2 && __atomic_load_n(&ns_helper_ticking, __ATOMIC_SEQ_CST);
    if (!replayed) {
        if (!found)
            ns_helper_post_lazily(s, NS_TODO_BORN);
        ns_dormant_name(s);
        if (server)
            ns_helper_start_late();
    }
    ns_table_unhold(&hold);
    if (replayed) {
        /* Somebody on the path has sent a NEW again: a RESUME must find the first. */
        ns_sock_demote(s, "its NEW was seen before");
        return;
    }
    if (found)
        __atomic_store_n(&s->touched, true, __ATOMIC_RELAXED);
    else
        ns_sock_touch(s);
    ns_info("session established on descriptor %d", ns_sock_number(s));
}
