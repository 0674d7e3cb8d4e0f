/* Calling for a session that another process has: joint.h. On the application's threads. */
#include "engine/joint.h"

#include "engine/dormant.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/mailbox.h"
#include "engine/relayed.h"
#include "engine/sys.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <string.h>

#define SOON_MS   200  /* longer than a helper takes to start, if it does (NS_LATE_MS) */
#define LATER_MS  2000 /* what is half done about the session is done by then */
#define ANSWER_MS 5000 /* a relay may have to be started first */
#define PAUSE_US  1000

/* Where to ask for what; NS_OWNER_NONE: there is nothing to ask for. */
static enum ns_owner look(struct ns_sock *s, struct ns_joint_question *q, uint8_t mailbox[NS_MAILBOX_BYTES])
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    enum ns_owner owner = s->o.fds > 0 ? ns_dormant_owner(s, mailbox) : NS_OWNER_NONE;
    if (owner != NS_OWNER_NONE && !ns_joint_prove(s, false, q->proof))
        owner = NS_OWNER_NONE;
    ns_table_unhold(&hold);
    return owner;
}

static bool sensible(const struct ns_joint_answer *a)
{
    return a->size == sizeof *a && a->local.length <= sizeof a->local.address &&
           a->peer.length <= sizeof a->peer.address;
}

/* Who it comes from can be trusted with the stream, or it counts for nothing. Where nobody answers any
 * more, whoever has it then is asked. */
static uint8_t receive(int fd, struct ns_joint_answer *a, int *end)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    struct ns_time until = ns_time_add(ns_now(), ns_time_ms(ANSWER_MS));
    uid_t from;
    int64_t left;
    ssize_t n;
    int r = 0;
    while (r != 1 && (left = ns_time_sub(until, ns_now()).ns) > 0) {
        struct timespec ts = { left / 1000000000, left % 1000000000 };
        r = ns_sys_ppoll(&p, 1, &ts, NULL);
        if (r < 0 && r != -EINTR)
            return NS_JOINT_NO;
    }
    if (r != 1)
        return NS_JOINT_NO;
    if ((n = ns_mailbox_receive(fd, a, sizeof *a, end, &from)) == 0)
        return NS_JOINT_LATER;
    return n == (ssize_t)sizeof *a && sensible(a) ? a->word : NS_JOINT_NO;
}

static void put(struct ns_sock *s, const struct ns_joint_answer *a, int end)
{
    struct ns_hold hold;
    uint8_t proof[16];
    ns_table_hold(&hold);
    ns_joint_prove(s, true, proof);
    if (s->o.kind == NS_KIND_DORMANT && s->o.fds > 0 && sodium_memcmp(proof, a->proof, sizeof proof) == 0) {
        s->local = a->local;
        s->peer = a->peer;
        ns_relayed_put(s, end);
        ns_info("session shared by way of a relay: two processes use it at once");
    }
    ns_table_unhold(&hold);
}

/* One question. Returns the answer. */
static uint8_t ask(struct ns_sock *s, const struct ns_joint_question *q, const uint8_t mailbox[NS_MAILBOX_BYTES])
{
    struct ns_joint_answer a;
    int pair[2], end = -1;
    uint8_t word = NS_JOINT_LATER; /* it has ended, or executed something, and says so before long */
    if (ns_sys_socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return NS_JOINT_NO;
    pair[0] = ns_internal(pair[0]);
    pair[1] = ns_internal(pair[1]);
    ns_sys_set_int(pair[0], SOL_SOCKET, SO_PASSCRED, 1);
    bool sent = ns_mailbox_ask(mailbox, pair[1], q);
    ns_internal_close(pair[1]);
    if (sent)
        word = receive(pair[0], &a, &end);
    if (word == NS_JOINT_YES && end >= 0)
        put(s, &a, end);
    ns_internal_close(end);
    ns_internal_close(pair[0]);
    return word;
}

/* Until it is given, or plainly is not. The slot keeps the object. */
static void ask_on(struct ns_sock *s)
{
    struct ns_time since = ns_now();
    uint8_t mailbox[NS_MAILBOX_BYTES];
    struct ns_joint_question q;
    enum ns_owner owner;
    while ((owner = look(s, &q, mailbox)) != NS_OWNER_NONE) {
        int64_t most_ms = owner == NS_OWNER_SOON ? SOON_MS : owner == NS_OWNER_NEXT ? ANSWER_MS : LATER_MS;
        uint8_t word = owner == NS_OWNER_THERE ? ask(s, &q, mailbox) : NS_JOINT_LATER;
        if (word == NS_JOINT_YES)
            return;
        if (word == NS_JOINT_NO || !ns_time_before(ns_now(), ns_time_add(since, ns_time_ms(most_ms)))) {
            ns_debug("who has the session %s", owner == NS_OWNER_SOON ? "cannot be asked" : "goes on with it alone");
            return;
        }
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, PAUSE_US * 1000 }, NULL);
    }
}

void ns_joint_ask(struct ns_sock *s)
{
    struct ns_slot *slot = ns_slot_self();
    if (!slot || !ns_slot_enter(slot, s))
        return;
    ask_on(s);
    ns_slot_leave(slot);
}
