/*
 * The peer's stream. In steady state a read is the application's own blocking
 * read, unlocked and uncounted: the kernel counts. Everything else (first
 * bytes, the inbox of an earlier connection, a suspended session) goes the slow
 * way, under the rx lock.
 */
#include "engine/await.h"
#include "engine/block.h"
#include "engine/connect.h"
#include "engine/data.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/first.h"
#include "engine/gate.h"
#include "engine/inbox.h"
#include "engine/interrupt.h"
#include "engine/ledger.h"
#include "engine/libc.h"
#include "engine/sys.h"

#include <limits.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>

struct in {
    struct msghdr *msg; /* recvmsg: also for ancillary data; else NULL */
    void *buf;          /* recv */
    size_t len;         /* of all */
    size_t done;        /* with MSG_WAITALL: so far */
    int flags;
    int error;    /* what the connection said behind the inbox */
    bool lowered; /* the inbox has become less than readable */
    bool enough;  /* no more is waited for: what is here is the answer */
    bool awaited; /* the kernel has been asked for the client's first bytes */
    bool again;   /* not the first look: only ns_block waits now, which knows of every signal */
    struct ns_handled since;
};

#define PIECES 64 /* buffers that one read fills behind an inbox, or after a part */

#define RETRY      ((ssize_t)INT_MIN + 1)
#define TOO_LITTLE ((ssize_t)INT_MIN + 2)

/* Flags that read beside the stream: the kernel's business alone. */
static bool beside_stream(int flags)
{
    return flags & (MSG_OOB | MSG_ERRQUEUE);
}

/* The caller's buffers from the byte after `skip`. Returns how many. */
static size_t rest(const struct in *i, size_t skip, struct iovec out[PIECES])
{
    struct iovec one = { i->buf, i->len };
    const struct iovec *from = i->msg ? i->msg->msg_iov : &one;
    size_t count = i->msg ? i->msg->msg_iovlen : 1, n = 0;
    for (size_t k = 0; k < count && n < PIECES; k++) {
        if (skip >= from[k].iov_len) {
            skip -= from[k].iov_len;
            continue;
        }
        out[n++] = (struct iovec){ (char *)from[k].iov_base + skip, from[k].iov_len - skip };
        skip = 0;
    }
    return n;
}

/* MSG_WAITALL is left to the kernel, which alone can say that it is met. */
static bool waits_in_block(const struct in *i)
{
    return i->again && !(i->flags & MSG_WAITALL);
}

/* Where a part has come before: into what is left of the buffers. */
static __attribute__((noinline)) ssize_t libc_recv_rest(int fd, struct in *i, int flags)
{
    struct iovec iov[PIECES];
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = rest(i, i->done, iov) };
    return ns_libc.recvmsg(fd, &m, flags);
}

static NS_FLAT ssize_t libc_recv(int fd, struct in *i)
{
    int saved = errno, flags = i->flags | (waits_in_block(i) ? MSG_DONTWAIT : 0);
    ssize_t n;
    if (i->done > 0)
        n = libc_recv_rest(fd, i, flags);
    else if (i->msg)
        n = ns_libc.recvmsg(fd, i->msg, flags);
    else
        n = ns_libc.recv(fd, i->buf, i->len, flags);
    if (n < 0) {
        n = -errno;
        errno = saved;
    }
    return n;
}

static bool rx_blocked(const struct ns_sock *s)
{
    enum ns_state state = ns_sock_state(s);
    if (state == NS_SUSPENDED)
        return !__atomic_load_n(&s->rx_shut, __ATOMIC_SEQ_CST);
    return state == NS_CONNECTED && !__atomic_load_n(&s->rx_open, __ATOMIC_SEQ_CST) && !ns_sock_inbox_filled(s);
}

/*
 * What an end of file is. A connection that was reset reads so as well once its
 * error was told, to a write in another thread, say.
 */
enum end { END_FIN, END_OWN, END_LOST };

static enum end kind_of_end(struct ns_sock *s, int fd)
{
    struct ns_ledger l;
    if (ns_ledger_read(fd, &l) < 0)
        return END_OWN;
    if (l.fin_received)
        return END_FIN;
    if (l.state != NS_TCP_CLOSE)
        return END_OWN; /* the application has shut its reading side down */
    /* After our own end this is how a finished connection looks, too. */
    bool finished = __atomic_load_n(&s->session.tx_ended, __ATOMIC_SEQ_CST) && l.unacknowledged == 0;
    return finished ? END_FIN : END_LOST;
}

static bool rx_flows(const struct ns_sock *s)
{
    return __atomic_load_n(&s->rx_open, __ATOMIC_SEQ_CST);
}

static int block(struct ns_sock *s, struct ns_slot *slot, int fd, struct in *i, short events,
                 bool (*still)(const struct ns_sock *))
{
    struct ns_wait w = { fd, events, ns_timeout_at(fd, SO_RCVTIMEO), .since = &i->since, .still = still };
    w.timed = w.deadline.ns != NS_NEVER.ns;
    w.done = i->done > 0 || ns_sock_inbox_filled(s);
    return ns_block(s, slot, &w);
}

/* The read has nothing, for now. Returns RETRY or a result. */
static ssize_t nothing(struct ns_sock *s, struct ns_slot *slot, int fd, struct in *i, short events,
                       bool (*still)(const struct ns_sock *))
{
    bool now = ns_nonblocking(fd, i->flags);
    if (!ns_sock_is(s, fd)) /* and that is a relay's setting */
        return RETRY;
    if (now) {
        if (i->done == 0 && ns_sock_state(s) == NS_SUSPENDED && ns_await_answer(s))
            return RETRY;
        return i->done > 0 ? (ssize_t)i->done : -EAGAIN;
    }
    int err = block(s, slot, fd, i, events, still);
    return err == 0 ? RETRY : i->done > 0 ? (ssize_t)i->done : err;
}

/* The connection of `generation` is in use, and its bytes are next in order. */
static bool flows(const struct ns_sock *s, uint32_t generation)
{
    return __atomic_load_n(&s->rx_open, __ATOMIC_SEQ_CST) &&
           __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST) == generation;
}

static NS_FLAT ssize_t fast(struct ns_sock *s, struct ns_slot *slot, int fd, struct in *i)
{
    uint32_t generation = __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST);
    ssize_t n = libc_recv(fd, i);
    ns_slot_reading_over(slot);
    bool same = flows(s, generation);
    if (__builtin_expect(!same, 0))
        ns_gate_try(s);
    ns_sock_touch(s);
    if (n > 0) {
        /* MSG_WAITALL ends early when the connection is being replaced, or dies. */
        bool cut = (i->flags & MSG_WAITALL) && !(i->flags & MSG_PEEK) && i->done + (size_t)n < i->len;
        if (__builtin_expect(cut, 0) && (!same || kind_of_end(s, fd) == END_LOST)) {
            i->done += (size_t)n;
            return RETRY;
        }
        return (ssize_t)i->done + n;
    }
    if (n == 0 && i->len > 0) {
        /* Who was asked is the number: still of the connection that was read? */
        enum end end = same ? kind_of_end(s, fd) : END_LOST;
        if (!same || !flows(s, generation) || (end == END_LOST && ns_sock_lost(s, generation, NS_ERROR_END)))
            return RETRY;
        if (end == END_FIN)
            __atomic_store_n(&s->rx_ended, true, __ATOMIC_SEQ_CST);
        return (ssize_t)i->done;
    }
    /* By us, so that it goes on where the session is now (gate.h), unless a handler says otherwise. */
    if (n == -EINTR && !same && i->since.ending == ns_handled.ending)
        return RETRY;
    if (n == -EINTR && i->since.all == ns_handled.all && ns_interrupt_used()) /* nor is that the application's */
        return RETRY;
    if (n == -EAGAIN && waits_in_block(i))
        return nothing(s, slot, fd, i, POLLIN, rx_flows);
    if (n < 0 && !same && (n == -EAGAIN || ns_error_is_loss((int)n)))
        return RETRY;
    /* The helper may have suspended it since `same`: that is asked under tx, too. */
    if (n < 0 && ns_error_is_loss((int)n) && ns_sock_lost(s, generation, (int)n))
        return RETRY;
    return n < 0 && i->done > 0 ? (ssize_t)i->done : n;
}

/* What the connection holds behind `skip` bytes that came from elsewhere; rx held. */
static ssize_t from_socket(int fd, struct in *i, size_t skip)
{
    struct iovec iov[PIECES];
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = rest(i, skip, iov) };
    ssize_t n = m.msg_iovlen ? ns_sys_recvmsg(fd, &m, (i->flags & ~MSG_WAITALL) | MSG_DONTWAIT) : 0;
    if (n < 0 && ns_error_is_loss((int)n))
        i->error = (int)n;
    return n > 0 ? n : 0;
}

/* What a suspended session's dead connection still holds is the application's
 * now, as it would be with plain TCP; rx held. */
static ssize_t from_dead(int fd, struct in *i)
{
    ssize_t n = from_socket(fd, i, i->done);
    i->error = 0;
    return n > 0 ? (ssize_t)i->done + n : 0;
}

/* TCP_INQ: how much more there is, as put_cmsg() of the kernel tells it. */
static void tell_unread(const struct ns_sock *s, int fd, struct msghdr *m, size_t room)
{
    int on = 0, behind = 0;
    socklen_t len = sizeof on;
    struct cmsghdr c = { CMSG_LEN(sizeof behind), IPPROTO_TCP, TCP_CM_INQ };
    if (ns_sys_getsockopt(fd, IPPROTO_TCP, TCP_INQ, &on, &len) < 0 || !on)
        return;
    if (!s->retired)
        ns_sys_ioctl(fd, FIONREAD, &behind);
    behind += (int)ns_ring_used(&s->inbox);
    if (!m->msg_control || room < c.cmsg_len) {
        m->msg_flags |= MSG_CTRUNC;
        return;
    }
    memcpy(m->msg_control, &c, sizeof c);
    memcpy(CMSG_DATA((struct cmsghdr *)m->msg_control), &behind, sizeof behind);
    m->msg_controllen = room < CMSG_SPACE(sizeof behind) ? room : CMSG_SPACE(sizeof behind);
}

/* What the kernel's recvmsg says of bytes that come without a name and a control part. */
static void nothing_beside(struct in *i)
{
    if (!i->msg)
        return;
    i->msg->msg_controllen = 0;
    i->msg->msg_namelen = 0;
    i->msg->msg_flags = 0;
}

/* The inbox, and what is behind it on the connection; rx held. */
static ssize_t take_inbox(struct ns_sock *s, int fd, struct in *i)
{
    struct iovec to[PIECES];
    size_t held = ns_ring_used(&s->inbox), room = i->len - i->done;
    size_t n = held < room ? held : room;
    bool peek = i->flags & MSG_PEEK;
    if (n > 0 && !(i->flags & MSG_TRUNC)) { /* tcp(7): they are discarded, the buffer is not looked at */
        ssize_t copied = ns_inbox_copy(s, to, rest(i, i->done, to));
        if (copied < 0)
            return i->done > 0 ? (ssize_t)i->done : copied;
        n = (size_t)copied;
    }
    if (n == held && n < room && !s->retired)
        n += (size_t)from_socket(fd, i, i->done + n);
    if (!peek)
        i->lowered = ns_inbox_drop(s, fd, n < held ? n : held);
    if (i->msg) {
        size_t control = i->msg->msg_controllen;
        nothing_beside(i);
        tell_unread(s, fd, i->msg, control);
    }
    i->done += n;
    bool more = (i->flags & MSG_WAITALL) && !peek && !i->enough && i->done < i->len;
    return more ? RETRY : (ssize_t)i->done;
}

/* How much has to be there before a blocking read returns it (tcp_recvmsg, sock_rcvlowat). */
static size_t target(const struct ns_sock *s, const struct in *i)
{
    size_t mark = s->low_water > 0 ? (size_t)s->low_water : 1;
    if ((i->flags & MSG_WAITALL) && (i->flags & MSG_PEEK))
        return i->len;
    return mark < i->len ? mark : i->len;
}

/* Whether the read waits for more than there is; the kernel is told for how much. rx held. */
static bool too_little(struct ns_sock *s, int fd, struct in *i)
{
    int unread = 0;
    size_t held = ns_ring_used(&s->inbox), want = target(s, i);
    if (held >= want || i->enough || ns_sock_state(s) == NS_FAILED || ns_nonblocking(fd, i->flags))
        return false;
    if (!s->retired && (ns_sys_ioctl(fd, FIONREAD, &unread) < 0 || held + (size_t)unread >= want))
        return false;
    ns_inbox_expect(s, fd, want);
    return true;
}

/* In tcp_recvmsg's order: what is here, the end of the stream, the error. Of a
 * connection whose peer had ended its stream the error is EPIPE (tcp_reset). */
static ssize_t failed(struct ns_sock *s, int fd, struct in *i)
{
    ssize_t n = from_dead(fd, i);
    if (n <= 0)
        n = (ssize_t)i->done;
    if (n == 0 && !__atomic_load_n(&s->rx_ended, __ATOMIC_SEQ_CST) && ns_sock_failure(s) != EPIPE)
        n = -__atomic_exchange_n(&s->failure, 0, __ATOMIC_ACQ_REL);
    if (n >= 0)
        nothing_beside(i);
    return n;
}

/* One look under the lock: a result, RETRY after a change, or 0 in *wait's case. */
static ssize_t look(struct ns_sock *s, int fd, struct in *i, enum ns_first *first)
{
    *first = NS_FIRST_KNOWN;
    enum ns_state state = ns_sock_state(s);
    if (state == NS_AWAITING) {
        *first = ns_first_bytes(s, fd);
        return RETRY;
    }
    if (ns_ring_used(&s->inbox) > 0)
        return too_little(s, fd, i) ? TOO_LITTLE : take_inbox(s, fd, i);
    switch (state) {
    case NS_SUSPENDED: {
        ssize_t n = s->retired ? 0 : from_dead(fd, i);
        if (n == 0 && !__atomic_load_n(&s->rx_shut, __ATOMIC_SEQ_CST))
            return -EAGAIN;
        nothing_beside(i);
        return n > 0 ? n : (ssize_t)i->done;
    }
    case NS_FAILED:
        return failed(s, fd, i);
    case NS_PLAIN:
        return NS_NOT_OURS;
    default:
        ns_sock_open_rx(s);
        return RETRY;
    }
}

static bool stalled(const struct ns_sock *s)
{
    return ns_sock_state(s) == NS_AWAITING && __atomic_load_n(&s->low_water, __ATOMIC_RELAXED);
}

/* A part of NEW is here: waits until the kernel reports the rest, or it is plain
 * that no more comes. */
static ssize_t await_rest(struct ns_sock *s, struct ns_slot *slot, int fd, struct in *i)
{
    struct ns_time over = ns_time_add(ns_now(), ns_time_ms(NS_STALL_MS));
    struct ns_wait w = { fd, POLLIN, ns_timeout_at(fd, SO_RCVTIMEO), .since = &i->since, .still = stalled };
    w.timed = w.deadline.ns != NS_NEVER.ns;
    bool first = ns_time_before(over, w.deadline);
    if (first) {
        w.deadline = over;
        w.timed = false;
    }
    int err = ns_block(s, slot, &w);
    return err == 0 || (err == -EAGAIN && first) ? RETRY : err;
}

/* The client's first bytes: waits for them in the kernel, which knows whether this
 * blocks, and about timeouts and restarts. */
static ssize_t await_first(int fd, struct in *i)
{
    int saved = errno;
    char byte;
    ssize_t n = ns_libc.recv(fd, &byte, 1, MSG_PEEK | (i->flags & MSG_DONTWAIT));
    n = n < 0 ? -errno : RETRY;
    errno = saved;
    i->awaited = true;
    return n;
}

/* A part of NEW is here. */
static ssize_t await_new(struct ns_sock *s, struct ns_slot *slot, int fd, struct in *i, enum ns_first first)
{
    if (first == NS_FIRST_PARTIAL) { /* there is no helper to put an end to it */
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 2000000 }, NULL);
        return RETRY;
    }
    return ns_nonblocking(fd, i->flags) ? -EAGAIN : await_rest(s, slot, fd, i);
}

static bool inbox_waits(const struct ns_sock *s)
{
    return ns_sock_inbox_filled(s);
}

/* There are bytes, but fewer than the read wants: until more come, or none will. */
static ssize_t await_more(struct ns_sock *s, struct ns_slot *slot, int fd, struct in *i)
{
    sigset_t saved;
    uint32_t generation = __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST);
    bool connected = ns_sock_state(s) != NS_SUSPENDED;
    int err = block(s, slot, fd, i, connected ? POLLIN : 0, inbox_waits);
    ns_lock_quiet(&s->rx, &saved);
    if (ns_sock_is(s, fd))
        ns_inbox_mark(s, fd);
    ns_unlock_quiet(&s->rx, &saved);
    bool same = connected && __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST) == generation;
    struct pollfd p = { .fd = fd, .events = POLLRDHUP };
    /* Time is up, a signal has come, or the end of the stream. */
    i->enough = err == -EAGAIN || err == -EINTR || (same && ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) == 1);
    return err < 0 && !i->enough ? err : RETRY;
}

static __attribute__((noinline)) ssize_t slow(struct ns_sock *s, struct ns_slot *slot, int fd, struct in *i)
{
    sigset_t saved;
    enum ns_first first = NS_FIRST_KNOWN;
    /* They were not here yet when the connection was accepted. */
    if (!i->awaited && ns_sock_state(s) == NS_AWAITING)
        return await_first(fd, i);
    i->awaited = false;
    ns_lock_quiet(&s->rx, &saved);
    uint32_t generation = s->generation;
    ssize_t n = ns_sock_is(s, fd) ? look(s, fd, i, &first) : RETRY;
    ns_unlock_quiet(&s->rx, &saved);

    if (i->lowered) {
        i->lowered = false;
        ns_inbox_lowered(s);
    }
    if (i->error) {
        int error = i->error;
        i->error = 0;
        ns_sock_lost(s, generation, error);
    }
    if (n == TOO_LITTLE)
        return await_more(s, slot, fd, i);
    if (first == NS_FIRST_PARTIAL || first == NS_FIRST_STALLED)
        return await_new(s, slot, fd, i, first);
    ns_first_follow(s, fd, first);
    if (first == NS_FIRST_KNOWN && ns_sock_state(s) == NS_PLAIN && !ns_sock_inbox_filled(s))
        ns_sock_forget(s);
    if (n == NS_NOT_OURS && i->done > 0)
        return (ssize_t)i->done;
    if (n != -EAGAIN)
        return n;
    return nothing(s, slot, fd, i, 0, rx_blocked);
}

/* A read waits without a helper for as long as that is late; then it goes on like one
 * that was woken. */
static __attribute__((noinline)) void await_helper(int fd, struct in *i)
{
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLPRI | POLLRDHUP };
    int64_t left = ns_helper_due().ns - ns_now().ns;
    int saved = errno;
    if (ns_nonblocking(fd, i->flags))
        return;
    if (left <= 0 || (i->flags & MSG_WAITALL) ||
        ns_libc.ppoll(&p, 1, &(struct timespec){ .tv_nsec = left }, NULL) == 0)
        ns_helper_start();
    i->again = true;
    errno = saved;
}

/* Whether the kernel, which has the rest of a read, would wait for more although a handler has ended it: one that
 * ran while we waited for whose the session is. */
static bool is_ended(int fd, int flags, const struct ns_handled *since)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    return since->all != ns_handled.all && !ns_nonblocking(fd, flags) &&
           ns_interrupted(since, false, ns_timeout_at(fd, SO_RCVTIMEO).ns != NS_NEVER.ns) &&
           ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) == 0;
}

static __attribute__((noinline)) ssize_t not_ours(int fd, int flags, const struct ns_handled *since)
{
    return !beside_stream(flags) && is_ended(fd, flags, since) ? -EINTR : NS_NOT_OURS;
}

/* The session is none any more, and a part has come: with MSG_WAITALL, the rest. */
static __attribute__((noinline)) ssize_t receive_rest(int fd, struct in *i)
{
    if (i->done == 0)
        return not_ours(fd, i->flags, &i->since);
    ssize_t n = (i->flags & MSG_WAITALL) && !is_ended(fd, i->flags, &i->since) ? libc_recv(fd, i) : 0;
    return (ssize_t)i->done + (n > 0 ? n : 0);
}

static NS_FLAT ssize_t receive(int fd, struct in *i)
{
    struct ns_slot *slot = NULL;
    ssize_t n;
    do {
        struct ns_sock *s = ns_sock_at(fd);
        if (!s)
            return receive_rest(fd, i);
        if (!slot && !(slot = ns_slot_self()))
            return -ENOBUFS;
        if (!ns_slot_enter_reading(slot, s))
            return -ENOBUFS;
        if (ns_sock_at(fd) != s) {
            n = RETRY;
        } else if (__builtin_expect(__atomic_load_n(&s->rx_open, __ATOMIC_SEQ_CST), 1)) {
            if (ns_helper_is_late())
                await_helper(fd, i);
            n = fast(s, slot, fd, i);
        } else {
            ns_slot_reading_over(slot);
            n = slow(s, slot, fd, i);
        }
        ns_slot_leave(slot);
        i->again = true;
    } while (n == RETRY);
    return n;
}

/* A client that reads before it has written: NEW goes alone. */
static void before_reading(struct ns_sock *s, int fd)
{
    enum ns_state state = ns_sock_state(s);
    if (state == NS_CONNECTING)
        ns_client_established(s, fd);
    else if (state == NS_OFFERING)
        ns_offer_now(s, fd);
}

/* An urgent byte that came before the connection was replaced. */
static bool take_urgent(struct ns_sock *s, int flags, uint8_t *byte)
{
    if (!s || !(flags & MSG_OOB))
        return false;
    int kept = flags & MSG_PEEK ? __atomic_load_n(&s->rx_urgent, __ATOMIC_SEQ_CST)
                                : __atomic_exchange_n(&s->rx_urgent, 0, __ATOMIC_SEQ_CST);
    *byte = (uint8_t)kept;
    return kept != 0;
}

ssize_t ns_recv(int fd, void *buf, size_t len, int flags)
{
    const struct ns_handled since = ns_handled;
    struct ns_sock *s = ns_sock_at(fd);
    uint8_t urgent;
    if (len > 0 && take_urgent(s, flags, &urgent)) {
        *(uint8_t *)buf = urgent;
        return 1;
    }
    if (!s || beside_stream(flags))
        return not_ours(fd, flags, &since);
    if (__builtin_expect(ns_sock_state(s) != NS_CONNECTED, 0))
        before_reading(s, fd);
    struct in i = { .buf = buf, .len = len, .flags = flags, .since = since, .again = since.all != ns_handled.all };
    return receive(fd, &i);
}

/* The first buffer that has room, or NULL. */
static uint8_t *first_place(const struct msghdr *msg)
{
    for (size_t k = 0; k < msg->msg_iovlen; k++)
        if (msg->msg_iov[k].iov_len > 0)
            return msg->msg_iov[k].iov_base;
    return NULL;
}

ssize_t ns_recvmsg(int fd, struct msghdr *msg, int flags)
{
    const struct ns_handled since = ns_handled;
    struct ns_sock *s = ns_sock_at(fd);
    uint8_t urgent, *to = s && (flags & MSG_OOB) ? first_place(msg) : NULL;
    if (to && take_urgent(s, flags, &urgent)) {
        *to = urgent;
        msg->msg_flags = MSG_OOB;
        msg->msg_namelen = msg->msg_controllen = 0;
        return 1;
    }
    if (!s || beside_stream(flags))
        return not_ours(fd, flags, &since);
    if (msg->msg_iovlen > IOV_MAX)
        return -EMSGSIZE;
    if (__builtin_expect(ns_sock_state(s) != NS_CONNECTED, 0))
        before_reading(s, fd);
    struct in i = { .msg = msg, .flags = flags, .since = since, .again = since.all != ns_handled.all };
    for (size_t k = 0; k < msg->msg_iovlen; k++)
        i.len += msg->msg_iov[k].iov_len;
    return receive(fd, &i);
}

int ns_recv_failure(int fd)
{
    struct ns_sock *s = ns_sock_peek(fd);
    return s && ns_sock_state(s) == NS_FAILED ? -__atomic_exchange_n(&s->failure, 0, __ATOMIC_ACQ_REL) : 0;
}

void ns_recv_fails_next(int fd, int error)
{
    struct ns_sock *s = ns_sock_peek(fd);
    if (s && ns_sock_state(s) == NS_FAILED)
        __atomic_store_n(&s->failure, -error, __ATOMIC_RELEASE);
}
