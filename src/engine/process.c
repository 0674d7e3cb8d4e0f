/* fork, exec and the end of a process. */
#include "engine/ask.h"
#include "engine/detect.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/listener.h"
#include "engine/names.h"
#include "engine/pass.h"
#include "engine/ready.h"
#include "engine/guest.h"
#include "engine/sys.h"
#include "engine/watch.h"

/* The end of a process waits at most this long for what is not delivered. */
#define EXIT_MS 30000

void ns_fork_prepare(void)
{
    if (!ns_table)
        return;
    ns_lock(&ns_table_lock);
    /* Nothing is half done: handlers may run while the process forks. One that
     * was put off would leave its mask to what is spawned. */
    ns_signals_let_in();
}

/* A child may use what it inherits, and the ring would not see it. */
static bool shared_with_child(struct ns_object *o)
{
    return o->kind == NS_KIND_SOCK && o->fd >= 0 && ns_sock_state((struct ns_sock *)o) != NS_PLAIN;
}

static void forget_listeners(void)
{
    ns_guest_end_leases();
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        if (o->kind != NS_KIND_LISTENER || o->fd < 0)
            continue;
        struct ns_listener *l = (struct ns_listener *)o;
        ns_listener_unwatch(l);
        l->watched = l->shared = true; /* nor is it watched again */
        /* What waits in its queue is the application's still. */
        if (l->count > 0)
            continue;
        ns_watch_drop_all(o);
        for (int fd = o->fd; o->fds > 0 && fd >= 0; fd = o->fd)
            ns_table_remove(fd);
        __atomic_fetch_sub(&ns_count_listeners, 1, __ATOMIC_RELAXED);
    }
}

void ns_fork_parent(void)
{
    if (!ns_table)
        return;
    ns_signals_put_off();
    struct ns_object *next;
    for (struct ns_object *o = ns_objects; o; o = next) {
        next = o->next;
        if (!shared_with_child(o))
            continue;
        struct ns_sock *s = (struct ns_sock *)o;
        /* What awaits its first bytes stays, so that NEW is taken off it. */
        if (ns_sock_state(s) != NS_AWAITING)
            ns_sock_demote(s, "the process has forked; the child may use the connection too");
        else
            s->unfaithful = true;
    }
    /* A child may accept from them: what comes is no more ours alone. */
    forget_listeners();
    ns_unlock(&ns_table_lock);
    if (ns_helper_running())
        ns_helper_look();
}

void ns_fork_child(void)
{
    if (!ns_table)
        return;
    ns_thread_id = 0;
    ns_signals_fork_child();
    ns_lock_reset(&ns_table_lock);
    ns_helper_fork_child();
    ns_slots_fork_child();
    ns_ask_fork_child();
    ns_guest_fork_child();
    ns_engine_fork_child();
    ns_detect_fork_child();
    ns_names_fork_child();
    ns_internal_fork_child(ns_engine.log_fd);
    ns_count_offering = ns_count_special = ns_count_listeners = 0;
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        next = o->next;
        if (o->kind != NS_KIND_SOCK || ((struct ns_sock *)o)->session.state != NS_AWAITING) {
            for (int fd = o->fd; o->fds > 0 && fd >= 0; fd = o->fd)
                ns_table_remove(fd);
        } else {
            struct ns_sock *s = (struct ns_sock *)o;
            ns_lock_reset(&s->rx);
            ns_lock_reset(&s->tx);
            s->unfaithful = true;
        }
    }
}

void ns_exec_prepare(void)
{
    struct ns_hold hold;
    if (!ns_table || !ns_objects)
        return;
    /* The next program does not know that NEW may stand in front. */
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        next = o->next;
        if (o->kind == NS_KIND_SOCK && o->fd >= 0 && ns_sock_state((struct ns_sock *)o) == NS_AWAITING)
            ns_pass_await_new((struct ns_sock *)o, o->fd);
    }
    ns_table_unhold(&hold);
}

/* Whether some suspended session still has bytes that the peer does not. What a
 * working connection holds, the kernel delivers after us. */
static bool anything_undelivered(void)
{
    struct ns_hold hold;
    bool any = false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && !any; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        any = o->kind == NS_KIND_SOCK && (s->linger_fd >= 0 || o->fd >= 0) &&
              (ns_sock_state(s) == NS_SUSPENDED || (ns_sock_state(s) == NS_CONNECTED && !s->tx_open)) &&
              s->session.ring.head > s->session.ring.tail;
    }
    ns_table_unhold(&hold);
    return any;
}

void ns_process_exiting(void)
{
    if (!ns_table || !ns_helper_running())
        return;
    int64_t patience_ms = ns_engine.policy.give_up_ms < EXIT_MS ? ns_engine.policy.give_up_ms : EXIT_MS;
    struct ns_time end = ns_time_add(ns_now(), ns_time_ms(patience_ms));
    while (anything_undelivered() && ns_time_before(ns_now(), end))
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 5000000 }, NULL);
}
