/* Descriptors that go where the engine cannot follow, and calls that it cannot repeat. */
#include "engine/block.h"
#include "engine/door.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/first.h"
#include "engine/inbox.h"
#include "engine/hello.h"
#include "engine/listener.h"
#include "engine/swap.h"
#include "engine/sys.h"

#include <errno.h>

#define AGAIN 1

/*
 * Nobody is told yes any more, neither by this process nor by those that it has its
 * listener from, and the leases end: a client that has not sent NEW yet looks at its
 * lease first. One that was told yes a moment ago may have sent it: that is waited
 * for, a little.
 */
static void await_new(struct ns_sock *s, int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    struct ns_hold hold;
    ns_table_hold(&hold);
    ns_doors_unlock();
    ns_table_unhold(&hold);
    /* What was inherited may have been promised by the parent, which goes on answering. */
    bool answered = ns_hello_mute() || s->unfaithful || s->share;
    if (ns_first_awaited(ns_first_settle(s, fd)) && answered &&
        ns_sys_ppoll(&p, 1, &(struct timespec){ 1, 0 }, NULL) == 1)
        ns_first_settle(s, fd);
    ns_first_release(s, fd);
}

/* There is no connection, or not all of the stream is in it yet. */
static bool between(const struct ns_sock *s)
{
    enum ns_state state = ns_sock_state(s);
    return state == NS_SUSPENDED || (state == NS_CONNECTED && !__atomic_load_n(&s->tx_open, __ATOMIC_SEQ_CST));
}

static int demote(struct ns_sock *s, struct ns_slot *slot, int fd, const char *why, const struct ns_wait *wait)
{
    if (ns_sock_state(s) == NS_AWAITING)
        await_new(s, fd);
    if (ns_sock_state(s) == NS_FAILED)
        return -__atomic_exchange_n(&s->failure, 0, __ATOMIC_ACQ_REL);
    if (ns_sock_at(fd) != s || ns_sock_state(s) == NS_PLAIN || ns_sock_demote(s, why))
        return 0;
    if (!wait)
        return -EAGAIN;
    int err = ns_block(s, slot, wait);
    return err < 0 ? err : AGAIN;
}

int ns_fd_demote(int fd, const char *why, bool wait)
{
    const struct ns_handled since = ns_handled;
    const struct ns_wait w = { fd, .deadline = NS_NEVER, .since = &since, .still = between };
    int r;
    do {
        struct ns_slot *slot = ns_slot_self();
        struct ns_sock *s = ns_sock_at(fd);
        if (!s)
            return 0;
        if (!slot || !ns_slot_enter(slot, s))
            return -ENOBUFS;
        r = ns_sock_at(fd) == s ? demote(s, slot, fd, why, wait ? &w : NULL) : AGAIN;
        ns_slot_leave(slot);
    } while (r == AGAIN);
    return r;
}

/* What the inbox holds stays here, and the connection without it would be a
 * stream with a hole. */
static void cut_short(int fd)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_sock *s = ns_sock_at(fd);
    if (s && ns_sock_state(s) == NS_PLAIN && ns_sock_inbox_filled(s)) {
        ns_lock(&s->rx);
        ns_inbox_drop(s, fd, ns_ring_used(&s->inbox));
        ns_unlock(&s->rx);
        ns_swap_abort(fd);
        ns_error("bytes of an earlier connection cannot leave with descriptor %d: the connection is reset", fd);
        ns_sock_forget(s);
    }
    ns_table_unhold(&hold);
}

int ns_fd_leave(int fd, const char *why)
{
    int r = ns_fd_demote(fd, why, true);
    if (r == 0)
        cut_short(fd);
    ns_listener_leave(fd);
    return r;
}

size_t ns_fd_inbox(int fd)
{
    struct ns_hold hold;
    size_t n = 0;
    ns_table_hold(&hold);
    struct ns_sock *s = ns_sock_at(fd);
    if (s) {
        ns_lock(&s->rx);
        n = ns_ring_used(&s->inbox);
        ns_unlock(&s->rx);
    }
    ns_table_unhold(&hold);
    return n;
}
