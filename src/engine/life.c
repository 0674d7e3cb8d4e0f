/* How descriptors are born, copied and die; processes too. */
#include "engine/ask.h"
#include "engine/connect.h"
#include "engine/detect.h"
#include "engine/engine.h"
#include "engine/first.h"
#include "engine/internal.h"
#include "engine/ledger.h"
#include "engine/names.h"
#include "engine/listener.h"
#include "engine/ready.h"
#include "engine/serve.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

/* The end of a process waits at most this long for what is not delivered. */
#define EXIT_MS 30000

void ns_fd_born(int fd)
{
    struct ns_hold hold;
    if (!ns_object_at(fd))
        return;
    /* The number was reused behind our back: whatever it stood for is gone. */
    ns_table_hold(&hold);
    struct ns_object *o = ns_table_remove(fd);
    if (o) {
        ns_watch_drop_all(o);
        if (o->kind == NS_KIND_SOCK)
            ns_sock_let_go((struct ns_sock *)o);
        else if (o->kind == NS_KIND_LISTENER)
            ns_listener_close((struct ns_listener *)o);
        else
            ns_object_free(o);
    }
    ns_table_unhold(&hold);
}

void ns_fd_duplicated(int oldfd, int newfd)
{
    struct ns_hold hold;
    if (oldfd == newfd || newfd < 0)
        return;
    ns_fd_born(newfd);
    if (!ns_object_at(oldfd))
        return;
    ns_table_hold(&hold);
    struct ns_object *o = ns_object_at(oldfd);
    if (o && (unsigned)newfd < NS_FD_MAX)
        ns_table_put(newfd, o);
    ns_table_unhold(&hold);
}

/* ---- close ---- */

/* Whether closing now would lose what the application has written, or the end
 * of its stream, if the path died: then the helper sees it through. */
static bool undelivered(struct ns_sock *s, int fd)
{
    struct linger linger = { 0 };
    socklen_t len = sizeof linger;
    int unread = 0;
    if (!ns_session_protected(&s->session) || s->unfaithful)
        return false;
    /* Suspended: the end of the stream has to be told, if nothing else. */
    if (s->session.state == NS_SUSPENDED || !s->tx_open)
        return true;
    if (s->session.ring.head == s->session.ring.tail)
        return false;
    int64_t unacknowledged = ns_ledger_unacknowledged(fd);
    if (unacknowledged < 0 || ns_carrier_acknowledged(&s->session.carrier, (uint64_t)unacknowledged,
                                                      s->fin_queued) >= s->session.ring.head)
        return false;
    /* Unread input or a linger of its own: close means what it says (RFC 2525, 2.17). */
    ns_sys_getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len);
    return !linger.l_onoff && ns_sys_ioctl(fd, SIOCINQ, &unread) == 0 && unread == 0;
}

static void last_close(struct ns_sock *s, int fd)
{
    ns_lock(&s->tx);
    if (s->session.state == NS_ASKING)
        ns_sock_event(s, NS_EVENT_ANSWER_NO);
    else if (s->session.state == NS_OFFERING || s->session.state == NS_AWAITING ||
             s->session.state == NS_CONNECTING)
        ns_sock_event(s, NS_EVENT_DEMOTED);
    bool keep = undelivered(s, fd);
    if (keep) {
        s->linger_fd = ns_internal(ns_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3));
        __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
        if (s->session.state == NS_CONNECTED && s->tx_open && ns_sys_shutdown(fd, SHUT_WR) == 0)
            s->fin_queued = true;
    }
    ns_unlock(&s->tx);
    ns_watch_drop_all(&s->o);
    if (keep)
        ns_helper_post(s, NS_TODO_CLOSED);
    else
        ns_sock_let_go(s);
}

static void closing(int fd)
{
    struct ns_object *at = ns_object_at(fd);
    if (!at)
        return;
    if (at->kind == NS_KIND_LISTENER) {
        struct ns_listener *l = (struct ns_listener *)at;
        if (l->source.fd == fd)
            ns_listener_unwatch(l);
    }
    struct ns_object *o = ns_table_remove(fd);
    if (!o) {
        if (at->kind == NS_KIND_LISTENER)
            ns_helper_look();
        return;
    }
    switch (o->kind) {
    case NS_KIND_SOCK:
        last_close((struct ns_sock *)o, fd);
        break;
    case NS_KIND_LISTENER:
        __atomic_fetch_sub(&ns_count_listeners, 1, __ATOMIC_RELAXED);
        ns_listener_close((struct ns_listener *)o);
        ns_helper_look();
        break;
    default:
        while (o->watches)
            ns_watch_drop_in(o);
        ns_object_free(o);
        break;
    }
}

int ns_fd_closing(int fd)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    closing(fd);
    ns_table_unhold(&hold);
    return 0;
}

/*
 * The descriptor goes where NEW would not be taken off. A client that was told
 * yes a moment ago may have sent it: that is waited for, a little. And nobody is
 * told yes any more.
 */
static void await_new(struct ns_sock *s, int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    bool answered = ns_serve_mute();
    if (ns_first_settle(s, fd) && answered && ns_sys_ppoll(&p, 1, &(struct timespec){ 0, 100000000 }, NULL) == 1)
        ns_first_settle(s, fd);
}

void ns_fd_demote(int fd, const char *why)
{
    struct ns_slot *slot = ns_slot_self();
    struct ns_sock *s = ns_sock_at(fd);
    if (!s || !slot || !ns_slot_enter(slot, s))
        return;
    if (ns_sock_at(fd) == s) {
        if (ns_sock_state(s) == NS_AWAITING)
            await_new(s, fd);
        ns_sock_demote(s, why);
    }
    ns_slot_leave(slot);
}

int ns_shutdown(int fd, int how)
{
    struct ns_slot *slot = ns_slot_self();
    struct ns_sock *s = ns_sock_at(fd);
    if (!s || !slot || how < SHUT_RD || how > SHUT_RDWR || !ns_slot_enter(slot, s))
        return NS_NOT_OURS;
    int r = NS_NOT_OURS;
    bool forget = false;
    sigset_t saved;
    ns_lock_quiet(&s->tx, &saved);
    enum ns_state state = s->session.state;
    if (ns_sock_at(fd) == s && how != SHUT_RD) {
        if (state == NS_ASKING || state == NS_CONNECTING) {
            /* Nothing was written, nothing will be. */
            forget = ns_sock_event(s, NS_EVENT_ANSWER_NO);
        } else if (state == NS_CONNECTED && s->tx_open) {
            r = ns_sys_shutdown(fd, how);
            s->fin_queued |= r == 0;
            __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
        } else if (ns_session_protected(&s->session)) {
            /* The end goes out after the last byte, once there is a connection. */
            __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
            r = 0;
        } else if (state == NS_OFFERING) {
            forget = ns_sock_event(s, NS_EVENT_DEMOTED);
        } else if (state == NS_AWAITING) {
            r = ns_sys_shutdown(fd, how);
            s->fin_queued |= r == 0;
            __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
        }
    }
    ns_unlock_quiet(&s->tx, &saved);
    if (ns_sock_state(s) == NS_SUSPENDED)
        ns_slots_wake();
    if (forget)
        ns_sock_forget(s);
    ns_slot_leave(slot);
    return r;
}

/* ---- processes ---- */

void ns_fork_prepare(void)
{
    if (ns_table)
        ns_lock(&ns_table_lock);
}

/* A child may use what it inherits, and the ring would not see it. */
static bool shared_with_child(struct ns_object *o)
{
    return o->kind == NS_KIND_SOCK && o->fd >= 0 && ns_sock_state((struct ns_sock *)o) != NS_PLAIN;
}

static void forget_listeners(void)
{
    ns_serve_end_leases();
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
    ns_table_lock.word = 0;
    ns_helper_fork_child();
    ns_slots_fork_child();
    ns_ask_fork_child();
    ns_serve_fork_child();
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
            s->rx.word = s->tx.word = 0;
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
            await_new((struct ns_sock *)o, o->fd);
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
