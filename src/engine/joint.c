/* Giving a session that another process calls for, too, to a relay. All on the helper. */
#include "engine/joint.h"

#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/estate.h"
#include "engine/gate.h"
#include "engine/handover.h"
#include "engine/inbox.h"
#include "engine/internal.h"
#include "engine/laid.h"
#include "engine/loopback.h"
#include "engine/record.h"
#include "engine/relayed.h"
#include "engine/resume.h"
#include "engine/serve.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/uring.h"
#include "engine/watch.h"

#include <limits.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <string.h>

bool ns_joint_prove(const struct ns_sock *s, bool answer, uint8_t out[16])
{
    static const uint8_t question_of[16] = "joint question", answer_of[16] = "joint answer";
    uint8_t nothing[NS_TAG_BYTES] = { 0 };
    ns_auth_tag(out, s->family_secret, answer ? answer_of : question_of, nothing, sizeof nothing);
    return !sodium_is_zero(s->family_secret, sizeof s->family_secret);
}

/* The session that is meant. Table held. */
static struct ns_sock *find(const struct ns_joint_question *q)
{
    uint8_t proof[16];
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if ((o->kind == NS_KIND_SOCK || o->kind == NS_KIND_DORMANT || o->kind == NS_KIND_RELAYED) && o->fd >= 0 &&
            ns_joint_prove(s, false, proof) && sodium_memcmp(proof, q->proof, sizeof proof) == 0)
            return s;
    }
    return NULL;
}

/* Whether it is one that a relay could have. Table held. */
static bool is_joint(const struct ns_sock *s)
{
    return s->share && s->session.version == 2 && ns_session_protected(&s->session) && !s->unfaithful &&
           s->remains != NS_REMAINS_HANDED;
}

/* Whether it can be, at some time. Table held. */
static bool can_give(const struct ns_sock *s)
{
    return is_joint(s) && !ns_uring_here();
}

/* Whether nothing is half done about it, and nobody has written around it. Table, rx and tx held. */
static bool still(struct ns_sock *s, int fd)
{
    return s->o.kind == NS_KIND_SOCK && fd >= 0 && ns_object_verify(&s->o, fd) && can_give(s) && ns_dormant_ours(s) &&
           !s->retiring && s->session.pins == 0 && (s->session.state == NS_SUSPENDED || ns_sock_faithful(s, fd));
}

/* One that is on its way. Descriptors are internal, or -1. */
struct gift {
    struct ns_handover h;
    int ends[2]; /* the connection that the users have instead: theirs, the relay's */
    int socket, state, gate, estate;
    uint64_t before; /* the share's word, while it is joined */
    bool joined, rx_open;
    int urgent;
};

/* The state as it stays until `settle`; the socket, whatever becomes of the number. Table, rx and tx held. */
static bool pack(struct ns_sock *s, struct gift *g)
{
    size_t shares;
    g->estate = ns_estate_file(s->estate, &shares); /* the session's, which keeps it */
    g->h = (struct ns_handover){ .what = NS_HANDOVER_JOINT,
                                 .shares = (uint32_t)shares,
                                 .share = (uint32_t)ns_estate_index(s->estate, s->share) };
    g->rx_open = s->rx_open;
    __atomic_store_n(&s->rx_open, false, __ATOMIC_SEQ_CST);
    g->urgent = __atomic_exchange_n(&s->rx_urgent, 0, __ATOMIC_SEQ_CST);
    g->joined = ns_dormant_join(s, &g->before);
    g->socket = ns_internal(ns_sys_fcntl(s->o.fd, F_DUPFD_CLOEXEC, 3));
    g->state = ns_laid_whole_file(s, s->o.fd);
    g->gate = ns_gate_make(s);
    return g->joined && g->socket >= 0 && g->state >= 0 && g->gate >= 0;
}

/* The same held. */
static void unpack(struct ns_sock *s, const struct gift *g)
{
    ns_gate_drop(s);
    if (g->joined)
        ns_dormant_part(s, g->before);
    if (g->urgent)
        __atomic_store_n(&s->rx_urgent, g->urgent, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->rx_open, g->rx_open, __ATOMIC_SEQ_CST);
}

/* What the application has set is so on the connection to the relay, which sets the session's own as it
 * likes. Table, rx and tx held. */
static void set_up_users_end(const struct ns_sock *s, const struct gift *g)
{
    ns_swap_copy_settings_within(s->o.fd, g->ends[0]);
    ns_sock_restore_keepalive(s, g->ends[0]);
    if (s->low_water)
        ns_sys_set_int(g->ends[0], SOL_SOCKET, SO_RCVLOWAT, s->low_water);
    if (__atomic_load_n(&s->session.tx_ended, __ATOMIC_SEQ_CST))
        ns_sys_shutdown(g->ends[0], SHUT_WR);
    if (s->rx_shut)
        ns_sys_shutdown(g->ends[0], SHUT_RD);
}

/* In one step: no thread of this process is between. Whoever calls from here on waits for `settle`. */
static uint8_t freeze(struct ns_sock *s, struct gift *g)
{
    struct ns_hold hold;
    uint8_t word = NS_JOINT_LATER;
    ns_table_hold(&hold);
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    if (still(s, s->o.fd)) {
        ns_swap_learn_ends(s, s->o.fd);
        word = pack(s, g) ? NS_JOINT_YES : NS_JOINT_NO;
        if (word == NS_JOINT_YES) {
            set_up_users_end(s, g);
            ns_watch_suspend(&s->o);
            ns_watch_stand_in(&s->o, false);
            s->retiring = true;
            __atomic_store_n(&s->o.kind, NS_KIND_GOING, __ATOMIC_SEQ_CST);
        } else {
            unpack(s, g);
        }
    }
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
    ns_table_unhold(&hold);
    return word;
}

/* Users that are all gone the kernel finds, though nothing is sent to them any more. */
static void find_the_dead(int fd)
{
    ns_sys_set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    ns_sys_set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    ns_sys_set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

/* It ends without a word only if the relay is killed: then by RST, never FIN. */
static void set_up_relays_end(const struct gift *g)
{
    struct linger reset = { .l_onoff = 1 };
    uint8_t urgent = (uint8_t)g->urgent;
    find_the_dead(g->ends[1]);
    ns_sys_setsockopt(g->ends[1], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (g->urgent) /* of an earlier connection, and unread */
        ns_sys_send(g->ends[1], &urgent, 1, MSG_OOB | MSG_DONTWAIT);
}

/* No lock is held: it takes 2 s where the relay is stopped. Returns whether it is the relay's. */
static bool hand(const struct gift *g, int to)
{
    const int fds[NS_HANDOVER_FDS] = {
        [NS_HANDOVER_STATE] = g->state,       [NS_HANDOVER_SOCKET] = g->socket, [NS_HANDOVER_RELAYS_END] = g->ends[1],
        [NS_HANDOVER_USERS_END] = g->ends[0], [NS_HANDOVER_GATE] = g->gate,     [NS_HANDOVER_ESTATE] = g->estate,
    };
    return ns_handover_send(to, &g->h, fds, NS_HANDOVER_FDS);
}

/* In one step again. */
static void settle(struct ns_sock *s, const struct gift *g, bool taken)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    s->retiring = false;
    if (taken) {
        ns_relayed_put(s, g->ends[0]);
    } else {
        unpack(s, g);
        __atomic_store_n(&s->o.kind, NS_KIND_SOCK, __ATOMIC_SEQ_CST);
        ns_watch_resume(&s->o);
        ns_watch_stand_in(&s->o, ns_inbox_readable(s));
    }
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
    if (s->o.fds == 0) /* its numbers were closed, or reused, behind our back */
        ns_sock_let_go(s);
    ns_table_unhold(&hold);
    ns_sys_futex_wake(&s->o.kind, INT_MAX);
    ns_slots_wake();
}

void ns_object_await(const struct ns_object *o)
{
    /* The helper of a process that libc did not fork is elsewhere. */
    while (ns_object_kind(o) == NS_KIND_GOING && !ns_lock_mine(&ns_table_lock) && ns_table_own())
        ns_sys_futex_wait(&o->kind, NS_KIND_GOING, NULL);
}

/* It goes on here, as if nobody had asked. */
static void go_on(struct ns_sock *s, struct ns_time now)
{
    if (ns_sock_state(s) == NS_SUSPENDED)
        ns_resume_suspended(s, now);
    else if (ns_sock_state(s) == NS_CONNECTED && !__atomic_load_n(&s->tx_open, __ATOMIC_SEQ_CST))
        ns_swap_replay(s);
}

static int family_of(int fd)
{
    int family = AF_INET;
    socklen_t len = sizeof family;
    ns_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len);
    return family;
}

static uint8_t give_to(struct ns_sock *s, int to, struct ns_time now)
{
    struct gift g = { .socket = -1, .state = -1, .gate = -1 };
    if (ns_loopback_pair(family_of(ns_sock_number(s)), g.ends) < 0 && ns_loopback_pair(AF_INET, g.ends) < 0)
        return NS_JOINT_NO;
    ns_resume_stop(s, now);
    ns_serve_forget(s);
    ns_swap_stop_replay(s);
    uint8_t word = freeze(s, &g);
    if (word == NS_JOINT_YES) {
        set_up_relays_end(&g);
        bool taken = hand(&g, to);
        settle(s, &g, taken);
        word = taken ? NS_JOINT_YES : NS_JOINT_NO;
    }
    const int ours[] = { g.ends[0], g.ends[1], g.socket, g.state, g.gate };
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        ns_internal_close(ours[i]);
    if (word != NS_JOINT_YES) {
        go_on(s, now);
        return word;
    }
    ns_gate_clear(now);
    ns_info("session given to a relay: two processes use it at once");
    return word;
}

static uint8_t give(struct ns_sock *s, struct ns_time now)
{
    int to = ns_handover_open();
    if (to < 0) {
        ns_info("no relay for a session that two processes use at once (%s): they need a broker, as nsrun is one",
                strerror(-to));
        return NS_JOINT_NO;
    }
    uint8_t word = give_to(s, to, now);
    ns_internal_close(to);
    return word;
}

/* ---- who asks ---- */

/* The users' end that is here, or -1. Table held. */
static int users_end(const struct ns_sock *s)
{
    if (s->o.kind == NS_KIND_RELAYED)
        return s->o.fd;
    return s->o.kind == NS_KIND_SOCK && s->users_end ? s->users_end - 1 : -1;
}

/* What stands there now. If it has been closed since it was given, the relay has it for others. */
static void answer(int asker, uint8_t word, const struct ns_joint_question *q)
{
    struct ns_joint_answer a;
    struct ns_hold hold;
    memset(&a, 0, sizeof a); /* its holes, too */
    a.size = sizeof a;
    ns_table_hold(&hold);
    struct ns_sock *s = word == NS_JOINT_YES ? find(q) : NULL;
    int end = s ? users_end(s) : -1;
    a.word = word == NS_JOINT_YES && end < 0 ? NS_JOINT_LATER : word;
    if (end >= 0) {
        a.local = s->local;
        a.peer = s->peer;
        ns_joint_prove(s, true, a.proof);
    }
    ns_record_send(asker, &a, sizeof a, &end, 1);
    ns_table_unhold(&hold);
}

void ns_joint_asked(const struct ns_joint_question *q, uid_t from, int asker, struct ns_time now)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    /* One that would not trust the answer must not be given anything. */
    bool same = from == (uid_t)ns_syscall6(SYS_getuid, 0, 0, 0, 0, 0, 0);
    struct ns_sock *s = same ? find(q) : NULL;
    bool can = s && s->o.kind == NS_KIND_SOCK && can_give(s);
    uint8_t word = NS_JOINT_NO;
    if (s && users_end(s) >= 0)
        word = NS_JOINT_YES;
    else if (s && (s->o.kind == NS_KIND_DORMANT || s->retiring))
        word = NS_JOINT_LATER; /* laid down meanwhile, or about to be taken up */
    else if (can)
        ns_sock_help(s);
    ns_table_unhold(&hold);
    if (can && word == NS_JOINT_NO)
        word = give(s, now);
    answer(asker, word, q);
    ns_internal_close(asker);
}

/* ---- who is done with it ---- */

#define LEAVE_MS 5000 /* longer than it takes to be refused */

void ns_joint_left(struct ns_sock *s, struct ns_time now)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    bool can = s->o.kind == NS_KIND_SOCK && s->o.fd >= 0 && can_give(s);
    ns_table_unhold(&hold);
    if (can)
        give(s, now);
    __atomic_store_n(&s->leaving, false, __ATOMIC_RELEASE);
}

/* One of which it is not known, at `fd` or anywhere, or NULL. */
static struct ns_object *one_going(int fd)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_object *o = fd >= 0 ? ns_object_at(fd) : ns_objects;
    while (o && !(o->kind == NS_KIND_GOING && (fd < 0 || o->fds == 1)))
        o = fd >= 0 ? NULL : o->next;
    ns_table_unhold(&hold);
    return o;
}

/* The next that has to, at `fd` or anywhere, inside which the slot is then. */
static struct ns_sock *next_left(struct ns_slot *slot, int fd)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_object *o = fd >= 0 ? ns_object_at(fd) : ns_objects;
    for (; o; o = fd >= 0 ? NULL : o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind == NS_KIND_SOCK && o->fd >= 0 && (fd < 0 || o->fds == 1) && is_joint(s) &&
            ns_dormant_stranded(s) && !ns_uring_here() && ns_slot_enter(slot, s))
            break;
    }
    ns_table_unhold(&hold);
    return (struct ns_sock *)o;
}

/* Returns whether it is a relay's now. Inside it. */
static bool leave(struct ns_sock *s)
{
    struct ns_time end = ns_time_add(ns_now(), ns_time_ms(LEAVE_MS));
    if (!ns_helper_here())
        return false;
    __atomic_store_n(&s->leaving, true, __ATOMIC_RELEASE);
    ns_helper_post(s, NS_TODO_LEFT);
    while (__atomic_load_n(&s->leaving, __ATOMIC_ACQUIRE) && ns_time_before(ns_now(), end))
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 200000 }, NULL);
    return ns_object_kind(&s->o) == NS_KIND_RELAYED;
}

void ns_joint_leave(int fd)
{
    struct ns_slot *slot = ns_slot_self();
    struct ns_object *going;
    struct ns_sock *s;
    bool gone = true;
    while (ns_table_own() && (going = one_going(fd)))
        ns_object_await(going);
    /* Where one is refused all are, and each takes its time. */
    while (slot && gone && (s = next_left(slot, fd))) {
        gone = leave(s);
        ns_slot_leave(slot);
        if (fd >= 0)
            return;
    }
}
