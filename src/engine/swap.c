#include "engine/swap.h"

#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/gate.h"
#include "engine/inbox.h"
#include "engine/internal.h"
#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/sockopts.h"
#include "engine/sys.h"
#include "engine/uring.h"
#include "engine/watch.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>

#define READERS_MS  1000       /* how long a thread may take to leave a read */
#define PIECE       65536

/* ---- giving the old connection up ---- */

/* The socket the session lives on, as a descriptor of our own; table held. */
static int own_duplicate(struct ns_sock *s)
{
    if (s->o.fd >= 0 && !ns_object_verify(&s->o, s->o.fd))
        return -EBADF;
    int fd = s->o.fd >= 0 ? s->o.fd : s->linger_fd;
    return fd < 0 ? -EBADF : ns_internal(ns_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

/*
 * From here on no segment reaches the socket: none is acknowledged that is not
 * counted below. A filter that drops everything needs no privilege.
 */
void ns_swap_stop_reception(int fd)
{
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = { .len = 1, .filter = &drop };
    ns_sys_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

void ns_swap_start_reception(int fd)
{
    int unused = 0;
    ns_sys_setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
}

static bool readers_left(struct ns_sock *s, int fd)
{
    struct ns_time end = ns_time_add(ns_now(), ns_time_ms(READERS_MS));
    for (int i = 0; ns_slots_reading(s) || !ns_gate_open(s); i++) {
        if (!ns_time_before(ns_now(), end))
            return false;
        /* Wakes whoever sleeps in a read; repeated for one that was about to. */
        if (i % 16 == 0)
            ns_sys_shutdown(fd, SHUT_RD);
        ns_slots_wake();
        if (i < 50)
            sched_yield();
        else
            ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 200000 }, NULL);
    }
    return true;
}

static void keep_urgent(struct ns_sock *s, uint8_t byte)
{
    __atomic_store_n(&s->rx_urgent, 256 + byte, __ATOMIC_SEQ_CST);
}

/*
 * Keeps an urgent byte that has not been read. Of a connection that has died the kernel
 * gives none (ENOTCONN), but in line: then drain() meets it, at the mark. Returns whether so.
 */
static bool take_urgent(struct ns_sock *s, int fd)
{
    uint8_t byte;
    int in_line = 1;
    ssize_t n = ns_sys_recv(fd, &byte, 1, MSG_OOB | MSG_DONTWAIT);
    if (n == 1)
        keep_urgent(s, byte);
    return n == -ENOTCONN && ns_sys_setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &in_line, sizeof in_line) == 0;
}

/* The setting that the application has, and the next socket gets. */
static void put_out_of_line(int fd)
{
    int in_line = 0;
    ns_sys_setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &in_line, sizeof in_line);
}

static bool at_mark(int fd)
{
    int at = 0;
    return ns_sys_ioctl(fd, SIOCATMARK, &at) == 0 && at;
}

/* Moves the receive queue to the inbox; rx held. What there is no room for stays in the
 * queue, next in order. */
static int drain(struct ns_sock *s, int fd, bool in_line, bool *error_seen)
{
    static uint8_t buf[PIECE] NS_LARGE; /* the helper's alone */
    for (;;) {
        /* Room first: what the kernel has given and we could not keep would be a
         * hole, since it is counted as received. At an urgent mark it says 0. */
        int unread = 0;
        ns_sys_ioctl(fd, SIOCINQ, &unread);
        size_t want = unread < 1 ? 1 : unread < PIECE ? (size_t)unread : PIECE;
        int err = ns_inbox_reserve(s, want);
        if (err)
            return err;
        /* No read goes across the mark. */
        bool urgent = in_line && at_mark(fd);
        ssize_t n = ns_sys_recv(fd, buf, urgent ? 1 : want, MSG_DONTWAIT);
        if (n > 0 && urgent) {
            keep_urgent(s, buf[0]);
        } else if (n > 0) {
            ns_inbox_put(s, buf, (size_t)n);
        } else if (n != -EINTR) {
            *error_seen |= n < 0 && n != -EAGAIN && n != -ENOTCONN;
            ns_ring_release(&s->inbox);
            return 0;
        }
    }
}

/* Drains until the kernel's count stands still: a segment that was past the
 * filter when it was attached may still be on its way. rx held. */
static int drain_and_count(struct ns_sock *s, int fd, struct ns_ledger *l)
{
    bool error_seen = false;
    bool in_line = take_urgent(s, fd), still = false;
    int err = ns_ledger_read(fd, l);
    while (err == 0 && !still) {
        uint64_t before = l->received;
        err = drain(s, fd, in_line, &error_seen);
        if (err == 0)
            err = ns_ledger_read(fd, l);
        still = l->received == before;
    }
    if (in_line)
        put_out_of_line(fd);
    if (err < 0)
        return err;
    if (l->fin_received)
        __atomic_store_n(&s->rx_ended, true, __ATOMIC_SEQ_CST);
    return 0;
}

/* Suspends it, if it can go on elsewhere: whoever made it plain, or wrote around
 * it, was here before. tx not held. */
static bool suspend(struct ns_sock *s, int fd)
{
    ns_lock(&s->tx);
    bool going_on = ns_session_protected(&s->session) && ns_sock_faithful(s, fd) && ns_dormant_move(s);
    if (going_on) {
        ns_sock_event(s, NS_EVENT_LOST);
        __atomic_store_n(&s->tx_open, false, __ATOMIC_SEQ_CST);
        __atomic_store_n(&s->rx_open, false, __ATOMIC_SEQ_CST);
    }
    ns_unlock(&s->tx);
    return going_on;
}

static int retire(struct ns_sock *s, int fd)
{
    struct ns_ledger l;
    struct ns_hold hold;
    ns_swap_stop_reception(fd);
    ns_table_hold(&hold);
    ns_watch_suspend(&s->o);
    ns_table_unhold(&hold);
    ns_sys_shutdown(fd, SHUT_RD);
    if (!readers_left(s, fd)) {
        int unread = 0;
        ns_sys_ioctl(fd, FIONREAD, &unread);
        /* With nothing to read, whoever hangs there (in a signal handler, say)
         * cannot get anything out of order. */
        if (unread > 0)
            return -EBUSY;
    }
    ns_table_hold(&hold);
    ns_lock(&s->rx);
    int err = drain_and_count(s, fd, &l);
    ns_inbox_mark(s, fd);
    if (ns_inbox_readable(s))
        ns_watch_stand_in(&s->o, true);
    if (err == 0) {
        ns_lock(&s->tx);
        bool ended = __atomic_load_n(&s->rx_ended, __ATOMIC_SEQ_CST);
        s->received = ns_carrier_received(&s->session.carrier, l.received, ended);
        s->delivered = s->session.carrier.adopted
                           ? ns_carrier_acknowledged(&s->session.carrier, l.unacknowledged, s->fin_queued)
                           : s->session.ring.tail;
        __atomic_store_n(&s->retired, true, __ATOMIC_SEQ_CST);
        ns_unlock(&s->tx);
    }
    ns_unlock(&s->rx);
    ns_table_unhold(&hold);
    ns_slots_wake(); /* what was drained can be read at once */
    return err;
}

void ns_swap_abort(int fd)
{
    struct sockaddr none = { .sa_family = AF_UNSPEC };
    ns_sys_connect(fd, &none, sizeof none);
}

static int peer_name(int fd, struct sockaddr *address, socklen_t *length)
{
    /* Unlike getpeername(2) it tells of a connection that has been reset, too; and
     * does so only for a length that the address has (sock_getsockopt). */
    *length = sizeof(struct sockaddr_in6);
    int r = ns_sys_getsockopt(fd, SOL_SOCKET, SO_PEERNAME, address, length);
    if (r == 0)
        return 0;
    *length = sizeof(struct sockaddr_in);
    return ns_sys_getsockopt(fd, SOL_SOCKET, SO_PEERNAME, address, length);
}

void ns_swap_learn_ends(struct ns_sock *s, int fd)
{
    ns_name_learn(&s->local, fd, ns_sys_getsockname);
    ns_name_learn(&s->peer, fd, peer_name);
}

/* Takes hold of the connection, so that nobody else ends it; -ESTALE when it is
 * not to be given up. Returns a duplicate. */
static int begin_retiring(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    /* Whoever sleeps in a ring has the old connection for ever, and would see its end. */
    if (!s->retired && ns_uring_here()) {
        ns_table_unhold(&hold);
        ns_info("the process uses io_uring: its sessions are not moved");
        return -ESTALE;
    }
    /* Not now: who calls for it next decides. */
    int fd = ns_object_kind(&s->o) == NS_KIND_DORMANT ? -EBUSY : own_duplicate(s);
    if (fd >= 0 && suspend(s, fd)) {
        s->retiring = true;
        ns_swap_learn_ends(s, fd);
        ns_sockopts_remember(fd, s->forgotten);
    } else if (fd >= 0) {
        ns_internal_close(fd);
        fd = -ESTALE;
    }
    ns_table_unhold(&hold);
    return fd;
}

int ns_swap_retire(struct ns_sock *s)
{
    struct ns_hold hold;
    if (s->retired)
        return ns_sock_state(s) == NS_SUSPENDED ? 0 : -ESTALE;
    ns_swap_stop_replay(s);
    int fd = begin_retiring(s);
    if (fd < 0)
        return fd;
    int err = retire(s, fd);
    /* RST, never FIN: the peer must not take this for the end of the stream.
     * And whoever sleeps in poll on the old socket wakes. */
    if (err == 0)
        ns_swap_abort(fd);
    ns_internal_close(fd);
    ns_table_hold(&hold);
    s->retiring = false;
    ns_table_unhold(&hold);
    return err;
}

uint64_t ns_swap_received(struct ns_sock *s)
{
    struct ns_ledger l;
    int fd = s->o.fd >= 0 ? s->o.fd : s->linger_fd;
    if (s->retired || ns_ledger_read(fd, &l) < 0)
        return s->received;
    bool ended = __atomic_load_n(&s->rx_ended, __ATOMIC_SEQ_CST);
    return ns_carrier_received(&s->session.carrier, l.received, ended || l.fin_received);
}

/* ---- putting another one in its place ---- */

struct install {
    struct ns_sock *s;
    int fd;
};

static void put_under(void *ctx, int number)
{
    struct install *i = ctx;
    if (!ns_object_verify(&i->s->o, number)) {
        /* Reused behind our back: not ours any more. */
        if (ns_table_remove(number))
            ns_sock_let_go(i->s);
        return;
    }
    int flags = ns_sys_fcntl(number, F_GETFD, 0);
    ns_sys_dup3(i->fd, number, flags > 0 && (flags & FD_CLOEXEC) ? O_CLOEXEC : 0);
}

static void copy_file_flags(int from, int to)
{
    int flags = ns_sys_fcntl(from, F_GETFL, 0);
    struct f_owner_ex owner;
    if (ns_syscall6(SYS_fcntl, from, F_GETOWN_EX, (long)&owner, 0, 0, 0) == 0 && owner.pid) {
        ns_syscall6(SYS_fcntl, to, F_SETOWN_EX, (long)&owner, 0, 0, 0);
        ns_sys_fcntl(to, F_SETSIG, ns_sys_fcntl(from, F_GETSIG, 0));
    }
    if (flags >= 0)
        ns_sys_fcntl(to, F_SETFL, flags & (O_NONBLOCK | O_APPEND));
}

/*
 * SIGIO tells the number by which O_ASYNC was set (si_fd), so that is the application's.
 * What has come before gets its signal now: to set SO_RCVLOWAT is to look (tcp_set_rcvlowat).
 */
static void signal_arrivals(int fd)
{
    int low = 1;
    socklen_t len = sizeof low;
    ns_sys_fcntl(fd, F_SETFL, ns_sys_fcntl(fd, F_GETFL, 0) | O_ASYNC);
    if (ns_sys_getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, &len) == 0)
        ns_sys_setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
}

static ino_t inode_of(int fd)
{
    struct stat st;
    return ns_sys_fstat(fd, &st) == 0 ? st.st_ino : 0;
}

void ns_swap_copy_settings_within(int from, int to)
{
    ns_sockopts_copy_within(from, to);
    copy_file_flags(from, to);
}

void ns_swap_put_under(struct ns_sock *s, int fd)
{
    struct install i = { s, fd };
    bool signals = s->o.fd >= 0 && (ns_sys_fcntl(s->o.fd, F_GETFL, 0) & O_ASYNC);
    if (s->o.fds > 0)
        ns_object_each_fd(&s->o, put_under, &i);
    if (signals && s->o.fd >= 0)
        signal_arrivals(s->o.fd);
    s->o.inode = inode_of(fd);
}

static void replace(struct ns_sock *s, int fd)
{
    int old = s->o.fd >= 0 ? s->o.fd : s->linger_fd;
    ns_sockopts_copy(old, fd, s->forgotten);
    copy_file_flags(old, fd);
    if (s->linger_fd >= 0)
        ns_sys_dup3(fd, s->linger_fd, O_CLOEXEC);
    ns_swap_put_under(s, fd);
    s->before_local = s->last_local;
    s->before_peer = s->last_peer;
    s->last_local.length = s->last_peer.length = 0;
    ns_name_learn(&s->last_local, fd, ns_sys_getsockname);
    ns_name_learn(&s->last_peer, fd, ns_sys_getpeername);
}

static void replay_more(struct ns_source *source, uint32_t events, struct ns_time now);

static struct ns_sock *of_replay(struct ns_source *source)
{
    return (struct ns_sock *)((char *)source - offsetof(struct ns_sock, replay));
}

void ns_swap_stop_replay(struct ns_sock *s)
{
    if (s->replay.fd <= 0)
        return;
    ns_loop_remove(&s->replay);
    ns_internal_close(s->replay.fd);
    s->replay.fd = 0;
}

/* An urgent byte is sent again as one: what is before it goes first, then it
 * alone. Returns MSG_OOB for the latter. */
static int stop_at_urgent(const struct ns_sock *s, struct iovec *iov, size_t *count)
{
    uint64_t at = s->session.carrier.tx_position;
    if (s->tx_urgent <= at)
        return 0;
    size_t before = (size_t)(s->tx_urgent - 1 - at);
    size_t keep = before ? before : 1;
    if (iov[0].iov_len >= keep) {
        iov[0].iov_len = keep;
        *count = 1;
    } else if (*count == 2 && iov[0].iov_len + iov[1].iov_len > keep) {
        iov[1].iov_len = keep - iov[0].iov_len;
    }
    return before ? 0 : MSG_OOB;
}

/* Sends the ring from the carrier's position; tx held. Returns 0 when all is
 * out, -EAGAIN when the socket takes no more now, or the connection's error. */
static int replay_some(struct ns_sock *s, int fd)
{
    struct ns_carrier *c = &s->session.carrier;
    while (c->tx_position < s->session.ring.head) {
        struct iovec iov[2];
        struct msghdr m = { .msg_iov = iov };
        m.msg_iovlen = (size_t)ns_ring_get(&s->session.ring, c->tx_position, iov);
        int urgent = stop_at_urgent(s, iov, &m.msg_iovlen);
        ssize_t n = ns_sys_sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL | urgent);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return (int)n;
        c->tx_position += (uint64_t)n;
        s->replayed += (uint64_t)n;
    }
    return 0;
}

static void replay_more(struct ns_source *source, uint32_t events, struct ns_time now)
{
    struct ns_sock *s = of_replay(source);
    ns_lock(&s->tx);
    int err = replay_some(s, source->fd);
    if (err == 0) {
        if (s->session.tx_ended)
            s->fin_queued = ns_sys_shutdown(source->fd, SHUT_WR) == 0;
        __atomic_store_n(&s->tx_open, true, __ATOMIC_SEQ_CST);
    }
    uint32_t generation = s->generation;
    ns_unlock(&s->tx);
    if (err == -EAGAIN)
        return;
    ns_swap_stop_replay(s);
    if (err == 0) {
        struct ns_hold hold;
        ns_table_hold(&hold);
        ns_watch_renew(&s->o);
        ns_table_unhold(&hold);
        ns_debug("descriptor %d: nothing left to send again", ns_sock_number(s));
    } else {
        ns_sock_lost(s, generation, err);
    }
    ns_slots_wake();
}

void ns_swap_replay(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    int fd = own_duplicate(s);
    ns_table_unhold(&hold);
    if (fd < 0)
        return;
    s->replay = (struct ns_source){ .fd = fd, .ready = replay_more };
    ns_loop_add(&s->replay, EPOLLOUT);
}

static void open_up(struct ns_sock *s, int fd, const struct ns_pair *pair, bool alive)
{
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    __atomic_fetch_add(&s->generation, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&ns_count_swaps, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->retired, false, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->resumed, true, __ATOMIC_SEQ_CST);
    s->pair = *pair;
    s->resumes++;
    s->error = 0; /* before anybody can lose this one */
    ns_sock_event(s, NS_EVENT_RESUMED);
    ns_unlock(&s->tx);
    ns_inbox_mark(s, fd);
    if (alive)
        ns_sock_open_rx(s);
    ns_unlock(&s->rx);
}

void ns_swap_install(struct ns_sock *s, int fd, const struct ns_pair *pair, struct ns_time now)
{
    struct ns_hold hold;
    uint64_t before = s->replayed;
    ns_table_hold(&hold);
    if (ns_sock_state(s) != NS_SUSPENDED) { /* the application has ended it meanwhile */
        ns_table_unhold(&hold);
        ns_swap_abort(fd);
        ns_internal_close(fd);
        return;
    }
    replace(s, fd);
    ns_lock(&s->tx);
    /* As much as fits goes before the application can look: in most cases all. */
    int err = replay_some(s, fd);
    bool all = err == 0;
    s->fin_queued = all && s->session.tx_ended && ns_sys_shutdown(fd, SHUT_WR) == 0;
    if (s->rx_shut)
        ns_sys_shutdown(fd, SHUT_RD);
    __atomic_store_n(&s->tx_open, all, __ATOMIC_SEQ_CST);
    ns_unlock(&s->tx);
    open_up(s, fd, pair, all || err == -EAGAIN);
    ns_watch_resume(&s->o);
    ns_watch_stand_in(&s->o, ns_inbox_readable(s));
    if (!all && err != -EAGAIN)
        ns_sock_lost(s, s->generation, err);
    ns_table_unhold(&hold);
    ns_debug("Sending %llu bytes lost data", (unsigned long long)(s->replayed - before));

    if (all || err != -EAGAIN) {
        ns_internal_close(fd);
    } else {
        s->replay = (struct ns_source){ .fd = fd, .ready = replay_more };
        ns_loop_add(&s->replay, EPOLLOUT);
    }
    ns_slots_wake();
}
