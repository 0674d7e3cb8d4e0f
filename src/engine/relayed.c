#include "engine/relayed.h"

#include "engine/broker.h"
#include "engine/dormant.h"
#include "engine/engine.h"
#include "engine/swap.h"
#include "engine/watch.h"

/* It was in use here. Table, rx and tx held. */
static void retire_session(struct ns_sock *s)
{
    ns_timer_clear(&s->parked);
    ns_sock_uncount(s);
    ns_sock_unindex(s);
    ns_broker_freed(s);
    s->told = 0;
    s->inbox_filled = false;
    __atomic_store_n(&s->rx_open, false, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->tx_open, false, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&s->generation, 1, __ATOMIC_SEQ_CST);
}

void ns_relayed_put(struct ns_sock *s, int end)
{
    bool awake = s->o.kind != NS_KIND_DORMANT;
    ns_watch_suspend(&s->o);
    ns_watch_stand_in(&s->o, false);
    ns_swap_put_under(s, end);
    ns_watch_resume(&s->o);
    ns_watch_drop_all(&s->o);
    if (awake)
        retire_session(s);
    ns_dormant_leave(s);
    __atomic_store_n(&s->o.kind, NS_KIND_RELAYED, __ATOMIC_SEQ_CST);
    ns_session_event(&s->session, NS_EVENT_RESUMED); /* means nothing, unless it was suspended */
    ns_session_event(&s->session, NS_EVENT_DEMOTED);
    ns_ring_destroy(&s->inbox);
    ns_ring_destroy(&s->session.ring);
    /* Whoever waits looks at the number again. */
    __atomic_fetch_add(&ns_count_swaps, 1, __ATOMIC_SEQ_CST);
}

void ns_relayed_inherit(struct ns_sock *s)
{
    ns_lock_reset(&s->rx);
    ns_lock_reset(&s->tx);
    s->hash_next = NULL;
    s->todo = 0;
    s->gate = 0;
    s->helped = s->buried = false;
}

void ns_relayed_found(struct ns_sock *s, enum ns_role role, const struct ns_name *local, const struct ns_name *peer)
{
    ns_session_init(&s->session, role, 2);
    ns_ring_init(&s->inbox, 0);
    ns_session_event(&s->session, role == NS_CLIENT ? NS_EVENT_ANSWER_NO : NS_EVENT_NOT_NEW);
    s->linger_fd = -1;
    s->local = *local;
    s->peer = *peer;
    __atomic_store_n(&s->o.kind, NS_KIND_RELAYED, __ATOMIC_SEQ_CST);
}
