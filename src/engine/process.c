/* fork, exec and the end of a process. */
#include "engine/ask.h"
#include "engine/detect.h"
#include "engine/door.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/first.h"
#include "engine/internal.h"
#include "engine/ledger.h"
#include "engine/linger.h"
#include "engine/listener.h"
#include "engine/names.h"
#include "engine/ready.h"
#include "engine/guest.h"
#include "engine/sys.h"
#include "engine/watch.h"

/* The end of a process waits at most this long for what is not delivered. */
#define EXIT_MS 30000

/* While the helper gives a connection up it is neither one that a child may use
 * nor one that is gone. It takes a second at most. */
static bool any_retiring(void)
{
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_SOCK && ((struct ns_sock *)o)->retiring)
            return true;
    return false;
}

/* Children that accept, too, go on as this process does, if they can reach each other. */
static void prepare_listeners(void)
{
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_LISTENER && o->fd >= 0)
            ns_door_open((struct ns_listener *)o);
}

static void await_retiring(void)
{
    while (ns_lock(&ns_table_lock) && any_retiring()) {
        ns_unlock(&ns_table_lock);
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 100000 }, NULL);
    }
}

void ns_fork_prepare(void)
{
    if (!ns_table)
        return;
    await_retiring();
    prepare_listeners();
    ns_engine_fork_prepare();
    ns_signals_let_in();
}

/* What the child inherits: all, or what is open after exec. */
struct heir {
    bool (*given)(int fd); /* NULL: none */
    bool spawned, inherits;
};

static void inherit(void *ctx, int fd)
{
    struct heir *h = ctx;
    int flags = ns_sys_fcntl(fd, F_GETFD, 0);
    h->inherits |= flags >= 0 && (!(flags & FD_CLOEXEC) || (h->given && h->given(fd)));
}

static bool inherits(struct heir *h, struct ns_object *o)
{
    h->inherits = !h->spawned && o->fd >= 0;
    if (h->spawned && o->fd >= 0)
        ns_object_each_fd(o, inherit, h);
    return h->inherits;
}

/* A connection that awaits its first bytes and goes to the child, or -1. */
static int next_awaiting(struct heir *h)
{
    struct ns_hold hold;
    int fd = -1;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && fd < 0; o = o->next)
        if (o->kind == NS_KIND_SOCK && ns_sock_state((struct ns_sock *)o) == NS_AWAITING && inherits(h, o))
            fd = o->fd;
    ns_table_unhold(&hold);
    return fd;
}

void ns_spawn_prepare(bool (*given)(int fd))
{
    struct heir child = { .spawned = true, .given = given };
    int fd;
    if (!ns_table)
        return;
    /* As before exec: what is spawned knows nothing of NEW. */
    while ((fd = next_awaiting(&child)) >= 0)
        if (ns_fd_demote(fd, "spawn", true) == -ENOBUFS)
            break;
    await_retiring();
    /* Nothing is half done: handlers may run while the process forks. One that
     * was put off would leave its mask to what is spawned. */
    ns_signals_let_in();
}

static void forget_listener(struct ns_object *o)
{
    struct ns_listener *l = (struct ns_listener *)o;
    ns_listener_unwatch(l);
    l->watched = l->shared = true; /* nor is it watched again */
    /* What waits in its queue is the application's still. */
    if (l->count > 0)
        return;
    ns_watch_drop_all(o);
    for (int fd = o->fd; o->fds > 0 && fd >= 0; fd = o->fd)
        ns_table_remove(fd);
    __atomic_fetch_sub(&ns_count_listeners, 1, __ATOMIC_RELAXED);
}

void ns_listener_leave(int fd)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_listener *l = ns_listener_at(fd);
    if (l) {
        ns_guest_end_leases();
        forget_listener(&l->o);
    }
    ns_table_unhold(&hold);
    if (l && ns_helper_running())
        ns_helper_look();
}

/* A child may use what it inherits, and the ring would not see it. */
static void share(struct ns_sock *s)
{
    struct ns_ledger l;
    enum ns_state state = ns_sock_state(s);
    /* The child has a dead connection; what comes after it is this process's. */
    if (state == NS_SUSPENDED && (s->retired || (ns_ledger_read(s->o.fd, &l) == 0 && l.state == NS_TCP_CLOSE)))
        return;
    /* What awaits its first bytes stays, so that NEW is taken off it. */
    if (state == NS_AWAITING || !ns_sock_demote(s, "a child process may use the connection too"))
        __atomic_store_n(&s->unfaithful, true, __ATOMIC_SEQ_CST);
}

static void made_child(struct heir *h)
{
    bool leases_end = false;
    ns_signals_put_off();
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        next = o->next;
        if (!inherits(h, o))
            continue;
        if (o->kind == NS_KIND_SOCK && ns_sock_state((struct ns_sock *)o) != NS_PLAIN) {
            share((struct ns_sock *)o);
        } else if (o->kind == NS_KIND_LISTENER && ((struct ns_listener *)o)->door) {
            if (h->spawned)
                ns_door_unlock((struct ns_listener *)o);
        } else if (o->kind == NS_KIND_LISTENER) {
            /* A child may accept from it: what comes is no more ours alone. */
            if (!leases_end)
                ns_guest_end_leases();
            leases_end = true;
            forget_listener(o);
        }
    }
    ns_unlock(&ns_table_lock);
    if (ns_helper_running())
        ns_helper_look();
}

void ns_fork_parent(void)
{
    struct heir child = { .spawned = false };
    if (!ns_table)
        return;
    ns_engine_fork_parent();
    made_child(&child);
}

void ns_spawn_parent(bool (*given)(int fd))
{
    struct heir child = { .spawned = true, .given = given };
    if (ns_table)
        made_child(&child);
}

static void inherit_listener(struct ns_listener *l)
{
    ns_lock_reset(&l->lock);
    l->source = (struct ns_source){ .fd = -1 };
    l->timer = (struct ns_timer){ 0 };
    l->head = l->count = 0; /* what waits there is the parent's */
    l->watched = l->shared;
    l->o.watches = NULL;
    ns_door_inherit(l);
    ns_count_listeners++;
}

void ns_fork_child(void)
{
    if (!ns_table)
        return;
    ns_thread_id = 0;
    ns_signals_fork_child();
    ns_table_fork_child();
    ns_helper_fork_child();
    ns_slots_fork_child();
    ns_linger_fork_child();
    ns_ask_fork_child();
    ns_guest_fork_child();
    ns_engine_fork_child();
    ns_detect_fork_child();
    ns_names_fork_child();
    ns_internal_fork_child();
    ns_count_asking = ns_count_offering = ns_count_special = ns_count_listeners = 0;
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        next = o->next;
        if (o->kind == NS_KIND_LISTENER && o->fd >= 0 && ((struct ns_listener *)o)->door) {
            inherit_listener((struct ns_listener *)o);
        } else if (o->kind != NS_KIND_SOCK || ((struct ns_sock *)o)->session.state != NS_AWAITING) {
            for (int fd = o->fd; o->fds > 0 && fd >= 0; fd = o->fd)
                ns_table_remove(fd);
        } else {
            struct ns_sock *s = (struct ns_sock *)o;
            ns_lock_reset(&s->rx);
            ns_lock_reset(&s->tx);
            s->unfaithful = true;
            ns_first_release(s, o->fd);
        }
    }
}

/* The client may have given up the connection that the kernel would deliver on
 * after us: when it is here, or it was not so, is known at the exchange's end. */
static bool being_resumed(struct ns_sock *s)
{
    ns_lock(&s->tx);
    bool is = s->session.role == NS_SERVER && ns_session_protected(&s->session) && s->session.pins > 0;
    ns_unlock(&s->tx);
    return is;
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
        if (o->kind != NS_KIND_SOCK || (s->linger_fd < 0 && o->fd < 0))
            continue;
        enum ns_state state = ns_sock_state(s);
        any = being_resumed(s) || ((state == NS_SUSPENDED || (state == NS_CONNECTED && !s->tx_open)) &&
                                   s->session.ring.head > s->session.ring.tail);
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

/* ---- exec ---- */

static void open_after_exec(void *ctx, int fd)
{
    int flags = ns_sys_fcntl(fd, F_GETFD, 0);
    if (flags >= 0 && !(flags & FD_CLOEXEC))
        *(int *)ctx = fd;
}

/* The next descriptor that the new program inherits as a session, or -1. */
static int next_heirloom(void)
{
    struct ns_hold hold;
    int fd = -1;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && fd < 0; o = o->next)
        if (o->kind == NS_KIND_SOCK && o->fd >= 0 && ns_sock_state((struct ns_sock *)o) != NS_FAILED)
            ns_object_each_fd(o, open_after_exec, &fd);
    ns_table_unhold(&hold);
    return fd;
}

/* A listener that other processes have, and the next program too. */
static void unlock_heirlooms(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        int fd = -1;
        if (o->kind != NS_KIND_LISTENER || o->fd < 0 || !((struct ns_listener *)o)->door)
            continue;
        ns_object_each_fd(o, open_after_exec, &fd);
        if (fd >= 0)
            ns_door_unlock((struct ns_listener *)o);
    }
    ns_table_unhold(&hold);
}

void ns_exec_prepare(void)
{
    int fd;
    if (!ns_table || !ns_objects)
        return;
    unlock_heirlooms();
    /* The next program knows nothing of NEW in front, or of another connection
     * to come. What is closed by exec is delivered as at the end of a process. */
    while ((fd = next_heirloom()) >= 0)
        if (ns_fd_leave(fd, "exec") == -ENOBUFS)
            break;
    ns_process_exiting();
}
