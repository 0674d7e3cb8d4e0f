/* shutdown(2): the end of one direction, by the application's wish. */
#include "engine/end.h"
#include "engine/data.h"
#include "engine/sys.h"
#include "engine/watch.h"

/* On a connection that takes it; the next one is told when it is put in place.
 * *lost: the connection has died, and nobody has noticed. tx held. */
static int on_connection(struct ns_sock *s, int fd, int how, bool *lost)
{
    int r = ns_sys_shutdown(fd, how);
    /* Where the stream has ended before, both may have, and ENOTCONN is right. */
    *lost = r < 0 && ns_error_is_loss(r) && ns_session_protected(&s->session) && !s->session.tx_ended;
    if ((r == 0 || *lost) && how != SHUT_WR)
        __atomic_store_n(&s->rx_shut, true, __ATOMIC_SEQ_CST);
    if (how == SHUT_RD)
        return r;
    s->fin_queued |= r == 0;
    if (r == 0)
        ns_sock_touch(s);
    __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
    return r;
}

/* There is no connection, or what is before the end is not in it yet. tx held. */
static int noted(struct ns_sock *s, int fd, int how)
{
    if (how != SHUT_WR) {
        __atomic_store_n(&s->rx_shut, true, __ATOMIC_SEQ_CST);
        if (s->session.state == NS_CONNECTED)
            ns_sys_shutdown(fd, SHUT_RD);
    }
    if (how != SHUT_RD)
        __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
    return 0;
}

/* tx held. *forget: it has become plain TCP. */
static int shut(struct ns_sock *s, int fd, int how, bool *lost, bool *forget)
{
    enum ns_state state = s->session.state;
    if (state == NS_AWAITING || (state == NS_CONNECTED && s->tx_open))
        return on_connection(s, fd, how, lost);
    if (ns_session_protected(&s->session))
        return noted(s, fd, how);
    if (how == SHUT_RD)
        return NS_NOT_OURS;
    /* Nothing was written, nothing will be. */
    if (state == NS_ASKING || state == NS_CONNECTING)
        *forget = ns_sock_event(s, NS_EVENT_ANSWER_NO);
    else if (state == NS_OFFERING)
        *forget = ns_sock_event(s, NS_EVENT_DEMOTED);
    return NS_NOT_OURS;
}

/* Whoever waits for a suspended session has something to read now: the end. */
static void tell_waiting(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    if (ns_sock_state(s) == NS_SUSPENDED && s->rx_shut)
        ns_watch_stand_in(&s->o, true);
    ns_table_unhold(&hold);
    ns_slots_wake();
}

#define AGAIN (NS_NOT_OURS + 1) /* it is on its way to a relay, or stays */

/* Inside it. */
static int shut_down(struct ns_sock *s, int fd, int how)
{
    int r = NS_NOT_OURS;
    bool lost = false, forget = false;
    uint32_t generation = 0;
    sigset_t saved;
    ns_lock_quiet(&s->tx, &saved);
    if (ns_sock_is(s, fd)) {
        generation = s->generation;
        r = shut(s, fd, how, &lost, &forget);
    } else if (ns_object_kind(&s->o) == NS_KIND_GOING) {
        r = AGAIN;
    }
    ns_unlock_quiet(&s->tx, &saved);
    /* The end is noted for the next connection, if there will be one. */
    if (lost && ns_sock_lost(s, generation, NS_ERROR_UNREAD))
        r = 0;
    if (ns_sock_state(s) == NS_SUSPENDED)
        tell_waiting(s);
    if (forget)
        ns_sock_forget(s);
    return r;
}

int ns_shutdown(int fd, int how)
{
    struct ns_slot *slot = ns_slot_self();
    struct ns_sock *s;
    int r;
    if (how < SHUT_RD || how > SHUT_RDWR)
        return NS_NOT_OURS;
    do {
        if (!(s = ns_sock_at(fd)) || !slot || !ns_slot_enter(slot, s))
            return NS_NOT_OURS;
        r = shut_down(s, fd, how);
        ns_slot_leave(slot);
    } while (r == AGAIN);
    return r;
}
