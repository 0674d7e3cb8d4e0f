#include "engine/inbox.h"

#include "engine/caller.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define INBOX_LIMIT (64 << 20) /* more than tcp_rmem lets a socket hold */

int ns_inbox_reserve(struct ns_sock *s, size_t n)
{
    return ns_ring_reserve(&s->inbox, n, INBOX_LIMIT);
}

void ns_inbox_put(struct ns_sock *s, const void *bytes, size_t n)
{
    if (ns_ring_used(&s->inbox) == 0)
        __atomic_fetch_add(&ns_count_special, 1, __ATOMIC_SEQ_CST);
    ns_ring_put(&s->inbox, bytes, n);
    __atomic_store_n(&s->inbox_filled, true, __ATOMIC_SEQ_CST);
}

ssize_t ns_inbox_copy(const struct ns_sock *s, const struct iovec *to, size_t count)
{
    struct iovec from[2];
    int pieces = ns_ring_get(&s->inbox, s->inbox.tail, from);
    size_t want = 0;
    for (size_t i = 0; i < count; i++)
        want += to[i].iov_len;
    if (want > ns_ring_used(&s->inbox))
        want = ns_ring_used(&s->inbox);
    if (want > 0 && ns_caller_scatter(to, count, from, (size_t)pieces) != (ssize_t)want)
        return -EFAULT;
    return (ssize_t)want;
}

bool ns_inbox_drop(struct ns_sock *s, int fd, size_t n)
{
    bool before = ns_inbox_readable(s);
    if (n == 0)
        return false;
    ns_ring_trim(&s->inbox, s->inbox.tail + n);
    if (ns_ring_used(&s->inbox) == 0) {
        __atomic_store_n(&s->inbox_filled, false, __ATOMIC_SEQ_CST);
        __atomic_fetch_sub(&ns_count_special, 1, __ATOMIC_SEQ_CST);
        if (ns_sock_state(s) == NS_CONNECTED)
            ns_sock_open_rx(s);
    }
    ns_inbox_mark(s, fd);
    return before && !ns_inbox_readable(s);
}

void ns_inbox_lowered(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    if (!ns_inbox_readable(s))
        ns_watch_stand_in(&s->o, false);
    ns_table_unhold(&hold);
}

bool ns_inbox_readable(const struct ns_sock *s)
{
    int mark = __atomic_load_n(&s->low_water, __ATOMIC_RELAXED);
    return ns_sock_inbox_filled(s) && (mark == 0 || ns_ring_used(&s->inbox) >= (size_t)mark);
}

static void set_mark(int fd, int bytes)
{
    ns_sys_setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

void ns_inbox_mark(struct ns_sock *s, int fd)
{
    size_t held = ns_ring_used(&s->inbox);
    int mark = s->low_water;
    if (mark == 0 && held > 0) {
        socklen_t len = sizeof mark;
        if (ns_sys_getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &mark, &len) < 0 || mark <= 1)
            return;
        __atomic_store_n(&s->low_water, mark, __ATOMIC_RELAXED);
    }
    if (mark == 0)
        return;
    set_mark(fd, held < (size_t)mark ? mark - (int)held : 1);
    if (held > 0)
        return;
    set_mark(fd, mark);
    __atomic_store_n(&s->low_water, 0, __ATOMIC_RELAXED);
}

void ns_inbox_expect(struct ns_sock *s, int fd, size_t bytes)
{
    size_t held = ns_ring_used(&s->inbox);
    int mark = 1;
    socklen_t len = sizeof mark;
    if (s->low_water == 0 && ns_sys_getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &mark, &len) == 0)
        __atomic_store_n(&s->low_water, mark, __ATOMIC_RELAXED);
    if (bytes > held)
        set_mark(fd, bytes - held > INT_MAX ? INT_MAX : (int)(bytes - held));
}

void ns_sock_open_rx(struct ns_sock *s)
{
    if (__atomic_load_n(&s->rx_open, __ATOMIC_SEQ_CST) || ns_ring_used(&s->inbox) > 0)
        return;
    ns_ring_release(&s->inbox);
    /* Who loses a connection closes this with tx held, and may have done so just
     * now: a read that goes to a lost connection gets its error. */
    bool taken = ns_lock(&s->tx);
    if (ns_sock_state(s) == NS_CONNECTED && !s->retired)
        __atomic_store_n(&s->rx_open, true, __ATOMIC_SEQ_CST);
    if (taken)
        ns_unlock(&s->tx);
}
