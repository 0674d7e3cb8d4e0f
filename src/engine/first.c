#include "engine/first.h"

#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/sys.h"
#include "engine/thread.h"
#include "engine/watch.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <string.h>

static struct ns_log_limit strange; /* rx of any; a line more or less is no harm */

/* ---- a part of NEW, and no more for now ---- */

static void set_mark(int fd, int bytes)
{
    ns_sys_setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

/* rx held. The kernel looks again when the mark changes (tcp_set_rcvlowat), and
 * wakes edge-triggered waits too. */
static void unmark(struct ns_sock *s, int fd)
{
    if (s->low_water == 0)
        return;
    set_mark(fd, s->low_water);
    __atomic_store_n(&s->low_water, 0, __ATOMIC_RELAXED);
}

/*
 * Waits must not report what the application cannot have, nor look again and
 * again: until `whole` bytes are here, or the end, the kernel has nothing to
 * report. When time is up the helper puts the application's mark back.
 */
static enum ns_first stall(struct ns_sock *s, int fd, int whole)
{
    int mark = s->low_water;
    socklen_t len = sizeof mark;
    if (!ns_helper_running() || (mark == 0 && ns_sys_getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &mark, &len) < 0))
        return NS_FIRST_PARTIAL;
    bool begins = s->low_water == 0;
    __atomic_store_n(&s->low_water, mark, __ATOMIC_RELAXED);
    set_mark(fd, whole > mark ? whole : mark);
    if (begins)
        ns_helper_post(s, NS_TODO_STALLED);
    return NS_FIRST_STALLED;
}

/* ---- what it is ---- */

static enum ns_first plain(struct ns_sock *s, int fd)
{
    ns_lock(&s->tx);
    ns_sock_event(s, NS_EVENT_NOT_NEW);
    ns_unlock(&s->tx);
    unmark(s, fd);
    return NS_FIRST_PLAIN;
}

static enum ns_first established(struct ns_sock *s, int fd, size_t bytes)
{
    uint8_t gone[NS_PACKET_BYTES_NEW];
    if (ns_sys_recv(fd, gone, bytes, MSG_DONTWAIT) != (ssize_t)bytes)
        return plain(s, fd);
    unmark(s, fd);
    ns_lock(&s->tx);
    s->session.carrier.rx_header_bytes = (uint32_t)bytes;
    ns_sock_event(s, NS_EVENT_NEW);
    ns_unlock(&s->tx);
    __atomic_store_n(&s->rx_open, true, __ATOMIC_SEQ_CST);
    return NS_FIRST_NEW;
}

/*
 * A NEW that is not for us, or was made with another pre-shared key: the answer to
 * HELLO was another server's, behind the same address (a load balancer, SO_REUSEPORT,
 * a server that was started again). It is no part of the client's stream all the
 * same. That an application's stream begins so by itself is out of the question:
 * eight bytes are given, four of them zero.
 */
static enum ns_first not_for_us(struct ns_sock *s, int fd, const struct ns_new *p)
{
    uint8_t gone[NS_PACKET_BYTES_NEW];
    if (p->flags == 0)
        ns_sys_recv(fd, gone, sizeof gone, MSG_DONTWAIT);
    if (p->flags == 0 && ns_log_allowed(&strange, ns_now()))
        ns_info("refused: a NEW for another server, or with another key: the connection is plain TCP");
    return plain(s, fd);
}

/* A process that has it in common with another, which may read it, too, cannot keep
 * what NEW asks for. rx held. */
static bool may_begin(struct ns_sock *s)
{
    ns_lock(&s->tx);
    bool may = !__atomic_load_n(&s->unfaithful, __ATOMIC_ACQUIRE) && ns_dormant_ours(s);
    ns_unlock(&s->tx);
    return may;
}

static enum ns_first version2(struct ns_sock *s, int fd, const uint8_t *packet)
{
    struct ns_new p;
    struct ns_master master;
    const struct ns_identity *own = ns_identity();
    if (ns_wire_get_new(packet, NS_PACKET_BYTES_NEW, &p) <= 0)
        return plain(s, fd);
    if (!own || !may_begin(s) || memcmp(p.instance8, own->instance, sizeof p.instance8) != 0)
        return not_for_us(s, fd, &p);
    int made = ns_master_for(&master, p.client_key, true);
    if (made < 0)
        return not_for_us(s, fd, &p);
    ns_lock(&s->tx);
    int err = ns_session_accept(&s->session, own, &master, packet);
    ns_unlock(&s->tx);
    explicit_bzero(&master, sizeof master);
    if (!err && made)
        ns_dormant_met(s, p.client_key);
    return err ? not_for_us(s, fd, &p) : established(s, fd, NS_PACKET_BYTES_NEW);
}

/* Whether the peer has said HELLO's urgent byte, which is beside the stream. */
static bool urgent_hello(int fd)
{
    uint8_t byte;
    return ns_sys_recv(fd, &byte, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) == 1 && byte == 'N';
}

enum ns_first ns_first_bytes(struct ns_sock *s, int fd)
{
    uint8_t p[NS_PACKET_BYTES_NEW];
    struct pollfd state = { .fd = fd, .events = POLLPRI | POLLRDHUP };
    int unread = 0;
    ns_sys_ppoll(&state, 1, &(struct timespec){ 0 }, NULL);
    /* A read, a look included, takes the error that the application is to get. */
    if ((state.revents & POLLERR) && (ns_sys_ioctl(fd, SIOCINQ, &unread) < 0 || unread == 0))
        return plain(s, fd);
    ssize_t n = ns_sys_recv(fd, p, sizeof p, MSG_PEEK | MSG_DONTWAIT);
    /* Behind bytes of a stream an urgent one is the application's. */
    if (n <= 0 && (state.revents & POLLPRI) && urgent_hello(fd))
        return NS_FIRST_GUEST;
    if (n == -EAGAIN)
        return NS_FIRST_NOTHING;
    if (n <= 0)
        return plain(s, fd);
    int length = ns_wire_length(p, (size_t)n);
    if (length < 0)
        return plain(s, fd);
    if (length == 0 || length > n) {
        struct ns_time now = ns_now();
        if (s->partial_since.ns == 0)
            s->partial_since = now;
        if (state.revents & (POLLRDHUP | POLLERR | POLLHUP))
            return n > 1 ? plain(s, fd) : ns_first_urgent(fd) ? NS_FIRST_GUEST : NS_FIRST_LONE_N;
        if (ns_time_sub(now, s->partial_since).ns >= NS_STALL_MS * 1000000LL)
            return plain(s, fd);
        return stall(s, fd, length ? length : NS_PACKET_BYTES_HEADER);
    }
    uint8_t version = p[2], type = p[3];
    if (type == NS_PACKET_NEW && version == 2)
        return version2(s, fd, p);
    if (type == NS_PACKET_NEW && version == 1 && ns_engine.policy.version == 1) {
        s->session.version = 1;
        return established(s, fd, NS_V1_BYTES_NEW);
    }
    if (type == NS_PACKET_RESUME || type == NS_PACKET_RESUME4)
        return NS_FIRST_GUEST;
    return plain(s, fd);
}

/* An application that has urgent bytes in line (SO_OOBINLINE) would read HELLO's as any other. */
bool ns_first_urgent(int fd)
{
    int at_mark = 0;
    return ns_sys_ioctl(fd, SIOCATMARK, &at_mark) == 0 && at_mark;
}

bool ns_first_beside(int fd)
{
    struct ns_name name = { .length = 0 };
    struct ns_address from, other;
    uint16_t port, other_port;
    struct ns_hold hold;
    bool any = false;
    if (!ns_name_learn(&name, fd, ns_sys_getpeername) ||
        ns_address_from_sockaddr(&from, &port, (struct sockaddr *)&name.address, name.length) < 0)
        return false;
    ns_table_hold(&hold);
    bool some = __atomic_load_n(&ns_count_awaiting, __ATOMIC_SEQ_CST) != 0;
    for (struct ns_object *o = ns_objects; o && some && !any; o = o->next) {
        const struct ns_sock *s = (const struct ns_sock *)o;
        any = o->kind == NS_KIND_SOCK && ns_sock_state(s) == NS_AWAITING &&
              ns_address_from_sockaddr(&other, &other_port, (const struct sockaddr *)&s->peer.address,
                                       s->peer.length) == 0 &&
              ns_address_equal(&from, &other) && port != other_port;
    }
    ns_table_unhold(&hold);
    return any;
}

/* ---- what follows ---- */

static void put_under(void *ctx, int fd)
{
    int keep = ns_sys_fcntl(fd, F_GETFD, 0);
    ns_sys_dup3(*(int *)ctx, fd, keep > 0 && (keep & FD_CLOEXEC) ? O_CLOEXEC : 0);
}

/*
 * The helper takes the connection, unless it is the application's after all; that one, which has it already, keeps
 * one that came and left. Its epoll registrations are of the file, not of the
 * number: they move, or they would tell of the helper's connection for ever.
 */
static void hand_over(struct ns_sock *s, int fd, enum ns_first first)
{
    struct ns_hold hold;
    int pair[2] = { -1, -1 }, taken = -1;
    ns_table_hold(&hold);
    bool here = ns_sock_is(s, fd) && ns_sock_state(s) == NS_AWAITING;
    bool guest = first == NS_FIRST_GUEST || ns_first_beside(fd);
    if (here && guest && ns_sys_socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0)
        taken = ns_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3);
    ns_lock(&s->rx);
    if (here)
        plain(s, fd);
    ns_unlock(&s->rx);
    if (taken >= 0) {
        ns_sys_fcntl(pair[0], F_SETFL, ns_sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK);
        ns_watch_suspend(&s->o);
        ns_object_each_fd(&s->o, put_under, &pair[0]);
        ns_watch_resume(&s->o);
    }
    ns_table_unhold(&hold);
    for (int i = 0; i < 2 && pair[i] >= 0; i++)
        ns_sys_close(pair[i]);
    if (taken >= 0 && ns_helper_start() == 0)
        ns_helper_give(taken);
}

void ns_first_follow(struct ns_sock *s, int fd, enum ns_first first)
{
    bool guest = first == NS_FIRST_GUEST || first == NS_FIRST_LONE_N;
    if (guest)
        hand_over(s, fd, first);
    if (first == NS_FIRST_NEW)
        ns_sock_born(s);
    else if ((first == NS_FIRST_PLAIN || guest) && ns_sock_state(s) == NS_PLAIN)
        ns_sock_forget(s);
}

enum ns_first ns_first_settle(struct ns_sock *s, int fd)
{
    sigset_t saved;
    enum ns_first first = NS_FIRST_KNOWN;
    ns_lock_quiet(&s->rx, &saved);
    if (ns_sock_is(s, fd) && ns_sock_state(s) == NS_AWAITING)
        first = ns_first_bytes(s, fd);
    ns_unlock_quiet(&s->rx, &saved);
    ns_first_follow(s, fd, first);
    return first;
}

void ns_first_release(struct ns_sock *s, int fd)
{
    sigset_t saved;
    ns_lock_quiet(&s->rx, &saved);
    if (ns_sock_state(s) == NS_AWAITING)
        unmark(s, fd);
    ns_unlock_quiet(&s->rx, &saved);
}

/* ---- on the helper ---- */

static void stall_over(struct ns_timer *timer, struct ns_time now)
{
    struct ns_sock *s = (struct ns_sock *)((char *)timer - offsetof(struct ns_sock, stalled));
    struct ns_hold hold;
    ns_table_hold(&hold);
    enum ns_first first = NS_FIRST_KNOWN;
    if (s->o.fd >= 0 && ns_sock_state(s) == NS_AWAITING)
        first = ns_first_settle(s, s->o.fd);
    ns_table_unhold(&hold);
    if (first == NS_FIRST_STALLED)
        ns_first_stalled(s);
}

void ns_first_stalled(struct ns_sock *s)
{
    s->stalled.fire = stall_over;
    /* From now, not from when the helper woke: that may be before the bytes were
     * seen, and a timer that fires too early finds that time is not up. */
    ns_timer_set(&s->stalled, ns_time_add(ns_now(), ns_time_ms(NS_STALL_MS)));
}

static bool whole_new(int fd, struct ns_new *new)
{
    uint8_t p[NS_PACKET_BYTES_NEW];
    int unread = 0;
    /* A look at an empty queue would take the error that the application is to get. */
    return ns_sys_ioctl(fd, SIOCINQ, &unread) == 0 && unread >= NS_PACKET_BYTES_NEW &&
           ns_sys_recv(fd, p, sizeof p, MSG_PEEK | MSG_DONTWAIT) == sizeof p &&
           ns_wire_get_new(p, sizeof p, new) > 0;
}

bool ns_first_new(int fd)
{
    struct ns_new new;
    return whole_new(fd, &new);
}

bool ns_first_names(int fd, const uint8_t id[16])
{
    struct ns_new new;
    return whole_new(fd, &new) && memcmp(new.session_id, id, 16) == 0;
}

bool ns_first_find(const uint8_t id[16])
{
    if (__atomic_load_n(&ns_count_awaiting, __ATOMIC_SEQ_CST) == 0)
        return false;
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_SOCK && o->fd >= 0 && ns_sock_state((struct ns_sock *)o) == NS_AWAITING &&
            ns_first_names(o->fd, id))
            return ns_first_settle((struct ns_sock *)o, o->fd) == NS_FIRST_NEW;
    return false;
}
