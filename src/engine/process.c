/* fork and the end of a process. (exec: exec.c.) */
#include "engine/ask.h"
#include "engine/connect.h"
#include "engine/detect.h"
#include "engine/door.h"
#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/exec.h"
#include "engine/first.h"
#include "engine/internal.h"
#include "engine/joint.h"
#include "engine/last.h"
#include "engine/ledger.h"
#include "engine/linger.h"
#include "engine/listener.h"
#include "engine/mailbox.h"
#include "engine/names.h"
#include "engine/ready.h"
#include "engine/relayed.h"
#include "engine/remains.h"
#include "engine/gate.h"
#include "engine/guest.h"
#include "engine/heirloom.h"
#include "engine/hello.h"
#include "engine/sys.h"
#include "engine/watch.h"

/* The end of a process waits at most this long for what is not delivered. */
#define EXIT_MS 30000

/* While the helper gives a connection up it is neither one that a child may use
 * nor one that is gone. It takes a second at most. */
static bool retiring(const struct ns_sock *s)
{
    return s->retiring;
}

/* A fork waits for the answer to HELLO as a first write does: a NEW could be written
 * by either process, before or after what the other writes. */
static bool unsettled(const struct ns_sock *s)
{
    return s->retiring || (ns_sock_state(s) == NS_ASKING && ns_helper_running() && ns_sock_held(s));
}

/* Or is going to a relay, and may stay. */
static bool any(bool (*is)(const struct ns_sock *))
{
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_GOING || (o->kind == NS_KIND_SOCK && o->fd >= 0 && is((const struct ns_sock *)o)))
            return true;
    return false;
}

/* Takes the table, while there is none such. */
static void await_none(bool (*is)(const struct ns_sock *))
{
    while (ns_lock(&ns_table_lock) && any(is)) {
        ns_unlock(&ns_table_lock);
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 100000 }, NULL);
    }
}

/* The process that forks. Its child cannot ask for it: that one may have ended by then. */
static uint32_t forker;

/* Children that accept, too, go on as this process does, if they can reach each other. */
static void prepare_listeners(void)
{
    if (__atomic_load_n(&ns_count_listeners, __ATOMIC_RELAXED))
        forker = (uint32_t)ns_sys_getpid();
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_LISTENER && o->fd >= 0 && !ns_door_open((struct ns_listener *)o))
            ns_listener_share_queue((struct ns_listener *)o);
}

void ns_offers_settle(void)
{
    await_none(unsettled);
    if (__atomic_load_n(&ns_count_offering, __ATOMIC_RELAXED))
        ns_offer_all();
}

void ns_fork_prepare(void)
{
    if (!ns_table)
        return;
    ns_offers_settle();
    prepare_listeners();
    ns_mailbox_fork_prepare();
    ns_dormant_prepare();
    ns_engine_fork_prepare();
    ns_signals_let_in();
}

/* ---- the parent ---- */

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
        if ((o->kind == NS_KIND_SOCK || o->kind == NS_KIND_DORMANT) &&
            ns_sock_state((struct ns_sock *)o) == NS_AWAITING && inherits(h, o))
            fd = o->fd;
    ns_table_unhold(&hold);
    return fd;
}

/* One of which bytes of an earlier connection are unread, which the child would miss, or -1. */
static int next_ahead(struct heir *h)
{
    struct ns_hold hold;
    int fd = -1;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects, *next; o && fd < 0; o = next) {
        next = o->next;
        bool sock = o->kind == NS_KIND_SOCK || o->kind == NS_KIND_DORMANT;
        struct ns_sock *s = sock && inherits(h, o) ? ns_sock_wake(o) : NULL;
        if (s && s->o.fd >= 0 && ns_sock_inbox_filled(s) && ns_sock_state(s) != NS_SUSPENDED &&
            ns_sock_state(s) != NS_FAILED)
            fd = s->o.fd;
    }
    ns_table_unhold(&hold);
    return fd;
}

bool ns_spawn_concerned(void)
{
    return ns_exec_concerned() && __atomic_load_n(&ns_count_listeners, __ATOMIC_RELAXED) == 0;
}

/* One that another process may have, or NULL. */
static struct ns_object *next_dormant(struct heir *h)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_object *o = ns_objects;
    while (o && !(o->kind == NS_KIND_DORMANT && inherits(h, o)))
        o = o->next;
    ns_table_unhold(&hold);
    return o;
}

void ns_spawn_prepare(bool (*given)(int fd))
{
    struct heir child = { .spawned = true, .given = given };
    int fd;
    if (!ns_table)
        return;
    /* To ask another process takes a while: not later, when the table is held. */
    for (struct ns_object *o; (o = next_dormant(&child));)
        ns_sock_wake(o);
    /* As before exec: what is spawned knows nothing of NEW. */
    while ((fd = next_awaiting(&child)) >= 0)
        if (ns_fd_demote(fd, "spawn", true) == -ENOBUFS)
            break;
    while ((fd = next_ahead(&child)) >= 0)
        if (ns_fd_leave(fd, "spawn") == -ENOBUFS)
            break;
    await_none(retiring);
    /* Nothing is half done: handlers may run while the process forks. One that
     * was put off would leave its mask to what is spawned. */
    ns_signals_let_in();
}

/* A child may accept from it, or this process no more: then nothing may be taken
 * out of its queue that nobody asks for. Returns whether it was not so before. */
static bool share_listener(struct ns_listener *l)
{
    if (l->shared && l->watched)
        return false;
    ns_listener_unwatch(l);
    l->watched = l->shared = true; /* nor is it watched again */
    return true;
}

static void forget_listener(struct ns_object *o)
{
    struct ns_listener *l = (struct ns_listener *)o;
    share_listener(l);
    /* What waits in its queue is the application's still. */
    if (ns_listener_waits(l))
        return;
    ns_watch_drop_all(o);
    ns_listener_drop_backlog(l);
    for (int fd = o->fd; o->fds > 0 && fd >= 0; fd = o->fd)
        ns_table_remove(fd);
    __atomic_fetch_sub(&ns_count_listeners, 1, __ATOMIC_RELAXED);
}

void ns_listener_leave(int fd)
{
    struct ns_hold hold;
    bool familys = false;
    ns_table_hold(&hold);
    struct ns_listener *l = ns_listener_at(fd);
    if (l && l->door) {
        ns_door_unlock(l);
    } else if (l && !l->passed) {
        familys = l->shared;
        share_listener(l);
        l->passed = true;
        ns_info("not protected any more: others may accept from its listener, too");
        ns_guest_end_leases();
    }
    ns_table_unhold(&hold);
    /* The parent goes on promising what may come there. */
    if (familys)
        ns_hello_mute();
    if (l && ns_helper_running())
        ns_helper_look();
}

/* A child may use what it inherits, and nobody would know of it. */
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
    bool leases_end = false, look = h->spawned;
    ns_signals_put_off();
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        next = o->next;
        if (!inherits(h, o))
            continue;
        struct ns_sock *s = ns_object_kind(o) == NS_KIND_SOCK ? (struct ns_sock *)o : NULL;
        if (o->kind == NS_KIND_DORMANT && h->spawned)
            s = ns_sock_wake(o);
        if (s && ns_sock_state(s) != NS_PLAIN && (h->spawned || !s->share)) {
            share(s);
        } else if (o->kind == NS_KIND_LISTENER && ((struct ns_listener *)o)->door) {
            if (h->spawned)
                ns_door_unlock((struct ns_listener *)o);
        } else if (o->kind == NS_KIND_LISTENER && !h->spawned) {
            look |= share_listener((struct ns_listener *)o);
        } else if (o->kind == NS_KIND_LISTENER) {
            /* A child may accept from it: what comes is no more ours alone. */
            if (!leases_end)
                ns_guest_end_leases();
            leases_end = true;
            if (((struct ns_listener *)o)->shared && !((struct ns_listener *)o)->passed)
                ns_hello_mute(); /* and the parent's, which goes on promising */
            forget_listener(o);
        }
    }
    /* It takes back what nobody calls for. */
    look |= ns_count_dormant > 0 && !__atomic_load_n(&ns_helper_ticking, __ATOMIC_SEQ_CST);
    ns_unlock(&ns_table_lock);
    if (look && ns_helper_running())
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

/* ---- the child ---- */

static void inherit_listener(struct ns_listener *l)
{
    l->source = (struct ns_source){ .fd = -1 };
    l->timer = (struct ns_timer){ 0 };
    l->paused = l->pumping = l->accepting = l->announced = l->stood_in = false;
    ns_queue_forget(&l->queue);
    ns_count_listeners++;
    if (!l->door) {
        l->watched = l->shared = true;
        l->parent = forker;
        return;
    }
    l->watched = l->shared;
    ns_door_inherit(l);
}

/* It awaits its first bytes: NEW is taken off, whoever reads it. */
static void inherit_awaiting(struct ns_sock *s)
{
    ns_lock_reset(&s->rx);
    ns_lock_reset(&s->tx);
    s->unfaithful = true;
    ns_count_awaiting++;
    ns_first_release(s, s->o.fd);
}

/* What the parent keeps for itself is its alone: here it is plain TCP. */
static void disinherit(struct ns_object *o)
{
    struct ns_listener *l = (struct ns_listener *)o;
    for (int fd = o->fd; o->fds > 0 && fd >= 0; fd = o->fd)
        ns_table_remove(fd);
    if (o->kind == NS_KIND_LISTENER && l->door) {
        ns_door_inherit(l);
        ns_door_part(l);
    } else if (o->kind == NS_KIND_LISTENER) {
        ns_backlog_close(&l->backlog);
    }
    o->watches = NULL;
    *(o->previous ? &o->previous->next : &ns_objects) = o->next;
    if (o->next)
        o->next->previous = o->previous;
}

static void inherit_object(struct ns_object *o)
{
    struct ns_sock *s = (struct ns_sock *)o;
    bool sock = o->kind == NS_KIND_SOCK || o->kind == NS_KIND_DORMANT;
    if (o->fd >= 0 && o->kind == NS_KIND_RELAYED) {
        ns_relayed_inherit(s);
        return;
    }
    if (o->fd < 0 || o->kind == NS_KIND_GOING || (sock && !ns_dormant_inherit(s) && s->session.state != NS_AWAITING))
        disinherit(o);
    else if (sock && !s->share)
        inherit_awaiting(s);
    else if (o->kind == NS_KIND_LISTENER)
        inherit_listener((struct ns_listener *)o);
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
    ns_last_fork_child();
    ns_linger_fork_child();
    ns_ask_fork_child();
    ns_guest_fork_child();
    ns_engine_fork_child();
    ns_detect_fork_child();
    ns_names_fork_child();
    ns_mailbox_fork_child();
    ns_dormant_fork_child();
    ns_heirloom_fork_child();
    ns_gate_fork_child();
    ns_watch_fork_child();
    ns_internal_fork_child();
    ns_count_asking = ns_count_offering = ns_count_awaiting = ns_count_special = ns_count_listeners = 0;
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        next = o->next;
        inherit_object(o);
    }
}

/* ---- the end ---- */

void ns_await_delivered(bool by_exec)
{
    if (!ns_helper_running() && !ns_helper_is_late())
        return;
    ns_remains_leave(by_exec);
    int64_t patience_ms = ns_engine.policy.give_up_ms < EXIT_MS ? ns_engine.policy.give_up_ms : EXIT_MS;
    struct ns_time end = ns_time_add(ns_now(), ns_time_ms(patience_ms));
    while (ns_remains_left() && ns_time_before(ns_now(), end))
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 5000000 }, NULL);
}

void ns_process_exiting(void)
{
    if (!ns_table || !ns_table_own())
        return;
    ns_joint_leave(-1);
    ns_dormant_lay_all();
    ns_await_delivered(false);
}
