/* Giving a session that another process calls for, too, to a relay. All on the helper. */
#include "engine/joint.h"

#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/estate.h"
#include "engine/gate.h"
#include "engine/handover.h"
#include "engine/internal.h"
#include "engine/laid.h"
#include "engine/loopback.h"
#include "engine/relayed.h"
#include "engine/resume.h"
#include "engine/serve.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/uring.h"

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

/* Returns whether it is the relay's. Table, rx and tx held. */
static bool hand(struct ns_sock *s, int to, const int ends[2])
{
    size_t shares;
    int estate = ns_estate_file(s->estate, &shares);
    struct ns_handover h = { .what = NS_HANDOVER_JOINT,
                             .shares = (uint32_t)shares,
                             .share = (uint32_t)ns_estate_index(s->estate, s->share) };
    int fds[NS_HANDOVER_FDS] = {
        [NS_HANDOVER_STATE] = ns_laid_whole_file(s, s->o.fd), [NS_HANDOVER_SOCKET] = s->o.fd,
        [NS_HANDOVER_RELAYS_END] = ends[1],                   [NS_HANDOVER_USERS_END] = ends[0],
        [NS_HANDOVER_GATE] = ns_gate_make(s),                 [NS_HANDOVER_ESTATE] = estate,
    };
    bool taken = fds[NS_HANDOVER_STATE] >= 0 && fds[NS_HANDOVER_GATE] >= 0 &&
                 ns_handover_send(to, &h, fds, NS_HANDOVER_FDS);
    ns_internal_close(fds[NS_HANDOVER_STATE]);
    ns_internal_close(fds[NS_HANDOVER_GATE]);
    if (!taken)
        ns_gate_drop(s);
    return taken;
}

static void set_int(int fd, int level, int name, int value)
{
    ns_sys_setsockopt(fd, level, name, &value, sizeof value);
}

/* Users that are all gone the kernel finds, though nothing is sent to them any more. */
static void find_the_dead(int fd)
{
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

/* What the application has set is so on the connection to the relay; which ends without
 * a word only if the relay is killed: then by RST, never FIN. */
static void set_up(struct ns_sock *s, const int ends[2])
{
    struct linger reset = { .l_onoff = 1 };
    uint8_t urgent = (uint8_t)s->rx_urgent;
    ns_swap_copy_settings_within(s->o.fd, ends[0]);
    ns_sock_restore_keepalive(s, ends[0]);
    find_the_dead(ends[1]);
    if (s->rx_urgent) /* of an earlier connection, and unread */
        ns_sys_send(ends[1], &urgent, 1, MSG_OOB | MSG_DONTWAIT);
    if (s->low_water)
        ns_sys_setsockopt(ends[0], SOL_SOCKET, SO_RCVLOWAT, &s->low_water, sizeof s->low_water);
    ns_sys_setsockopt(ends[1], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (__atomic_load_n(&s->session.tx_ended, __ATOMIC_SEQ_CST))
        ns_sys_shutdown(ends[0], SHUT_WR);
    if (s->rx_shut)
        ns_sys_shutdown(ends[0], SHUT_RD);
}

/* In one step: no thread of this process is between. */
static uint8_t move(struct ns_sock *s, int to, const int ends[2])
{
    struct ns_hold hold;
    uint8_t word = NS_JOINT_LATER;
    uint64_t before;
    ns_table_hold(&hold);
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    if (still(s, s->o.fd)) {
        bool rx_open = s->rx_open;
        __atomic_store_n(&s->rx_open, false, __ATOMIC_SEQ_CST);
        ns_swap_learn_ends(s, s->o.fd);
        set_up(s, ends);
        bool joined = ns_dormant_join(s, &before);
        word = joined && hand(s, to, ends) ? NS_JOINT_YES : NS_JOINT_NO;
        if (word == NS_JOINT_YES)
            ns_relayed_put(s, ends[0]);
        else
            __atomic_store_n(&s->rx_open, rx_open, __ATOMIC_SEQ_CST);
        if (joined && word == NS_JOINT_NO)
            ns_dormant_part(s, before);
    }
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
    ns_table_unhold(&hold);
    ns_slots_wake();
    return word;
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
    int ends[2];
    if (ns_loopback_pair(family_of(ns_sock_number(s)), ends) < 0 && ns_loopback_pair(AF_INET, ends) < 0)
        return NS_JOINT_NO;
    ns_resume_stop(s, now);
    ns_serve_forget(s);
    ns_swap_stop_replay(s);
    uint8_t word = move(s, to, ends);
    ns_internal_close(ends[0]);
    ns_internal_close(ends[1]);
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

/* What stands there now; it may have been closed since it was given. */
static void answer(int asker, uint8_t word, const struct ns_joint_question *q)
{
    struct ns_joint_answer a;
    struct ns_hold hold;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {
        .header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS }
    };
    struct iovec iov = { &a, sizeof a };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    memset(&a, 0, sizeof a); /* its holes, too */
    a.word = word;
    a.size = sizeof a;
    ns_table_hold(&hold);
    struct ns_sock *s = word == NS_JOINT_YES ? find(q) : NULL;
    int end = s ? users_end(s) : -1;
    if (end >= 0) {
        a.local = s->local;
        a.peer = s->peer;
        ns_joint_prove(s, true, a.proof);
        memcpy(CMSG_DATA(&control.header), &end, sizeof end);
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
    }
    ns_sys_sendmsg(asker, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
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

/* The next that has to, at `fd` or anywhere, inside which the slot is then. */
static struct ns_sock *next_left(struct ns_slot *slot, int fd, const struct ns_sock *after)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_object *o = fd >= 0 ? ns_object_at(fd) : after ? after->o.next : ns_objects;
    for (; o; o = fd >= 0 ? NULL : o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind == NS_KIND_SOCK && o->fd >= 0 && (fd < 0 || o->fds == 1) && is_joint(s) &&
            ns_dormant_stranded(s) && !ns_uring_here() && ns_slot_enter(slot, s))
            break;
    }
    ns_table_unhold(&hold);
    return (struct ns_sock *)o;
}

void ns_joint_leave(int fd)
{
    struct ns_slot *slot = ns_slot_self();
    struct ns_sock *s = NULL;
    while (slot && (s = next_left(slot, fd, s))) {
        if (!ns_helper_here()) {
            ns_slot_leave(slot);
            return;
        }
        struct ns_time end = ns_time_add(ns_now(), ns_time_ms(LEAVE_MS));
        __atomic_store_n(&s->leaving, true, __ATOMIC_RELEASE);
        ns_helper_post(s, NS_TODO_LEFT);
        while (__atomic_load_n(&s->leaving, __ATOMIC_ACQUIRE) && ns_time_before(ns_now(), end))
            ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 200000 }, NULL);
        ns_slot_leave(slot);
        /* Where one is refused all are, and each takes its time. */
        if (fd >= 0 || ns_object_kind(&s->o) != NS_KIND_RELAYED)
            return;
    }
}

/* ---- in the relay ---- */

#define HOLDERS_MS 100

/* Lets the users' end go where nobody else has a descriptor that may become one: what ends it
 * then are those who have it. */
static void look(struct ns_timer *timer, struct ns_time now)
{
    struct ns_hold hold;
    bool any = false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind != NS_KIND_SOCK || !s->users_end)
            continue;
        bool used = s->o.fd >= 0 && s->share && ns_share_in_use(s->share, (uint32_t)ns_sys_getpid());
        any |= used;
        if (!used)
            ns_joint_drop(s);
    }
    ns_table_unhold(&hold);
    if (any)
        ns_timer_set(timer, ns_time_add(now, ns_time_ms(HOLDERS_MS)));
}

static struct ns_timer holders = { .fire = look };

void ns_joint_keep(struct ns_sock *s, int end)
{
    s->users_end = 1 + end;
}

void ns_joint_drop(struct ns_sock *s)
{
    if (s->users_end)
        ns_internal_close(s->users_end - 1);
    s->users_end = 0;
}

void ns_joint_look(struct ns_time now)
{
    look(&holders, now);
}
