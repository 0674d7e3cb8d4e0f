/* poll(2) and select(2). */
#include "engine/await.h"
#include "engine/connect.h"
#include "engine/door.h"
#include "engine/engine.h"
#include "engine/first.h"
#include "engine/inbox.h"
#include "engine/ledger.h"
#include "engine/libc.h"
#include "engine/listener.h"
#include "engine/ready.h"
#include "engine/scratch.h"
#include "engine/sys.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

uint32_t ns_count_listeners;

bool ns_ready_anyway(struct ns_sock *s, int fd)
{
    int n = 0;
    if (ns_inbox_readable(s))
        return true;
    if (ns_sock_state(s) != NS_SUSPENDED)
        return false;
    return __atomic_load_n(&s->rx_shut, __ATOMIC_SEQ_CST) ||
           (!__atomic_load_n(&s->retired, __ATOMIC_SEQ_CST) && ns_sys_ioctl(fd, SIOCINQ, &n) == 0 && n > 0);
}

enum ns_readiness ns_ready_judge(struct ns_sock *s, int fd, short revents)
{
    enum ns_state state = ns_sock_state(s);
    uint32_t generation = __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST);
    if (state == NS_SUSPENDED)
        return NS_READY_NOT;
    if (state == NS_AWAITING && (revents & (POLLIN | POLLRDNORM)))
        return ns_first_settle(s, fd) == NS_FIRST_PARTIAL ? NS_READY_NOT : NS_READY_ASK;
    if (state == NS_CONNECTING && (revents & POLLOUT))
        ns_client_established(s, fd);
    if (state != NS_CONNECTED || !(revents & (POLLERR | POLLHUP)))
        return NS_READY_AS_TOLD;

    struct ns_ledger l;
    if (ns_ledger_read(fd, &l) < 0 || l.state != NS_TCP_CLOSE)
        return NS_READY_ASK;
    /* A socket in TIME_WAIT says CLOSE too (RFC 9293, 3.6; the kernel keeps the
     * rest elsewhere): both directions have ended, that is how it should be, and
     * no loss. */
    return ns_sock_lost(s, generation, NS_ERROR_UNREAD) ? NS_READY_NOT : NS_READY_AS_TOLD;
}

/* ---- the set of one wait ---- */

#define SMALL 64

struct set {
    struct pollfd *fds; /* the caller's */
    struct pollfd *now; /* ours, and one more for the session's change */
    nfds_t n;
    bool ours;      /* one of them may get another connection meanwhile */
    int ready;      /* known without asking the kernel */
    struct ns_handled since;
};

static void prepare_one(struct set *w, nfds_t i)
{
    struct pollfd *p = &w->now[i];
    *p = w->fds[i];
    p->revents = 0;
    w->fds[i].revents = 0;
    struct ns_object *o = ns_object_awake(p->fd);
    if (!o)
        return;
    enum ns_kind kind = ns_object_kind(o);
    if (kind == NS_KIND_LISTENER) {
        w->ours = true; /* the helper may queue a connection meanwhile */
        ns_door_attend((struct ns_listener *)o);
        if (ns_listener_waits((struct ns_listener *)o))
            w->fds[i].revents = p->events & (POLLIN | POLLRDNORM);
        return;
    }
    if (kind == NS_KIND_GOING && ns_table_own()) { /* whatever comes of it wakes us */
        p->fd = -1;
        w->ours = true;
    }
    if (kind != NS_KIND_SOCK)
        return;
    struct ns_sock *s = (struct ns_sock *)o;
    bool readable = (p->events & (POLLIN | POLLRDNORM)) && ns_ready_anyway(s, p->fd);
    enum ns_state state = ns_sock_state(s);
    bool held = ns_sock_held(s);
    if (state == NS_SUSPENDED)
        p->fd = -1;
    if (held)
        p->events &= (short)~NS_WRITING;
    w->ours |= state == NS_SUSPENDED || state == NS_CONNECTED || held;
    if ((p->events & POLLPRI) && __atomic_load_n(&s->rx_urgent, __ATOMIC_SEQ_CST))
        w->fds[i].revents |= POLLPRI;
    if (readable)
        w->fds[i].revents |= p->events & (POLLIN | POLLRDNORM);
    if (state == NS_SUSPENDED && __atomic_load_n(&s->rx_shut, __ATOMIC_SEQ_CST))
        w->fds[i].revents |= p->events & POLLRDHUP;
}

static void prepare(struct set *w)
{
    w->ours = false;
    w->ready = 0;
    for (nfds_t i = 0; i < w->n; i++) {
        prepare_one(w, i);
        w->ready += w->fds[i].revents != 0;
    }
}

/* What the kernel says now, of what is there now. */
static short ask_plain(struct pollfd *p)
{
    p->revents = 0;
    ns_sys_ppoll(p, 1, &(struct timespec){ 0 }, NULL);
    return p->revents;
}

/*
 * What tells of an end is judged in the next round, except on a connection that lives:
 * both of its directions are shut, or its error queue has something. It lives if it is
 * the same one from before the kernel was asked until its state is known.
 */
static short ask_again(struct ns_sock *s, struct pollfd *p)
{
    uint32_t generation = __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST);
    struct ns_ledger l;
    if (!(ask_plain(p) & (POLLERR | POLLHUP)))
        return p->revents;
    bool lives = ns_ledger_read(p->fd, &l) == 0 && l.state != NS_TCP_CLOSE && ns_sock_state(s) == NS_CONNECTED &&
                 generation == __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST);
    return lives ? p->revents : 0;
}

/* What the kernel said of one descriptor, as the application may see it. */
static short collect_one(struct pollfd *p, bool swapped)
{
    struct ns_object *o = p->revents ? ns_object_awake(p->fd) : NULL;
    if (!o)
        return p->revents;
    if (o->kind == NS_KIND_LISTENER) {
        if ((p->revents & (POLLIN | POLLRDNORM)) && !ns_listener_ready((struct ns_listener *)o, p->fd))
            p->revents &= (short)~(POLLIN | POLLRDNORM);
        return p->revents;
    }
    enum ns_kind kind = ns_object_kind(o);
    if (kind == NS_KIND_GOING && ns_table_own())
        return 0;
    if (kind == NS_KIND_RELAYED && swapped)
        return ask_plain(p);
    if (kind != NS_KIND_SOCK)
        return p->revents;
    switch (ns_ready_judge((struct ns_sock *)o, p->fd, p->revents)) {
    case NS_READY_AS_TOLD:
        /* It has only now been seen to stand. */
        if ((p->revents & NS_WRITING) && !(p->revents & (POLLERR | POLLHUP)) && ns_sock_held((struct ns_sock *)o))
            p->revents &= (short)~NS_WRITING;
        if (ns_sock_failure((struct ns_sock *)o))
            p->revents |= POLLERR;
        if (!swapped)
            return p->revents;
        goto ask;
    case NS_READY_NOT:
        return 0;
    case NS_READY_ASK:
    ask:
        return ask_again((struct ns_sock *)o, p);
    }
    return 0;
}

static int collect(struct set *w, bool swapped)
{
    int count = 0;
    for (nfds_t i = 0; i < w->n; i++) {
        w->fds[i].revents |= collect_one(&w->now[i], swapped);
        count += w->fds[i].revents != 0;
    }
    return count;
}

static bool longer(const struct timespec *timeout, const struct timespec *than)
{
    return !timeout || timeout->tv_sec > 0 || timeout->tv_nsec > than->tv_nsec;
}

/* For as long a thread sleeps that nothing can wake. */
static const struct timespec slice = { 0, NS_SLOT_BLIND_MS * 1000000L };

/* A wait that outlasts a late helper's delay (thread.h) is interrupted for its start.
 * Returns whether it is, and when. */
static bool interrupt_for_helper(const struct timespec *timeout, struct timespec *out)
{
    if (!ns_helper_is_late())
        return false;
    int64_t ns = ns_helper_due().ns - ns_now().ns;
    *out = (struct timespec){ .tv_nsec = ns > 0 ? ns : 0 };
    return longer(timeout, out);
}

static int wait_once(struct set *w, struct ns_slot *slot, const struct timespec *timeout, const sigset_t *mask)
{
    struct timespec zero = { 0 };
    nfds_t n = w->n;
    int wait_fd = -1;
    /* poll(2) waits on the sockets that it found at first: one that is put under
     * a number meanwhile does not wake it, even if it looks there again. So every
     * change of a session has to. */
    if (slot && (wait_fd = ns_slot_wait_prepare(slot)) >= 0)
        w->now[n++] = (struct pollfd){ .fd = wait_fd, .events = POLLIN };
    uint32_t swaps = __atomic_load_n(&ns_count_swaps, __ATOMIC_SEQ_CST);
    prepare(w);
    if (!w->ours)
        n = w->n;
    /* Nothing would wake us. */
    bool blind = slot && w->ours && wait_fd < 0 && longer(timeout, &slice);
    if (blind)
        timeout = &slice;
    /* Between two rounds no kernel saw it. One from here on wakes us. */
    bool interrupted = w->since.all != ns_handled.all;
    if (w->ready || interrupted)
        timeout = &zero;
    struct timespec early;
    bool late = interrupt_for_helper(timeout, &early);
    int r = ns_libc.ppoll(w->now, n, late ? &early : timeout, mask);
    int err = errno;
    if (wait_fd >= 0)
        ns_slot_wait_finish(slot);
    if (r < 0)
        return w->ready ? w->ready : -err;
    if (r == 0 && late)
        ns_helper_start();
    if (r == 0 && (late || blind) && !w->ready && !interrupted)
        return -EAGAIN;
    if (r == 0)
        return w->ready || !interrupted ? w->ready : -EINTR;
    ns_await_found(w->now, w->n);
    int count = collect(w, swaps != __atomic_load_n(&ns_count_swaps, __ATOMIC_SEQ_CST));
    return count > 0 ? count : -EAGAIN; /* woken for nothing the application may see */
}

static bool concerns_us(const struct pollfd *fds, nfds_t n)
{
    for (nfds_t i = 0; i < n; i++)
        if (ns_object_at(fds[i].fd))
            return true;
    return false;
}

static int wait_until(struct set *w, struct ns_slot *slot, const struct timespec *timeout, const sigset_t *mask)
{
    struct timespec left = timeout ? *timeout : (struct timespec){ 0 };
    struct ns_time end = NS_NEVER;
    if (timeout && timeout->tv_sec < 4000000000LL)
        end = ns_time_add(ns_now(), (struct ns_time){ timeout->tv_sec * 1000000000LL + timeout->tv_nsec });
    bool at_once = timeout && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
    bool late = ns_await_asked(w->fds, w->n, at_once);
    for (;;) {
        if (timeout && late) {
            int64_t ns = end.ns - ns_now().ns;
            if (ns < 0)
                ns = 0;
            left = (struct timespec){ ns / 1000000000, ns % 1000000000 };
        }
        int r = wait_once(w, slot, timeout ? &left : NULL, mask);
        if (r != -EAGAIN)
            return r;
        if (at_once)
            ns_await_asked(w->fds, w->n, true);
        late = true;
    }
}

static int wait_with_memory(struct set *w, struct ns_slot *slot, const struct timespec *timeout,
                            const sigset_t *mask)
{
    if (!slot || !(w->now = ns_scratch(slot, (w->n + 1) * sizeof *w->now)))
        return -ENOMEM;
    int r = wait_until(w, slot, timeout, mask);
    ns_scratch_drop(slot);
    return r;
}

/* Inside nothing but its own slot, so that a wait in a handler on top is seen. */
static int wait_inside(struct set *w, const struct timespec *timeout, const sigset_t *mask)
{
    struct ns_slot *slot = ns_slot_self();
    if (slot && !ns_slot_enter(slot, slot))
        slot = NULL;
    int r = (w->n > SMALL ? wait_with_memory : wait_until)(w, slot, timeout, mask);
    if (slot)
        ns_slot_leave(slot);
    return r;
}

int ns_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    struct pollfd small[SMALL + 1];
    struct ns_handled since = ns_handled;
    if (__atomic_load_n(&ns_count_offering, __ATOMIC_RELAXED))
        ns_offer_all();
    if (!concerns_us(fds, n))
        return NS_NOT_OURS;
    struct set w = { .fds = fds, .now = small, .n = n, .since = since };
    int saved = errno;
    int r = wait_inside(&w, timeout, mask);
    errno = saved;
    return r;
}

/* ---- select(2), by way of poll ---- */

#define R_SET (POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR)
#define W_SET (POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR)

/* An application may pass sets larger than fd_set: FD_ISSET would check. */
static bool in_set(const fd_set *set, int fd)
{
    return set && (((const unsigned long *)set)[fd / (8 * (int)sizeof(long))] >> (fd % (8 * (int)sizeof(long))) & 1);
}

static void put_in(fd_set *set, int fd, bool on)
{
    unsigned long *word, bit = 1UL << (fd % (8 * (int)sizeof(long)));
    if (!set)
        return;
    word = (unsigned long *)set + fd / (8 * (int)sizeof(long));
    *word = on ? *word | bit : *word & ~bit;
}

static nfds_t poll_set(struct pollfd *out, int n, const fd_set *r, const fd_set *w, const fd_set *e, bool *ours)
{
    nfds_t count = 0;
    for (int fd = 0; fd < n; fd++) {
        short events = (in_set(r, fd) ? POLLIN | POLLRDNORM | POLLRDBAND : 0) |
                       (in_set(w, fd) ? POLLOUT | POLLWRNORM : 0) | (in_set(e, fd) ? POLLPRI : 0);
        if (!events)
            continue;
        *ours |= ns_object_at(fd) != NULL;
        out[count++] = (struct pollfd){ .fd = fd, .events = events };
    }
    return count;
}

static int select_result(const struct pollfd *p, nfds_t count, fd_set *r, fd_set *w, fd_set *e)
{
    int bits = 0;
    for (nfds_t i = 0; i < count; i++)
        if (p[i].revents & POLLNVAL)
            return -EBADF;
    for (nfds_t i = 0; i < count; i++) {
        bool in = in_set(r, p[i].fd) && (p[i].revents & R_SET);
        bool out = in_set(w, p[i].fd) && (p[i].revents & W_SET);
        bool except = in_set(e, p[i].fd) && (p[i].revents & POLLPRI);
        put_in(r, p[i].fd, in);
        put_in(w, p[i].fd, out);
        put_in(e, p[i].fd, except);
        bits += in + out + except;
    }
    return bits;
}

struct sets {
    int n;
    fd_set *r, *w, *e;
};

static int select_by(struct pollfd *p, const struct sets *s, const struct timespec *timeout,
                     const sigset_t *mask)
{
    bool ours = false;
    nfds_t count = poll_set(p, s->n, s->r, s->w, s->e, &ours);
    int result = ours ? ns_ppoll(p, count, timeout, mask) : NS_NOT_OURS;
    return result >= 0 ? select_result(p, count, s->r, s->w, s->e) : result;
}

static int select_many(const struct sets *s, const struct timespec *timeout, const sigset_t *mask)
{
    struct ns_slot *slot = ns_slot_self();
    if (!slot || !ns_slot_enter(slot, slot))
        return -ENOMEM;
    struct pollfd *p = ns_scratch(slot, (size_t)s->n * sizeof *p);
    int result = p ? select_by(p, s, timeout, mask) : -ENOMEM;
    ns_scratch_drop(slot);
    ns_slot_leave(slot);
    return result;
}

int ns_pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout, const sigset_t *mask)
{
    struct pollfd small[FD_SETSIZE];
    struct sets s = { n, r, w, e };
    if (__atomic_load_n(&ns_count_offering, __ATOMIC_RELAXED))
        ns_offer_all();
    if (n < 0 || n > NS_FD_MAX || !ns_engaged())
        return NS_NOT_OURS;
    return n <= FD_SETSIZE ? select_by(small, &s, timeout, mask) : select_many(&s, timeout, mask);
}
