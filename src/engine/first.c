#include "engine/first.h"

#include "engine/end.h"
#include "engine/engine.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <errno.h>
#include <string.h>

/* A stream that begins like NEW and stalls is the application's after this. */
#define STALL_MS 200

static enum ns_first plain(struct ns_sock *s)
{
    ns_lock(&s->tx);
    ns_sock_event(s, NS_EVENT_NOT_NEW);
    ns_unlock(&s->tx);
    return NS_FIRST_PLAIN;
}

static enum ns_first established(struct ns_sock *s, int fd, size_t bytes)
{
    uint8_t gone[NS_PACKET_BYTES_NEW];
    if (ns_sys_recv(fd, gone, bytes, MSG_DONTWAIT) != (ssize_t)bytes)
        return plain(s);
    ns_lock(&s->tx);
    s->session.carrier.rx_header_bytes = (uint32_t)bytes;
    ns_sock_event(s, NS_EVENT_NEW);
    ns_unlock(&s->tx);
    __atomic_store_n(&s->rx_open, true, __ATOMIC_SEQ_CST);
    return NS_FIRST_NEW;
}

static enum ns_first version2(struct ns_sock *s, int fd, const uint8_t *packet)
{
    struct ns_new p;
    struct ns_master master;
    const struct ns_identity *own = ns_identity();
    if (!own || ns_wire_get_new(packet, NS_PACKET_BYTES_NEW, &p) <= 0 ||
        memcmp(p.instance8, own->instance, sizeof p.instance8) != 0 ||
        ns_master_for(&master, p.client_key, true) < 0)
        return plain(s);
    ns_lock(&s->tx);
    int err = ns_session_accept(&s->session, own, &master, packet);
    ns_unlock(&s->tx);
    explicit_bzero(&master, sizeof master);
    return err ? plain(s) : established(s, fd, NS_PACKET_BYTES_NEW);
}

/*
 * A RESUME that came later than accept(2) looked: the application already has
 * the connection. It keeps one that came and left; the helper takes the real one.
 */
static enum ns_first late_resume(struct ns_sock *s, int fd)
{
    int pair[2];
    if (ns_sys_socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return plain(s);
    int taken = ns_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int keep = ns_sys_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC ? O_CLOEXEC : 0;
    int fl = ns_sys_fcntl(fd, F_GETFL, 0);
    ns_sys_fcntl(pair[0], F_SETFL, fl & O_NONBLOCK);
    ns_sys_close(pair[1]);
    if (taken >= 0 && ns_sys_dup3(pair[0], fd, keep) >= 0)
        ns_helper_give(taken);
    ns_sys_close(pair[0]);
    return plain(s);
}

enum ns_first ns_first_bytes(struct ns_sock *s, int fd)
{
    uint8_t p[NS_PACKET_BYTES_NEW];
    ssize_t n = ns_sys_recv(fd, p, sizeof p, MSG_PEEK | MSG_DONTWAIT);
    if (n == -EAGAIN)
        return NS_FIRST_NOTHING;
    if (n <= 0)
        return plain(s);
    int length = ns_wire_length(p, (size_t)n);
    if (length < 0)
        return plain(s);
    if (length == 0 || length > n) {
        struct ns_time now = ns_now();
        if (s->partial_since.ns == 0)
            s->partial_since = now;
        return ns_time_sub(now, s->partial_since).ns < STALL_MS * 1000000LL ? NS_FIRST_PARTIAL : plain(s);
    }
    uint8_t version = p[2], type = p[3];
    if (type == NS_PACKET_NEW && version == 2)
        return version2(s, fd, p);
    if (type == NS_PACKET_NEW && version == 1 && ns_engine.policy.version == 1) {
        s->session.version = 1;
        return established(s, fd, NS_V1_BYTES_NEW);
    }
    if (type == NS_PACKET_RESUME || type == NS_PACKET_RESUME4)
        return late_resume(s, fd);
    return plain(s);
}

bool ns_first_settle(struct ns_sock *s, int fd)
{
    sigset_t saved;
    enum ns_first first = NS_FIRST_KNOWN;
    ns_lock_quiet(&s->rx, &saved);
    if (ns_sock_at(fd) == s && ns_sock_state(s) == NS_AWAITING)
        first = ns_first_bytes(s, fd);
    ns_unlock_quiet(&s->rx, &saved);
    if (first == NS_FIRST_NEW)
        ns_sock_born(s);
    else if (first == NS_FIRST_PLAIN)
        ns_sock_forget(s);
    return first == NS_FIRST_NOTHING || first == NS_FIRST_PARTIAL;
}
