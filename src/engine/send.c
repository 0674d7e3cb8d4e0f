/* The application's own stream: into the kernel, then into the ring. */
#include "engine/ask.h"
#include "engine/await.h"
#include "engine/block.h"
#include "engine/connect.h"
#include "engine/data.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/ledger.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <limits.h>
#include <string.h>

/* The most that one system call is given, so that a huge write does not make a
 * huge ring: the kernel takes it piecemeal anyway. */
#define PIECE_BYTES (256 * 1024)
#define PIECE_IOVS  64

/* What is to be sent, and how much of it was. */
struct out {
    const struct msghdr *msg; /* for its ancillary data, or NULL */
    const struct iovec *iov;
    size_t iovs, total, done;
    int flags;
    struct ns_handled since;
};

/* What a look under the lock has found. */
struct looked {
    ssize_t result;
    enum ns_state before, after;
    uint32_t generation;
    bool ended; /* the application had ended its stream */
};

#define AGAIN_LATER ((ssize_t)INT_MIN + 1) /* the session has to change first */

/* The next `want` bytes as iovecs. Returns how many. */
static size_t gather(const struct out *o, size_t want, struct iovec *out)
{
    size_t skip = o->done, n = 0;
    for (size_t i = 0; i < o->iovs && want > 0 && n < PIECE_IOVS; i++) {
        size_t len = o->iov[i].iov_len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        len -= skip;
        if (len > want)
            len = want;
        out[n++] = (struct iovec){ (char *)o->iov[i].iov_base + skip, len };
        want -= len;
        skip = 0;
    }
    return n;
}

static __attribute__((noinline)) ssize_t raw_sendmsg(int fd, const struct out *o, const struct iovec *iov, size_t n,
                                                     bool ancillary, int flags)
{
    struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };
    if (ancillary) {
        m.msg_control = o->msg->msg_control;
        m.msg_controllen = o->msg->msg_controllen;
    }
    return ns_sys_sendmsg(fd, &m, flags);
}

static NS_FLAT ssize_t raw_send(int fd, const struct out *o, const struct iovec *iov, size_t n, bool more)
{
    int flags = o->flags | MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    bool ancillary = o->msg && o->msg->msg_controllen > 0 && o->done == 0;
    if (n == 1 && !ancillary)
        return ns_sys_send(fd, iov->iov_base, iov->iov_len, flags);
    return raw_sendmsg(fd, o, iov, n, ancillary, flags);
}

/* Room in the ring for up to `want` bytes; what the peer has acknowledged makes
 * room first, memory second. tx held. */
static size_t make_room(struct ns_sock *s, int fd, size_t want)
{
    struct ns_ring *ring = &s->session.ring;
    if (ns_ring_free(ring) >= want)
        return want;
    if (want > ns_engine.policy.ring_bytes / 2) /* the limit may count as the next lower power of two */
        want = ns_engine.policy.ring_bytes / 2;
    if (ring->capacity > 0) {
        int64_t unacknowledged = ns_ledger_unacknowledged(fd);
        if (unacknowledged >= 0)
            ns_session_trim(&s->session, (uint64_t)unacknowledged);
        ns_ring_narrow(ring);
        if (ns_ring_free(ring) >= want)
            return want;
    }
    if (ns_ring_reserve(ring, want, ns_engine.policy.ring_bytes) == 0)
        return want;
    return ns_ring_free(ring);
}

static void remember(struct ns_sock *s, const struct iovec *iov, size_t n, size_t sent)
{
    for (size_t i = 0; i < n && sent > 0; i++) {
        size_t len = iov[i].iov_len < sent ? iov[i].iov_len : sent;
        ns_ring_put(&s->session.ring, iov[i].iov_base, len);
        sent -= len;
    }
    s->session.carrier.tx_position = s->session.ring.head;
}

/* One piece on a working connection; tx held. */
static NS_FLAT ssize_t push(struct ns_sock *s, int fd, struct out *o)
{
    size_t left = o->total - o->done;
    size_t want = left < PIECE_BYTES ? left : PIECE_BYTES;
    want = make_room(s, fd, want);
    if (want == 0 && ns_ring_used(&s->session.ring) > 0) {
        /* Until more is acknowledged, or an exchange is over (pinned): as if the
         * socket's own buffer were full. The helper looks (detect.c). */
        ns_sock_set_full(s, true);
        return AGAIN_LATER;
    }
    if (want == 0) {
        ns_error("no memory for the retransmission buffer: session becomes plain TCP");
        s->unfaithful = true;
        ns_sock_event(s, NS_EVENT_DEMOTED);
        return AGAIN_LATER;
    }
    struct iovec iov[PIECE_IOVS];
    iov[0] = (struct iovec){ (char *)o->iov->iov_base + o->done, want };
    size_t n = o->iovs == 1 ? 1 : gather(o, want, iov);
    ssize_t sent = raw_send(fd, o, iov, n, want < left);
    if (sent > 0)
        remember(s, iov, n, (size_t)sent);
    if (sent > 0 && (o->flags & MSG_OOB))
        s->tx_urgent = s->session.ring.head;
    return sent;
}

/* What is left of NEW after a short write; the connection is good for nothing
 * else until it is out. tx held. */
static int finish_offer(int fd, const uint8_t *p, size_t len)
{
    while (len > 0) {
        struct pollfd w = { .fd = fd, .events = POLLOUT };
        int ready = ns_sys_ppoll(&w, 1, &(struct timespec){ 1, 0 }, NULL);
        if (ready == -EINTR)
            continue;
        if (ready <= 0)
            return -EPIPE;
        ssize_t n = ns_sys_send(fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && n != -EAGAIN)
            return (int)n;
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

/* Makes NEW when it is needed: many a connection is closed before; tx held. */
static bool make_offer(struct ns_sock *s)
{
    uint8_t id[16], instance[16];
    const struct ns_identity *own = ns_identity();
    if (s->offer_bytes)
        return true;
    if (!own || ns_random(id, sizeof id) < 0)
        return false;
    memcpy(instance, s->session.instance, sizeof instance);
    s->offer_bytes = (uint8_t)ns_session_offer(&s->session, own, &s->master, instance, id, s->offer);
    explicit_bzero(&s->master, sizeof s->master);
    return true;
}

/* Whether nothing was written yet: by stdio that has got a duplicate, a child process,
 * io_uring. NEW would come behind those bytes, in the midst of the stream. */
static bool untouched(int fd)
{
    static const struct ns_carrier fresh = { .opener = true };
    struct ns_ledger l;
    return ns_ledger_read(fd, &l) == 0 && ns_carrier_faithful(&fresh, l.acknowledged, l.unacknowledged, false);
}

/* A peer that has ended its stream has closed, most likely: NEW would be answered by a reset, as
 * the application's first write is to be. */
static bool turned_away(int fd)
{
    struct ns_ledger l;
    return ns_ledger_read(fd, &l) == 0 && l.fin_received;
}

/* NEW and the first bytes in one segment; tx held. */
static ssize_t push_offer(struct ns_sock *s, int fd, struct out *o)
{
    if (!untouched(fd)) {
        ns_info("bytes were written around the shim: the connection stays plain TCP");
        ns_sock_event(s, NS_EVENT_DEMOTED);
        return AGAIN_LATER;
    }
    if (turned_away(fd)) {
        ns_info("the peer has ended its stream already: the connection stays plain TCP");
        ns_sock_event(s, NS_EVENT_DEMOTED);
        return AGAIN_LATER;
    }
    if (s->session.version == 2 && !ns_ask_promised(s)) {
        ns_info("the peer has taken its answer back: the connection stays plain TCP");
        ns_sock_event(s, NS_EVENT_DEMOTED);
        return AGAIN_LATER;
    }
    if (!make_offer(s)) {
        ns_sock_event(s, NS_EVENT_DEMOTED);
        return AGAIN_LATER;
    }
    struct iovec iov[PIECE_IOVS + 1] = { { s->offer, s->offer_bytes } };
    size_t left = o->total - o->done;
    size_t want = make_room(s, fd, left < PIECE_BYTES ? left : PIECE_BYTES);
    if (want == 0 && left > 0) {
        ns_sock_event(s, NS_EVENT_DEMOTED);
        return AGAIN_LATER;
    }
    size_t n = gather(o, want, iov + 1);
    ssize_t sent = raw_send(fd, o, iov, n + 1, want < left);
    if (sent < 0)
        return sent;
    if (sent < s->offer_bytes) {
        int err = finish_offer(fd, s->offer + sent, s->offer_bytes - (size_t)sent);
        if (err)
            return err;
        sent = s->offer_bytes;
    }
    ns_sock_event(s, NS_EVENT_NEW);
    sent -= s->offer_bytes;
    remember(s, iov + 1, n, (size_t)sent);
    if (sent > 0 && (o->flags & MSG_OOB))
        s->tx_urgent = s->session.ring.head;
    return sent > 0 || left == 0 ? sent : -EAGAIN;
}

int ns_offer_now(struct ns_sock *s, int fd)
{
    struct out nothing = { .iovs = 0 };
    enum ns_state after = NS_OFFERING;
    ssize_t r = 0;
    if (!ns_lock(&s->tx)) {
        r = -EAGAIN;
    } else if (s->session.state == NS_OFFERING) {
        r = push_offer(s, fd, &nothing);
        after = s->session.state;
    }
    ns_unlock(&s->tx);
    if (after == NS_CONNECTED)
        ns_sock_born(s);
    else if (after == NS_PLAIN)
        ns_sock_forget(s);
    return r < 0 ? (int)r : 0;
}

static bool tx_blocked(const struct ns_sock *s)
{
    enum ns_state state = ns_sock_state(s);
    return state == NS_SUSPENDED || state == NS_ASKING || ns_sock_held(s) ||
           (state == NS_CONNECTED && !__atomic_load_n(&s->tx_open, __ATOMIC_SEQ_CST));
}

/* As far as one look takes it; tx held. */
static NS_FLAT ssize_t attempt(struct ns_sock *s, int fd, struct out *o)
{
    /* What the kernel would say on a connection that has our FIN. */
    if (s->session.tx_ended && ns_session_protected(&s->session))
        return -EPIPE;
    switch (s->session.state) {
    case NS_CONNECTED:
    case NS_AWAITING:
        return s->tx_open || s->session.state == NS_AWAITING ? push(s, fd, o) : AGAIN_LATER;
    case NS_OFFERING:
        return push_offer(s, fd, o);
    case NS_ASKING:
        if (ns_time_before(ns_now(), s->hold_until))
            return AGAIN_LATER;
        ns_info("no answer to HELLO within %lld ms and two round trips: the connection stays plain TCP",
                (long long)ns_engine.policy.hold_margin_ms);
        ns_sock_event(s, NS_EVENT_ANSWER_NO);
        return AGAIN_LATER;
    default:
        return AGAIN_LATER;
    }
}

/* The connection was found dead by this write, or does not take any now. */
static ssize_t blocked(struct ns_sock *s, struct ns_slot *slot, int fd, struct out *o, bool waits_for_session,
                       struct ns_time *deadline)
{
    bool asking = ns_sock_state(s) == NS_ASKING;
    bool now = ns_nonblocking(fd, o->flags);
    if (!ns_sock_is(s, fd)) /* and that is a relay's setting */
        return 0;
    if (now)
        return o->done > 0 ? (ssize_t)o->done : -EAGAIN;
    if (deadline->ns == 0)
        *deadline = ns_timeout_at(fd, SO_SNDTIMEO);
    struct ns_wait w = { fd, waits_for_session ? 0 : POLLOUT, *deadline, .timed = deadline->ns != NS_NEVER.ns,
                         .done = o->done > 0, .since = &o->since,
                         .still = waits_for_session ? tx_blocked : ns_sock_writable_state };
    if (asking && ns_time_before(s->hold_until, w.deadline))
        w.deadline = s->hold_until;
    if (asking)
        __atomic_fetch_add(&s->holders, 1, __ATOMIC_SEQ_CST);
    int err = ns_block(s, slot, &w);
    if (asking)
        __atomic_fetch_sub(&s->holders, 1, __ATOMIC_SEQ_CST);
    if (err < 0 && !(err == -EAGAIN && w.deadline.ns != deadline->ns))
        return o->done > 0 ? (ssize_t)o->done : err;
    return 0;
}

bool ns_sock_writable_state(const struct ns_sock *s)
{
    return !tx_blocked(s);
}

static ssize_t failed(struct ns_sock *s)
{
    int e = __atomic_exchange_n(&s->failure, 0, __ATOMIC_ACQ_REL);
    return e ? -e : -EPIPE;
}

/* What comes of a look that did not end it; in the slot. Returns bytes or an error
 * to report, or 0 to go round again. */
static ssize_t follow(struct ns_sock *s, struct ns_slot *slot, int fd, struct out *o, struct ns_time *deadline,
                      const struct looked *l)
{
    ssize_t n = l->result;
    if (l->before == NS_OFFERING && l->after == NS_CONNECTED)
        ns_sock_born(s);
    if (n > 0) {
        ns_sock_touch(s);
        o->done += (size_t)n;
        return o->done == o->total ? (ssize_t)o->done : 0;
    }
    if (l->after == NS_PLAIN) {
        ns_sock_forget(s);
        return o->done > 0 ? (ssize_t)o->done : NS_NOT_OURS;
    }
    if (l->after == NS_FAILED)
        return o->done > 0 ? (ssize_t)o->done : failed(s);
    if (l->after == NS_CONNECTING) {
        /* Written before it is known to stand: NEW could come after these bytes. */
        if (!ns_client_established(s, fd))
            ns_sock_demote(s, "written to before it was connected");
        return ns_sock_at(fd) == s ? 0 : NS_NOT_OURS;
    }
    if (n == AGAIN_LATER && (l->after == NS_ASKING || l->after == NS_SUSPENDED) && o->done == 0 &&
        ns_nonblocking(fd, o->flags) && ns_await_answer(s))
        return 0;
    if (n == AGAIN_LATER && ns_sock_held(s)) {
        /* One that awaits its first bytes has no need of the helper but for this. */
        if (ns_sock_state(s) == NS_AWAITING && ns_helper_start() == 0)
            ns_helper_look();
        ns_sock_touch(s);
        ns_watch_mute_now(s);
    }
    if (n == AGAIN_LATER && s->remains == NS_REMAINS_HANDED)
        return -EPIPE; /* the process has ended, but for what runs after us */
    if (n == AGAIN_LATER || n == -EAGAIN)
        return blocked(s, slot, fd, o, n == AGAIN_LATER, deadline);
    if (n < 0 && ns_error_is_loss((int)n) && !(n == -EPIPE && l->ended) && ns_sock_lost(s, l->generation, (int)n))
        return 0;
    return n < 0 && o->done > 0 ? (ssize_t)o->done : n;
}

/* One round: the same. tx keeps the session from being freed, and is let go first
 * where that was all; where more is to be done the slot takes over. */
static NS_FLAT ssize_t round_once(struct ns_sock *s, int fd, struct out *o, struct ns_time *deadline)
{
    struct ns_slot *slot = ns_slot_self();
    if (!slot)
        return -ENOBUFS;
    if (!ns_lock(&s->tx)) {
        /* A signal handler that was not put off writes on top of a write: the
         * ring cannot know where these bytes went. */
        __atomic_store_n(&s->unfaithful, true, __ATOMIC_SEQ_CST);
        ns_unlock(&s->tx);
        return NS_NOT_OURS;
    }
    if (!ns_sock_is(s, fd)) {
        ns_unlock(&s->tx);
        return 0;
    }
    struct looked l = { .generation = s->generation, .before = s->session.state, .ended = s->session.tx_ended };
    l.result = attempt(s, fd, o);
    l.after = s->session.state;
    if (__builtin_expect(l.before == NS_CONNECTED && l.result == (ssize_t)(o->total - o->done) && l.result > 0, 1)) {
        ns_sock_touch(s);
        ns_unlock(&s->tx);
        return (ssize_t)o->total;
    }
    bool inside = ns_slot_enter(slot, s);
    ns_unlock(&s->tx);
    if (!inside)
        return -ENOBUFS;
    ssize_t r = follow(s, slot, fd, o, deadline, &l);
    ns_slot_leave(slot);
    return r;
}

/* The session is none any more, and a part is out: the rest, as the kernel would go on. */
static __attribute__((noinline)) ssize_t send_rest(int fd, struct out *o)
{
    ssize_t n = 1;
    if (o->done == 0)
        return NS_NOT_OURS;
    while (n > 0 && o->done < o->total && !ns_nonblocking(fd, o->flags)) {
        struct iovec iov[PIECE_IOVS];
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = gather(o, o->total - o->done, iov) };
        n = ns_sys_sendmsg(fd, &m, o->flags | MSG_NOSIGNAL);
        o->done += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)o->done;
}

static NS_FLAT ssize_t send_all(int fd, struct out *o)
{
    struct ns_time deadline = { 0 };
    for (;;) {
        struct ns_sock *s = ns_sock_at(fd);
        if (!s)
            return send_rest(fd, o);
        ssize_t r = round_once(s, fd, o, &deadline);
        if (r != 0 || o->total == 0)
            return r;
    }
}

/* Kinds of sending that a replay could not repeat. */
static bool unrepeatable(int flags)
{
    return flags & (MSG_ZEROCOPY | MSG_FASTOPEN);
}

/* It waits for nothing, but an end or an error is told (tcp_sendmsg). */
static ssize_t send_nothing(struct ns_sock *s)
{
    switch (ns_sock_state(s)) {
    case NS_CONNECTED:
    case NS_SUSPENDED:
        return __atomic_load_n(&s->session.tx_ended, __ATOMIC_SEQ_CST) ? -EPIPE : 0;
    case NS_FAILED:
        return failed(s);
    default: /* the kernel has the connection, and says what is right */
        return NS_NOT_OURS;
    }
}

ssize_t ns_send(int fd, const void *buf, size_t len, int flags)
{
    struct ns_sock *s = ns_sock_at(fd);
    if (!s)
        return NS_NOT_OURS;
    if (len == 0)
        return send_nothing(s);
    if (unrepeatable(flags)) {
        int r = ns_fd_demote(fd, "zero-copy data", !ns_nonblocking(fd, flags));
        return r < 0 ? r : NS_NOT_OURS;
    }
    struct iovec iov = { (void *)buf, len };
    struct out o = { .iov = &iov, .iovs = 1, .total = len, .flags = flags, .since = ns_handled };
    return send_all(fd, &o);
}

ssize_t ns_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct ns_sock *s = ns_sock_at(fd);
    if (!s)
        return NS_NOT_OURS;
    if (unrepeatable(flags)) {
        int r = ns_fd_demote(fd, "zero-copy data", !ns_nonblocking(fd, flags));
        return r < 0 ? r : NS_NOT_OURS;
    }
    if (msg->msg_iovlen > IOV_MAX)
        return -EMSGSIZE;
    struct out o = { .msg = msg, .iov = msg->msg_iov, .iovs = msg->msg_iovlen, .flags = flags, .since = ns_handled };
    for (size_t i = 0; i < msg->msg_iovlen; i++)
        o.total += msg->msg_iov[i].iov_len;
    return o.total == 0 ? send_nothing(s) : send_all(fd, &o);
}
