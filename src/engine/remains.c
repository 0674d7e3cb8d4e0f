#include "engine/remains.h"

#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/handover.h"
#include "engine/internal.h"
#include "engine/laid.h"
#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/linger.h"
#include "engine/listener.h"
#include "engine/resume.h"
#include "engine/serve.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <errno.h>
#include <string.h>

/* How long acknowledgements are waited for before anybody is asked: as long as it takes
 * to find a path suspect. */
#define MOMENT_MS  100
#define PAUSE_US   200 /* between looks, doubling */
#define PAUSE_MOST 5000

/* ---- what is to be handed over ---- */

static int descriptor(const struct ns_sock *s)
{
    return s->o.fd >= 0 ? s->o.fd : s->linger_fd;
}

/* Others may have it too, after a fork: those get what was laid down (dormant.h). */
static bool mine(const struct ns_sock *s)
{
    return !s->unfaithful && ns_dormant_alone(s);
}

/* A RESUME for a server's session comes to whoever listens. Where that is this process
 * alone, nobody could pass it on when it has ended. */
static bool reachable(const struct ns_sock *s)
{
    return s->session.role == NS_CLIENT || !ns_listener_alone();
}

/* Whether what happens now is its end here: not, where the next program has it. Table held. */
static bool ends(struct ns_object *o, bool by_exec)
{
    return !by_exec || ns_object_inherited(o) < 0;
}

/* Table held. */
static bool undelivered(struct ns_sock *s)
{
    int fd = descriptor(s);
    if (s->o.kind != NS_KIND_SOCK || fd < 0 || s->remains == NS_REMAINS_HANDED)
        return false;
    ns_lock(&s->tx);
    bool is = ns_sock_undelivered(s, fd);
    ns_unlock(&s->tx);
    return is && mine(s);
}

static bool undelivered_any(bool by_exec)
{
    struct ns_hold hold;
    bool any = false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && !any; o = o->next)
        any = undelivered((struct ns_sock *)o) && ends(o, by_exec);
    ns_table_unhold(&hold);
    return any;
}

/* ---- handing over, on the helper ---- */

static int heir = -1;               /* the connection, for the helper; atomic */
static bool becoming_another, over; /* atomic */

/* Nothing is under way about it, and no thread writes any more. Returns its state's
 * file; `socket` is a duplicate. */
static int freeze(struct ns_sock *s, int *socket, bool *open)
{
    struct ns_hold hold;
    int file = -ESTALE, fd;
    ns_table_hold(&hold);
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    fd = descriptor(s);
    *open = s->tx_open;
    if (fd >= 0 && ns_object_verify(&s->o, fd) && ns_session_protected(&s->session) && s->session.pins == 0) {
        __atomic_store_n(&s->tx_open, false, __ATOMIC_SEQ_CST);
        file = ns_laid_file(s, fd);
        *socket = file >= 0 ? ns_internal(ns_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3)) : -1;
    }
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
    ns_table_unhold(&hold);
    return file;
}

static void handed(struct ns_sock *s, struct ns_time now)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    s->remains = NS_REMAINS_HANDED;
    ns_sock_unindex(s);
    ns_table_unhold(&hold);
    ns_timer_clear(&s->parked);
    ns_info("what is undelivered is left to another process");
    if (s->o.fds == 0)
        ns_sock_bury(s, now);
}

/* It goes on here, as if nobody had asked. */
static void refused(struct ns_sock *s, bool open, struct ns_time now)
{
    ns_lock(&s->tx);
    s->remains = NS_REMAINS_KEPT;
    if (ns_sock_state(s) == NS_CONNECTED)
        __atomic_store_n(&s->tx_open, open, __ATOMIC_SEQ_CST);
    ns_unlock(&s->tx);
    if (ns_sock_state(s) == NS_SUSPENDED)
        ns_resume_suspended(s, now);
    else if (!open)
        ns_swap_replay(s);
}

static void hand_over(struct ns_sock *s, int to, struct ns_time now)
{
    int socket = -1;
    bool open = false;
    ns_resume_stop(s, now);
    ns_serve_forget(s);
    ns_swap_stop_replay(s);
    int file = freeze(s, &socket, &open);
    if (file >= 0 && socket >= 0 && ns_handover_send(to, &(struct ns_handover){ .what = NS_HANDOVER_REMAINS }, (int[]){ file, socket }, 2))
        handed(s, now);
    else
        refused(s, open, now);
    ns_internal_close(socket);
    ns_internal_close(file);
}

/* The next that has not been offered. */
static struct ns_sock *next_one(void)
{
    struct ns_hold hold;
    struct ns_object *o;
    bool by_exec = __atomic_load_n(&becoming_another, __ATOMIC_RELAXED);
    ns_table_hold(&hold);
    for (o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind == NS_KIND_SOCK && s->remains == NS_REMAINS_HERE && undelivered(s) && reachable(s) &&
            ends(o, by_exec))
            break;
    }
    struct ns_sock *s = ns_sock_help((struct ns_sock *)o);
    ns_table_unhold(&hold);
    return s;
}

void ns_remains_look(struct ns_time now)
{
    struct ns_sock *s;
    int to = __atomic_exchange_n(&heir, -1, __ATOMIC_ACQ_REL);
    if (to < 0)
        return;
    while ((s = next_one()))
        hand_over(s, to, now);
    ns_internal_close(to);
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
}

/* ---- the thread that ends the process ---- */

/* Waits while `is`, for `ms` at most. */
static void wait_while(bool (*is)(bool), bool argument, int64_t ms)
{
    struct ns_time end = ns_time_add(ns_now(), ns_time_ms(ms));
    for (long us = PAUSE_US; is(argument) && ns_time_before(ns_now(), end);
         us = 2 * us < PAUSE_MOST ? 2 * us : PAUSE_MOST)
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, us * 1000 }, NULL);
}

static bool under_way(bool unused)
{
    return !__atomic_load_n(&over, __ATOMIC_ACQUIRE);
}

/* Where each connection stands, so that it shows whether it still works. */
static void begin(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        struct ns_ledger l = { 0 };
        if (o->kind != NS_KIND_SOCK || s->remains == NS_REMAINS_HANDED)
            continue;
        s->remains = NS_REMAINS_HERE;
        if (descriptor(s) >= 0 && ns_ledger_read(descriptor(s), &l) == 0)
            s->leaving_at = l.acknowledged;
    }
    ns_table_unhold(&hold);
}

void ns_remains_leave(bool by_exec)
{
    if (!undelivered_any(by_exec))
        return;
    begin();
    wait_while(undelivered_any, by_exec, MOMENT_MS);
    if (!undelivered_any(by_exec) || !ns_helper_here())
        return;
    int to = ns_handover_open();
    if (to < 0) {
        ns_debug("nobody takes what is undelivered: %s", strerror(-to));
        return;
    }
    __atomic_store_n(&becoming_another, by_exec, __ATOMIC_RELAXED);
    __atomic_store_n(&over, false, __ATOMIC_RELAXED);
    __atomic_store_n(&heir, to, __ATOMIC_RELEASE);
    ns_helper_look();
    /* Each session is waited for as long; one that hangs must not keep the process for ever. */
    wait_while(under_way, false, 5 * NS_HANDOVER_MS);
}

/*
 * On a connection that works the kernel delivers what it has after us. It works if
 * something was acknowledged since, or if the peer has no room and says so when it is
 * asked (RFC 9293, 3.8.6.1).
 */
static bool in_doubt(const struct ns_sock *s)
{
    struct ns_ledger l;
    if (ns_ledger_read(descriptor(s), &l) < 0 || l.unacknowledged == 0 || l.acknowledged > s->leaving_at)
        return false;
    return l.in_flight > 0 || l.probes > 0;
}

static bool would_lose(struct ns_sock *s)
{
    if (!undelivered(s))
        return false;
    ns_lock(&s->tx);
    bool open = s->session.state == NS_CONNECTED && s->tx_open;
    bool bytes = !ns_sock_delivered(s, descriptor(s));
    bool resuming = s->session.role == NS_SERVER && s->session.pins > 0;
    ns_unlock(&s->tx);
    return resuming || (bytes && (!open || in_doubt(s)));
}

bool ns_remains_left(void)
{
    struct ns_hold hold;
    bool any = false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && !any; o = o->next)
        any = would_lose((struct ns_sock *)o);
    ns_table_unhold(&hold);
    return any;
}

NS_EACH_FORK void ns_remains_fork_child(void)
{
    heir = -1;
}
