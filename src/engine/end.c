#include "engine/end.h"

#include "engine/engine.h"
#include "engine/inbox.h"
#include "engine/internal.h"
#include "engine/resume.h"
#include "engine/serve.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/thread.h"
#include "engine/watch.h"

#include <errno.h>
#include <string.h>

/* ---- memory ---- */

void ns_sock_let_go(struct ns_sock *s)
{
    if (__atomic_load_n(&s->helped, __ATOMIC_ACQUIRE)) {
        ns_helper_post_lazily(s, NS_TODO_CLOSED);
        return;
    }
    ns_sock_uncount(s);
    ns_object_free(&s->o);
}

void ns_sock_bury(struct ns_sock *s, struct ns_time now)
{
    struct ns_hold hold;
    ns_resume_stop(s, now);
    ns_serve_forget(s);
    ns_swap_stop_replay(s);
    ns_timer_clear(&s->parked);
    ns_timer_clear(&s->stalled);
    ns_table_hold(&hold);
    ns_internal_close(s->linger_fd);
    s->linger_fd = -1;
    /* A note about it may still be under way: whoever takes that frees it. */
    s->buried = true;
    if (__atomic_load_n(&s->todo, __ATOMIC_ACQUIRE) == 0) {
        ns_sock_uncount(s);
        ns_object_free(&s->o);
    }
    ns_table_unhold(&hold);
}

void ns_sock_exhume(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    ns_sock_uncount(s);
    ns_object_free(&s->o);
    ns_table_unhold(&hold);
}

/* ---- plain TCP ---- */

static void clear_entry(void *ctx, int fd)
{
    __atomic_store_n((struct ns_object **)&ns_table[fd], NULL, __ATOMIC_SEQ_CST);
}

void ns_sock_forget(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    /* What a relay has is plain, too, and its numbers are kept for their names (relayed.h). */
    if (s->o.fds > 0 && !ns_sock_inbox_filled(s) && s->o.kind != NS_KIND_RELAYED) {
        ns_watch_unmute(&s->o); /* as long as the numbers are its own */
        ns_object_each_fd(&s->o, clear_entry, NULL);
        s->o.fds = 0;
        __atomic_store_n(&s->o.fd, -1, __ATOMIC_SEQ_CST);
        ns_watch_drop_all(&s->o);
        ns_sock_let_go(s);
    }
    ns_table_unhold(&hold);
}

void ns_sock_restore_keepalive(const struct ns_sock *s, int fd)
{
    if (!s->keepalive_ours || fd < 0)
        return;
    for (int i = 3; i >= 0; i--)
        ns_sys_setsockopt(fd, ns_keepalive_options[i].level, ns_keepalive_options[i].name, &s->keepalive[i],
                          sizeof(int));
}

bool ns_sock_demote(struct ns_sock *s, const char *why)
{
    sigset_t saved;
    ns_lock_quiet(&s->tx, &saved);
    bool was_protected = ns_session_protected(&s->session);
    bool now = s->session.state != NS_SUSPENDED && s->session.carrier.tx_position == s->session.ring.head &&
               s->o.kind != NS_KIND_GOING;
    if (now)
        now = ns_sock_event(s, NS_EVENT_DEMOTED);
    if (now)
        ns_sock_restore_keepalive(s, s->o.fd);
    ns_unlock_quiet(&s->tx, &saved);
    if (now && was_protected) {
        ns_info("session demoted: %s", why);
        ns_tell("demoted to plain TCP: %s", why);
    }
    if (now)
        ns_sock_forget(s);
    return now;
}

/* ---- dissolved by the application ---- */

/* The helper may be stopping the very socket that is to be connected again; it
 * takes a second at most. Table held. */
static void await_helper(struct ns_sock *s, struct ns_hold *hold)
{
    while (s->retiring && s->o.fds > 0) {
        ns_table_unhold(hold);
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 100000 }, NULL);
        ns_table_hold(hold);
    }
}

void ns_sock_disconnect(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    await_helper(s, &hold);
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    bool told = ns_session_protected(&s->session);
    if (!ns_sock_event(s, s->session.state == NS_ASKING ? NS_EVENT_ANSWER_NO : NS_EVENT_DEMOTED))
        ns_sock_event(s, NS_EVENT_GAVE_UP);
    if (s->o.fd >= 0) {
        ns_sock_restore_keepalive(s, s->o.fd);
        ns_inbox_drop(s, s->o.fd, ns_ring_used(&s->inbox));
        if (s->retired)
            ns_swap_start_reception(s->o.fd);
        ns_watch_resume(&s->o);
    }
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
    ns_sock_forget(s);
    ns_table_unhold(&hold);
    if (told)
        ns_info("session ended: the application has disconnected it");
    ns_slots_wake();
}

/* ---- given up ---- */

/* What was reset by us, without a word of the peer's, waits as a connection that the
 * peer has reset: readable, writable and hung up (tcp_poll). */
static void leave_dead(int fd)
{
    ns_sys_shutdown(fd, SHUT_RDWR);
}

static void fail(struct ns_sock *s, int error)
{
    struct ns_hold hold;
    ns_swap_stop_replay(s);
    ns_table_hold(&hold);
    ns_lock(&s->tx);
    __atomic_store_n(&s->failure, error == NS_ERROR_END ? 0 : -error, __ATOMIC_SEQ_CST);
    ns_sock_event(s, NS_EVENT_GAVE_UP);
    ns_unlock(&s->tx);
    if (s->retired && s->o.fd >= 0)
        leave_dead(s->o.fd);
    ns_watch_resume(&s->o);
    ns_table_unhold(&hold);
    ns_info("session given up: %s", strerror(-error));
    ns_tell("given up: %s", strerror(-error));
    ns_slots_wake();
}

void ns_sock_give_up(struct ns_sock *s, int error, struct ns_time now)
{
    ns_resume_stop(s, now);
    ns_serve_forget(s);
    ns_timer_clear(&s->parked);
    if (ns_sock_state(s) == NS_CONNECTED)
        ns_swap_retire(s);
    fail(s, error);
    if (ns_sock_number(s) < 0)
        ns_sock_bury(s, now);
}

void ns_sock_abandon(struct ns_sock *s, struct ns_time now)
{
    if (ns_sock_state(s) == NS_SUSPENDED) {
        ns_error("bytes were written around the session: it cannot be resumed");
        ns_sock_give_up(s, s->error ? s->error : -ECONNRESET, now);
        return;
    }
    ns_resume_stop(s, now);
    ns_serve_forget(s);
    __atomic_store_n(&s->unfaithful, true, __ATOMIC_SEQ_CST);
    ns_sock_demote(s, "bytes were written around it");
}
