#include "daemon/redirect.h"

#include "daemon/crossing.h"
#include "daemon/notify.h"
#include "daemon/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

/* Connections that have ended, or have failed, and are still known. */
#define OVER_MAX 1024

/*
 * A connect that does not return at once is held for as long, so that what can be known is known: a failure
 * is then told as it is. Later it can be told only when the program's socket tries again, after a second.
 */
#define HELD_MS 50

/*
 * One connection of a held program:
 *
 *   DIALLING   we connect to where it meant to go; its connect is held, its socket untouched
 *   WAITING    we still do; its socket is connecting too, to a port that is deaf (crossing.h)
 *   RELAYING   both stand
 *   FAILED     ours has failed while its socket was connecting
 *   OVER       the relay has ended, but its socket may be there and asked for its names
 */
struct passage {
    enum { DIALLING, WAITING, RELAYING, FAILED, OVER } state;
    struct redirect *redirect;
    struct passage *next;
    struct ns_notice notice;             /* its connect, while DIALLING */
    int fd;                              /* its socket, ours to close; -1 from RELAYING on */
    ino_t inode;                         /* by which its socket is known in later calls; 0: it is no more */
    struct sockaddr_storage meant, ours; /* destination; our own end to it */
    struct ns_crossing crossing;
    uv_timer_t held;
    uv_tcp_t *connected;
    uv_connect_t connect;
    int error; /* FAILED */
};

struct redirect {
    uv_loop_t *loop;
    int notify;
    const struct ns_policy *policy;
    uv_poll_t notices;
    struct passage *passages;
};

static struct redirect the; /* a process has one program to look after */

static socklen_t address_bytes(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* ---- a passage's end ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void forget(struct passage *p)
{
    struct passage **at = &p->redirect->passages;

    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    if (p->fd >= 0)
        close(p->fd);
    ns_crossing_refuse(&p->crossing);
    uv_close((uv_handle_t *)&p->held, on_timer_closed);
}

static bool has_ended(const struct passage *p)
{
    return p->state == FAILED || p->state == OVER;
}

/* We do not hear when it closes its socket: the latest stay known. Numbers of inodes are not soon given
 * again. */
static void end(struct passage *p, int state)
{
    struct passage *oldest = NULL;
    size_t ended = 0;

    p->state = state;
    for (p = the.passages; p; p = p->next)
        if (has_ended(p)) {
            ended++;
            oldest = p;
        }
    if (ended > OVER_MAX)
        forget(oldest);
}

static void on_relay_ended(void *arg)
{
    end(arg, OVER);
}

static void let_go(struct passage *p)
{
    close(p->fd);
    p->fd = -1;
}

/* ---- its connect returns ---- */

/*
 * Its socket is connecting, or is connected by now. Where the call may wait, the kernel's own does so from
 * here on: signals interrupt that one. It does not look at the address of a socket that is connecting.
 */
static void release_connect(struct passage *p, const struct ns_notice *notice, bool in_time)
{
    struct timeval limit = { 0 };
    socklen_t bytes = sizeof(limit);
    bool waits = !(fcntl(p->fd, F_GETFL) & O_NONBLOCK);

    getsockopt(p->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &bytes);
    /* The kernel, which takes this for a second connect, would say EALREADY in place of EINPROGRESS. */
    if (!waits)
        ns_notify_answer(the.notify, notice, in_time ? ns_crossing_look(p->fd) : -EINPROGRESS);
    else if (!in_time && (limit.tv_sec || limit.tv_usec))
        ns_notify_answer(the.notify, notice, -EINPROGRESS);
    else
        ns_notify_continue(the.notify, notice);
}

/* A socket that cannot reach loopback goes its own way: bound to a device, or to an address that has gone. */
static bool begin_crossing(struct passage *p)
{
    if (ns_crossing_begin(&p->crossing, p->fd, &p->meant) == 0)
        return true;
    ns_notify_continue(the.notify, &p->notice);
    return false;
}

static void begin_waiting(struct passage *p)
{
    uv_timer_stop(&p->held);
    if (!begin_crossing(p)) {
        p->inode = 0;
        ns_relay_discard(p->connected); /* on_connected hears of it */
        return;
    }
    p->state = WAITING;
    release_connect(p, &p->notice, false);
}

static void on_held(uv_timer_t *timer)
{
    begin_waiting(timer->data);
}

/* For how long its connect may be held. */
static uint64_t patience(const struct passage *p)
{
    struct timeval limit = { 0 };
    socklen_t bytes = sizeof(limit);

    if (!(fcntl(p->fd, F_GETFL) & O_NONBLOCK))
        getsockopt(p->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &bytes);
    if (!limit.tv_sec && !limit.tv_usec)
        return HELD_MS;
    return (uint64_t)limit.tv_sec * 1000 + (uint64_t)(limit.tv_usec + 999) / 1000;
}

/* ---- our connection ---- */

static void fail(struct passage *p, int error)
{
    ns_relay_discard(p->connected);
    if (p->state == DIALLING) {
        ns_notify_answer(the.notify, &p->notice, error);
        forget(p);
        return;
    }
    p->error = error;
    let_go(p);
    ns_crossing_refuse(&p->crossing);
    end(p, FAILED);
}

static void begin_relay(struct passage *p, int crossed)
{
    uv_tcp_t *tcp = malloc(sizeof(*tcp));

    let_go(p);
    if (!tcp) {
        close(crossed);
        ns_relay_reset(p->connected);
        end(p, OVER);
        return;
    }
    uv_tcp_init(the.loop, tcp);
    uv_tcp_open(tcp, crossed);
    p->state = RELAYING;
    ns_relay_start(tcp, p->connected, on_relay_ended, p);
}

static void on_connected(uv_connect_t *request, int status)
{
    struct passage *p = request->data;
    int bytes = sizeof(p->ours), crossed;
    bool held = p->state == DIALLING;

    if (status == UV_ECANCELED) {
        forget(p);
        return;
    }
    uv_timer_stop(&p->held);
    if (status < 0) {
        fail(p, status);
        return;
    }
    uv_tcp_getsockname(p->connected, (struct sockaddr *)&p->ours, &bytes);
    if (held && !begin_crossing(p)) {
        ns_relay_discard(p->connected);
        forget(p);
        return;
    }
    crossed = ns_crossing_meet(&p->crossing, p->fd);
    if (held)
        release_connect(p, &p->notice, crossed >= 0);
    if (crossed < 0) {
        p->state = WAITING;
        fail(p, crossed);
        return;
    }
    begin_relay(p, crossed);
}

/* ---- its calls ---- */

static struct passage *passage_of(int fd)
{
    struct passage *p;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return NULL;
    for (p = the.passages; p && p->inode != st.st_ino; p = p->next)
        ;
    return p;
}

/* A TCP connection over the network, which the policy does not leave plain. */
static bool ours_to_make(int fd, const struct sockaddr_storage *to)
{
    const struct sockaddr_in6 *to6 = (const void *)to;
    const struct sockaddr_in *to4 = (const void *)to;
    struct ns_address a = { .family = (uint8_t)to->ss_family };
    int protocol = 0, domain = 0;
    socklen_t bytes = sizeof(protocol);
    uint16_t port;

    getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &bytes);
    bytes = sizeof(domain);
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes);
    if (protocol != IPPROTO_TCP || domain != to->ss_family)
        return false;
    if (to->ss_family == AF_INET) {
        memcpy(a.bytes, &to4->sin_addr, 4);
        port = ntohs(to4->sin_port);
    } else if (IN6_IS_ADDR_V4MAPPED(&to6->sin6_addr)) {
        a.family = AF_INET;
        memcpy(a.bytes, to6->sin6_addr.s6_addr + 12, 4);
        port = ntohs(to6->sin6_port);
    } else {
        memcpy(a.bytes, &to6->sin6_addr, 16);
        a.scope_id = to6->sin6_scope_id;
        port = ntohs(to6->sin6_port);
    }
    return port && !ns_address_wildcard(&a) && !ns_address_loopback(&a) &&
           ns_policy_for(the.policy, &a, port, NULL) != NS_VERDICT_PLAIN;
}

static struct passage *new_passage(const struct ns_notice *notice, int fd, const struct sockaddr_storage *to)
{
    struct passage *p = calloc(1, sizeof(*p));
    struct stat st;

    if (!p || fstat(fd, &st) < 0 || !(p->connected = malloc(sizeof(*p->connected)))) {
        free(p);
        return NULL;
    }
    p->redirect = &the;
    p->notice = *notice;
    p->fd = fd;
    p->inode = st.st_ino;
    p->meant = *to;
    p->crossing.deaf = -1;
    p->connect.data = p->held.data = p;
    uv_timer_init(the.loop, &p->held);
    p->next = the.passages;
    the.passages = p;
    return p;
}

static void dial(struct passage *p)
{
    int bytes = sizeof(p->ours), r;

    uv_tcp_init(the.loop, p->connected);
    r = uv_tcp_connect(&p->connect, p->connected, (const struct sockaddr *)&p->meant, on_connected);
    if (r < 0) {
        fail(p, r);
        return;
    }
    uv_tcp_getsockname(p->connected, (struct sockaddr *)&p->ours, &bytes);
    uv_timer_start(&p->held, on_held, patience(p), 0);
}

/* The error that its socket has by now, negative, and no longer has then; 0 when it has none. */
static int taken_error(const struct passage *p, int fd)
{
    int error = 0;
    socklen_t bytes = sizeof(error);

    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    return error ? p->error : 0;
}

/*
 * Another connect of a socket that is known. Mostly the kernel knows best: EALREADY, EISCONN, or it waits.
 * False when it is as new: it had failed and was told so.
 */
static bool on_known(struct passage *p, const struct ns_notice *notice, int fd)
{
    uint16_t family = AF_INET;
    int error = 0;

    if (p->state == DIALLING && !ns_notify_held(the.notify, &p->notice)) {
        p->notice = *notice; /* a signal interrupted it, and it asks again */
        return true;
    }
    if (p->state == DIALLING)
        begin_waiting(p); /* another thread asks */
    if (notice->length >= sizeof(family))
        ns_notify_read(notice, notice->address, &family, sizeof(family));
    if (family == AF_UNSPEC) {
        p->inode = 0; /* dissolved: the next is another */
    } else if (p->state == FAILED && ns_crossing_gone(fd)) {
        error = taken_error(p, fd);
        p->inode = 0;
        ns_crossing_dissolve(fd);
        if (error == 0)
            return false;
    }
    if (error < 0)
        ns_notify_answer(the.notify, notice, error);
    else
        ns_notify_continue(the.notify, notice);
    return true;
}

static void on_connect(const struct ns_notice *notice)
{
    struct sockaddr_storage to = { 0 };
    int fd = ns_notify_fetch(the.notify, notice);
    struct passage *p = fd < 0 ? NULL : passage_of(fd);

    if (p && on_known(p, notice, fd)) {
        close(fd);
        return;
    }
    if (fd >= 0 && notice->length >= sizeof(struct sockaddr_in) && notice->length <= sizeof(to) &&
        ns_notify_read(notice, notice->address, &to, notice->length) == 0 &&
        (to.ss_family == AF_INET ||
         (to.ss_family == AF_INET6 && notice->length >= sizeof(struct sockaddr_in6))) &&
        ours_to_make(fd, &to) && (p = new_passage(notice, fd, &to))) {
        dial(p);
        return;
    }
    if (fd >= 0)
        close(fd);
    ns_notify_continue(the.notify, notice);
}

/* getpeername(2), getsockname(2): as much as there is room for, and the whole length. */
static void on_name(const struct ns_notice *notice)
{
    int fd = ns_notify_fetch(the.notify, notice), error;
    struct passage *p = fd < 0 ? NULL : passage_of(fd);
    const struct sockaddr_storage *name;
    socklen_t room, bytes;

    if (fd >= 0)
        close(fd);
    if (!p || (p->state != RELAYING && p->state != OVER &&
               !(p->state == WAITING && notice->call == NS_NOTICE_LOCAL_NAME))) {
        ns_notify_continue(the.notify, notice);
        return;
    }
    name = notice->call == NS_NOTICE_PEER_NAME ? &p->meant : &p->ours;
    bytes = address_bytes(name);
    error = ns_notify_read(notice, notice->length, &room, sizeof(room));
    if (error == 0 && (int)room < 0)
        error = -EINVAL;
    if (error == 0)
        error = ns_notify_write(notice, notice->address, name, room < bytes ? room : bytes);
    if (error == 0)
        error = ns_notify_write(notice, notice->length, &bytes, sizeof(bytes));
    ns_notify_answer(the.notify, notice, error);
}

/* getsockopt(2) of SO_ERROR: the kernel knows when there is one, we know which. */
static void on_error(const struct ns_notice *notice)
{
    int fd = ns_notify_fetch(the.notify, notice), error = 0;
    struct passage *p = fd < 0 ? NULL : passage_of(fd);
    socklen_t room;

    if (!p || p->state != FAILED || ns_notify_read(notice, notice->length, &room, sizeof(room)) < 0 ||
        room < sizeof(error)) {
        ns_notify_continue(the.notify, notice);
    } else {
        room = sizeof(error);
        error = -taken_error(p, fd);
        ns_notify_answer(the.notify, notice,
                         ns_notify_write(notice, notice->address, &error, sizeof(error)) < 0 ||
                                 ns_notify_write(notice, notice->length, &room, sizeof(room)) < 0
                             ? -EFAULT
                             : 0);
    }
    if (fd >= 0)
        close(fd);
}

/* Whoever would have used them has gone. */
static void close_all(void)
{
    uv_close((uv_handle_t *)&the.notices, NULL);
    for (struct passage *p = the.passages; p; p = p->next)
        if ((p->state == DIALLING || p->state == WAITING) && !uv_is_closing((uv_handle_t *)p->connected))
            ns_relay_discard(p->connected);
}

static void on_notice(uv_poll_t *handle, int status, int events)
{
    struct pollfd look = { .fd = the.notify, .events = POLLIN };
    struct ns_notice notice;

    /* libuv calls a hang-up readable, and before Linux 6.11 a receive then waits for ever. */
    poll(&look, 1, 0);
    if (!(look.revents & POLLIN)) {
        if (look.revents)
            close_all(); /* nobody is held any more */
        return;
    }
    if (ns_notify_receive(the.notify, &notice) < 0)
        return;
    if (notice.call == NS_NOTICE_CONNECT)
        on_connect(&notice);
    else if (notice.call == NS_NOTICE_ERROR)
        on_error(&notice);
    else
        on_name(&notice);
}

int ns_redirect_start(uv_loop_t *loop, int notify, const struct ns_policy *policy)
{
    int r;

    the = (struct redirect){ .loop = loop, .notify = notify, .policy = policy };
    r = uv_poll_init(loop, &the.notices, notify);
    return r < 0 ? r : uv_poll_start(&the.notices, UV_READABLE | UV_DISCONNECT, on_notice);
}
