/* What the application may ask of a session's socket, and set on it. */
#include "engine/caller.h"
#include "engine/connect.h"
#include "engine/engine.h"
#include "engine/inbox.h"
#include "engine/relayed.h"
#include "engine/sock.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>

static int tell(const struct ns_name *name, struct sockaddr *addr, socklen_t *len)
{
    socklen_t room;
    int r = ns_caller_read(&room, len, sizeof room);
    if (r == 0 && (int)room < 0)
        r = -EINVAL;
    if (r == 0)
        r = ns_caller_write(addr, &name->address, room < name->length ? room : name->length);
    return r == 0 ? ns_caller_write(len, &name->length, sizeof name->length) : r;
}

static struct ns_sock *moved(int fd)
{
    struct ns_sock *s = ns_sock_peek(fd);
    return s && (__atomic_load_n(&s->resumed, __ATOMIC_SEQ_CST) || ns_sock_state(s) == NS_SUSPENDED) ? s : NULL;
}

/* What a dead connection still knows, before it is given up. */
static void learn_ends(struct ns_sock *s, int fd)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    if (ns_sock_is(s, fd) && !s->retired && !s->resumed)
        ns_swap_learn_ends(s, fd);
    ns_table_unhold(&hold);
}

int ns_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    struct ns_sock *s = moved(fd), *relayed = ns_relayed_at(fd);
    if (relayed)
        return relayed->local.length ? tell(&relayed->local, addr, len) : NS_NOT_OURS;
    if (s)
        learn_ends(s, fd);
    else if ((s = ns_sock_peek(fd)) && ns_sock_state(s) != NS_FAILED)
        s = NULL; /* a failed one keeps its own name, which the reset took from the socket */
    return s && s->local.length ? tell(&s->local, addr, len) : NS_NOT_OURS;
}

int ns_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    struct ns_sock *s = moved(fd), *relayed = ns_relayed_at(fd);
    if (relayed)
        return relayed->peer.length ? tell(&relayed->peer, addr, len) : NS_NOT_OURS;
    if (s)
        learn_ends(s, fd);
    return s && s->peer.length ? tell(&s->peer, addr, len) : NS_NOT_OURS;
}

static int give_int(void *value, socklen_t *len, int v)
{
    socklen_t room;
    int r = ns_caller_read(&room, len, sizeof room);
    if (r == 0 && (int)room < 0)
        r = -EINVAL;
    if (r == 0 && room > sizeof v)
        room = sizeof v;
    if (r == 0)
        r = ns_caller_write(value, &v, room);
    return r == 0 ? ns_caller_write(len, &room, sizeof room) : r;
}

static int error_of(struct ns_sock *s, int fd, void *value, socklen_t *len)
{
    enum ns_state state = ns_sock_state(s);
    if (state == NS_CONNECTING && ns_sock_is(s, fd))
        ns_client_established(s, fd);
    if (state == NS_FAILED)
        return give_int(value, len, __atomic_exchange_n(&s->failure, 0, __ATOMIC_ACQ_REL));
    if (state == NS_SUSPENDED)
        return give_int(value, len, 0);
    if (state != NS_CONNECTED || !ns_sock_is(s, fd))
        return NS_NOT_OURS;
    uint32_t generation = __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST);
    int err = 0;
    socklen_t n = sizeof err;
    int r = ns_sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n);
    if (r < 0)
        return r;
    if (err && ns_sock_lost(s, generation, -err))
        err = 0;
    return give_int(value, len, err);
}

const struct ns_option ns_keepalive_options[4] = {
    { SOL_SOCKET, SO_KEEPALIVE },
    { IPPROTO_TCP, TCP_KEEPIDLE },
    { IPPROTO_TCP, TCP_KEEPINTVL },
    { IPPROTO_TCP, TCP_KEEPCNT },
};

/* The helper probes idle sessions in its own way; what the application set, or
 * did not, is what it gets back. */
static int *keepalive_field(struct ns_sock *s, int level, int name)
{
    if (level == SOL_SOCKET && name == SO_KEEPALIVE)
        return &s->keepalive[0];
    if (level == IPPROTO_TCP && name == TCP_KEEPIDLE)
        return &s->keepalive[1];
    if (level == IPPROTO_TCP && name == TCP_KEEPINTVL)
        return &s->keepalive[2];
    if (level == IPPROTO_TCP && name == TCP_KEEPCNT)
        return &s->keepalive[3];
    return NULL;
}

/* A relay sets what it likes. */
static struct ns_sock *settled(int fd)
{
    ns_fd_settle(fd);
    return ns_sock_peek(fd);
}

int ns_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    struct ns_sock *s = settled(fd);
    if (!s)
        return NS_NOT_OURS;
    if (level == SOL_SOCKET && name == SO_ERROR)
        return error_of(s, fd, value, len);
    int mark = __atomic_load_n(&s->low_water, __ATOMIC_RELAXED);
    if (level == SOL_SOCKET && name == SO_RCVLOWAT && mark)
        return give_int(value, len, mark);
    int *kept = keepalive_field(s, level, name);
    if (kept && __atomic_load_n(&s->keepalive_ours, __ATOMIC_SEQ_CST))
        return give_int(value, len, *kept);
    return NS_NOT_OURS;
}

/* The mark is for what is unread altogether; the kernel knows of a part. */
static int set_low_water(struct ns_sock *s, int fd, const void *value, socklen_t len)
{
    struct ns_hold hold;
    int r = NS_NOT_OURS, v;
    ns_table_hold(&hold);
    ns_lock(&s->rx);
    bool held = ns_sock_inbox_filled(s), stalled = ns_sock_state(s) == NS_AWAITING && s->low_water;
    if (ns_sock_is(s, fd) && (held || stalled) && len >= sizeof v && value) {
        memcpy(&v, value, sizeof v);
        __atomic_store_n(&s->low_water, v < 0 ? INT_MAX : v ? v : 1, __ATOMIC_RELAXED); /* socket(7) */
        r = 0;
    }
    if (r == 0 && held) {
        ns_inbox_mark(s, fd);
        ns_watch_stand_in(&s->o, ns_inbox_readable(s));
    }
    ns_unlock(&s->rx);
    ns_table_unhold(&hold);
    return r;
}

/* The kernel moves the offset with each look (socket(7)), ours for NEW included, and counts from what it has itself.
 * Where bytes of an earlier connection are unread it is refused, as before Linux 6.9. */
static int set_peek_offset(int fd, const void *value, socklen_t len)
{
    int offset = -1;
    if (len < sizeof offset || ns_caller_read(&offset, value, sizeof offset) < 0 || offset < 0)
        return NS_NOT_OURS;
    int r = ns_fd_demote(fd, "peeking at an offset", true);
    if (r == 0 && ns_fd_inbox(fd) > 0)
        r = -EOPNOTSUPP;
    return r < 0 ? r : NS_NOT_OURS;
}

/* With the table held: what is set while a connection is replaced is set on the next one. */
static int set_on_socket(int fd, int level, int name, const void *value, socklen_t len)
{
    struct ns_hold hold;
    if (!ns_table_own()) /* nothing is replaced here, and the lock may be a thread's that is not here */
        return NS_NOT_OURS;
    ns_table_hold_settled(&hold, fd, false);
    int r = ns_object_at(fd) ? ns_sys_setsockopt(fd, level, name, value, len) : NS_NOT_OURS;
    ns_table_unhold(&hold);
    return r;
}

int ns_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    struct ns_sock *s = settled(fd);
    /* What the kernel makes of the bytes from here on (TLS), no ring could send again. */
    if (s && level == IPPROTO_TCP && name == TCP_ULP) {
        int r = ns_fd_demote(fd, "an upper layer protocol of the kernel's", true);
        return r < 0 ? r : NS_NOT_OURS;
    }
    if (s && level == SOL_SOCKET && name == SO_PEEK_OFF)
        return set_peek_offset(fd, value, len);
    if (s && level == SOL_SOCKET && name == SO_RCVLOWAT &&
        (ns_sock_inbox_filled(s) || __atomic_load_n(&s->low_water, __ATOMIC_RELAXED)))
        return set_low_water(s, fd, value, len);
    int *kept = s ? keepalive_field(s, level, name) : NULL;
    if (!kept || !__atomic_load_n(&s->keepalive_ours, __ATOMIC_SEQ_CST))
        return s ? set_on_socket(fd, level, name, value, len) : NS_NOT_OURS;
    if (len < sizeof(int))
        return -EINVAL;
    if (!value)
        return -EFAULT;
    int v;
    memcpy(&v, value, sizeof v);
    static const int limits[4] = { INT_MAX, 32767, 32767, 127 }; /* tcp(7), MAX_TCP_KEEP* */
    int i = (int)(kept - s->keepalive);
    if (i > 0 && (v < 1 || v > limits[i]))
        return -EINVAL;
    *kept = i == 0 ? v != 0 : v;
    return 0;
}

/* SIOCATMARK: the connection's mark is not reached before what stands in front of it is read. */
static int at_mark(struct ns_sock *s, void *arg)
{
    int none = 0;
    return ns_sock_inbox_filled(s) ? ns_caller_write(arg, &none, sizeof none) : NS_NOT_OURS;
}

int ns_ioctl(int fd, unsigned long request, void *arg)
{
    struct ns_sock *s = request == FIONREAD || request == SIOCATMARK ? ns_sock_at(fd) : NULL;
    if (!s)
        return NS_NOT_OURS;
    if (request == SIOCATMARK)
        return at_mark(s, arg);
    sigset_t saved;
    int kernel = 0;
    ns_lock_quiet(&s->rx, &saved);
    int r = ns_sys_ioctl(fd, FIONREAD, &kernel);
    size_t inbox = ns_ring_used(&s->inbox);
    bool retired = s->retired;
    ns_unlock_quiet(&s->rx, &saved);
    if (inbox == 0 && !retired)
        return NS_NOT_OURS;
    if (!arg)
        return -EFAULT;
    *(int *)arg = (int)inbox + (r < 0 || retired ? 0 : kernel);
    return 0;
}
