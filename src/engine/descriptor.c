/* How descriptors are born, copied and closed. */
#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/first.h"
#include "engine/hello.h"
#include "engine/internal.h"
#include "engine/joint.h"
#include "engine/ledger.h"
#include "engine/linger.h"
#include "engine/listener.h"
#include "engine/ready.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <linux/sockios.h>
#include <sys/stat.h>
#include <sys/ioctl.h>

void ns_fd_born(int fd)
{
    struct ns_hold hold;
    if (!ns_object_at(fd))
        return;
    if (!ns_table_own()) {
        ns_table_remove(fd);
        return;
    }
    /* The number was reused behind our back: whatever it stood for is gone. */
    ns_table_hold(&hold);
    struct ns_object *o = ns_table_remove(fd);
    if (o) {
        ns_watch_drop_all(o);
        if (o->kind == NS_KIND_DORMANT)
            ns_dormant_dispose((struct ns_sock *)o);
        else if (o->kind == NS_KIND_SOCK || o->kind == NS_KIND_RELAYED)
            ns_sock_let_go((struct ns_sock *)o);
        else if (o->kind == NS_KIND_LISTENER)
            ns_listener_close((struct ns_listener *)o);
        else if (o->kind != NS_KIND_GOING) /* the helper is about it, and finds it so */
            ns_object_free(o);
    }
    ns_table_unhold(&hold);
}

/* The slot keeps the object from becoming another one under our hands. */
void ns_fd_duplicating(struct ns_duplicate *d, int oldfd)
{
    *d = (struct ns_duplicate){ .object = ns_object_at(oldfd) };
    if (!d->object || !(d->slot = ns_slot_self()))
        return;
    ns_slot_enter(d->slot, d->object);
    if (ns_object_at(oldfd) != d->object)
        d->object = NULL;
}

static ino_t inode_of(int fd)
{
    struct stat st;
    return ns_sys_fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* A duplicate that was made just before the connection was replaced is one of
 * the old socket. Table held, so that this does not happen again. */
static bool renew_duplicate(const struct ns_object *o, int newfd)
{
    if ((o->kind != NS_KIND_SOCK && o->kind != NS_KIND_RELAYED && o->kind != NS_KIND_GOING) ||
        inode_of(newfd) == inode_of(o->fd))
        return true;
    int flags = ns_sys_fcntl(newfd, F_GETFD, 0);
    return ns_sys_dup3(o->fd, newfd, flags > 0 && (flags & FD_CLOEXEC) ? O_CLOEXEC : 0) >= 0;
}

void ns_fd_duplicated(struct ns_duplicate *d, int newfd)
{
    struct ns_hold hold;
    if (newfd >= 0)
        ns_fd_born(newfd);
    if (d->object && newfd >= 0 && (unsigned)newfd < NS_FD_MAX) {
        ns_table_hold(&hold);
        if (d->object->fds > 0 && renew_duplicate(d->object, newfd))
            ns_table_put(newfd, d->object);
        ns_table_unhold(&hold);
    }
    if (d->slot)
        ns_slot_leave(d->slot);
}

/* ---- close ---- */

bool ns_sock_undelivered(struct ns_sock *s, int fd)
{
    struct linger linger = { 0 };
    socklen_t len = sizeof linger;
    int unread = 0;
    if (!ns_session_protected(&s->session) || s->unfaithful)
        return false;
    /* Suspended: the end of the stream has to be told, if nothing else. */
    if (s->session.state == NS_SUSPENDED || !s->tx_open)
        return true;
    /* The client may have given its connection up already: then the end that is
     * delivered there is lost, and comes by the new one. */
    if (s->session.role == NS_SERVER && s->session.pins > 0)
        return true;
    if (ns_sock_delivered(s, fd))
        return false;
    /* Unread input or a linger of its own: close means what it says (RFC 2525, 2.17). */
    ns_sys_getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len);
    return !linger.l_onoff && ns_sys_ioctl(fd, SIOCINQ, &unread) == 0 && unread == 0;
}

/* Whether a NEW may still come to a connection that is closed now; tx held. */
static bool new_under_way(struct ns_sock *s, int fd)
{
    struct linger linger = { 0 };
    socklen_t len = sizeof linger;
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLRDHUP };
    if (s->session.state != NS_AWAITING || s->unfaithful || !ns_hello_open())
        return false;
    ns_sys_getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len);
    return !linger.l_onoff && ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) < 1 && ns_linger_for_new(s);
}

static void last_close(struct ns_sock *s, int fd)
{
    ns_first_release(s, fd);
    bool alone = ns_lock(&s->tx);
    bool waits = new_under_way(s, fd);
    if (s->session.state == NS_ASKING)
        ns_sock_event(s, NS_EVENT_ANSWER_NO);
    else if (s->session.state == NS_OFFERING || (s->session.state == NS_AWAITING && !waits) ||
             s->session.state == NS_CONNECTING)
        ns_sock_event(s, NS_EVENT_DEMOTED);
    bool keep = waits || (s->remains != NS_REMAINS_HANDED && ns_sock_undelivered(s, fd));
    if (keep) {
        s->linger_fd = ns_internal(ns_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3));
        __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
        if ((waits || (s->session.state == NS_CONNECTED && s->tx_open)) && ns_sys_shutdown(fd, SHUT_WR) == 0)
            s->fin_queued = true;
    } else if (alone && s->session.state == NS_CONNECTED && s->session.pins == 0) {
        /* Nobody asks for it again. The helper frees the rest when it wakes: by then the next
         * connection has this memory. Not where a signal handler closes on top of a write, which
         * is about to put into it what the kernel has taken. */
        ns_ring_trim(&s->session.ring, s->session.ring.head);
        ns_ring_release(&s->session.ring);
    }
    ns_unlock(&s->tx);
    ns_watch_drop_all(&s->o);
    if (keep)
        ns_helper_post(s, NS_TODO_CLOSED);
    else
        ns_sock_let_go(s);
}

static void closing(int fd)
{
    struct ns_object *at = ns_object_at(fd);
    if (!at)
        return;
    if (at->kind == NS_KIND_LISTENER) {
        struct ns_listener *l = (struct ns_listener *)at;
        if (l->source.fd == fd)
            ns_listener_unwatch(l);
    }
    /* Unread, NEW would make a reset of the close, and cost the client what was
     * written to it (RFC 2525, 2.17). */
    if (at->kind == NS_KIND_SOCK && at->fds == 1)
        ns_first_settle((struct ns_sock *)at, fd);
    struct ns_object *o = ns_table_remove(fd);
    if (!o) {
        if (at->kind == NS_KIND_LISTENER)
            ns_helper_look();
        return;
    }
    switch (o->kind) {
    case NS_KIND_SOCK:
    case NS_KIND_DORMANT:
        if (!ns_dormant_close((struct ns_sock *)o, fd))
            last_close((struct ns_sock *)o, fd);
        break;
    case NS_KIND_RELAYED:
        ns_sock_let_go((struct ns_sock *)o);
        break;
    case NS_KIND_GOING: /* the helper finds it so */
        break;
    case NS_KIND_LISTENER:
        __atomic_fetch_sub(&ns_count_listeners, 1, __ATOMIC_RELAXED);
        ns_listener_close((struct ns_listener *)o);
        ns_helper_look();
        break;
    default:
        while (o->watches)
            ns_watch_drop_in(o);
        ns_object_free(o);
        break;
    }
}

void ns_table_hold_settled(struct ns_hold *hold, int fd, bool if_last)
{
    /* The helper of a process that libc did not fork is elsewhere. */
    bool waits = !ns_lock_mine(&ns_table_lock) && ns_table_own();
    struct ns_object *o;
    ns_table_hold(hold);
    while (waits && (o = ns_object_at(fd)) && o->kind == NS_KIND_GOING && (o->fds == 1 || !if_last)) {
        ns_table_unhold(hold);
        ns_object_await(o);
        ns_table_hold(hold);
    }
}

void ns_fd_settle(int fd)
{
    struct ns_object *o = ns_object_at(fd);
    if (o)
        ns_object_await(o);
}

int ns_fd_set(int fd, long call, unsigned long command, long arg)
{
    struct ns_hold hold;
    if (!ns_table_own()) /* nothing is replaced here, and the lock may be a thread's that is not here */
        return NS_NOT_OURS;
    ns_table_hold_settled(&hold, fd, false);
    int r = ns_object_at(fd) ? (int)ns_syscall6(call, fd, (long)command, arg, 0, 0, 0) : NS_NOT_OURS;
    ns_table_unhold(&hold);
    return r;
}

int ns_fd_closing(int fd)
{
    struct ns_hold hold;
    if (!ns_table_own()) { /* and the lock may be a thread's that is not here */
        ns_table_remove(fd);
        return 0;
    }
    struct ns_object *o = ns_object_at(fd);
    enum ns_kind kind = o ? ns_object_kind(o) : NS_KIND_FREE;
    if (__builtin_expect((kind == NS_KIND_SOCK || kind == NS_KIND_GOING) && ((struct ns_sock *)o)->share, 0))
        ns_joint_leave(fd);
    /* Of what may be a relay's, or not, nobody could say how its close ends. */
    ns_table_hold_settled(&hold, fd, true);
    closing(fd);
    ns_table_unhold(&hold);
    return 0;
}
