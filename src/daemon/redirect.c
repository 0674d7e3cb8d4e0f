#include "daemon/redirect.h"

#include "daemon/notify.h"
#include "daemon/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Connections that have ended and whose names are still known. */
#define OVER_MAX 1024

/*
 * One connection of a held program:
 *
 *   DIALLING   we connect to where it meant to go; its connect is held
 *   LOOPING    we are, and its own socket is on its way to our listener
 *   RELAYING   we have accepted that; its connect has returned
 *   OVER       the relay has ended, but its socket may be there and asked for its names
 */
struct passage {
    enum { DIALLING, LOOPING, RELAYING, OVER } state;
    struct redirect *redirect;
    struct passage *next;
    struct ns_notice notice;
    int fd;                                    /* its socket, ours to close; -1 from RELAYING on */
    ino_t inode;                               /* by which its socket is known in later calls */
    bool told;                                 /* its connect has been answered */
    struct sockaddr_storage meant, ours, loop; /* destination; our own end to it; its socket's end to us */
    uv_tcp_t *connected;
    uv_connect_t connect;
};

struct redirect {
    uv_loop_t *loop;
    int notify;
    const struct ns_policy *policy;
    const struct ns_redirect_listeners *listeners;
    uv_poll_t notices, v4, v6;
    struct passage *passages;
};

static struct redirect the; /* a process has one program to look after */

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
    const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;

    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET)
        return a4->sin_port == b4->sin_port && a4->sin_addr.s_addr == b4->sin_addr.s_addr;
    return a6->sin6_port == b6->sin6_port &&
           memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

static socklen_t address_bytes(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* ---- a passage's end ---- */

static void forget(struct passage *p)
{
    struct passage **at = &p->redirect->passages;

    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    if (p->fd >= 0)
        close(p->fd);
    free(p);
}

/* We do not hear when it closes its socket: the names of the latest stay known. Numbers of inodes are not
 * soon given again. */
static void on_relay_ended(void *arg)
{
    struct passage *p = arg, *oldest = NULL;
    size_t over = 0;

    p->state = OVER;
    for (p = the.passages; p; p = p->next)
        if (p->state == OVER) {
            over++;
            oldest = p;
        }
    if (over > OVER_MAX)
        forget(oldest);
}

/* Before the program's own socket has been touched, its connect may still go its own way or fail. */
static void fail(struct passage *p, int error)
{
    ns_notify_answer(p->redirect->notify, &p->notice, error);
    ns_relay_discard(p->connected);
    forget(p);
}

/* ---- its socket to our listener ---- */

static int listener_for(const struct passage *p, struct sockaddr_storage *to)
{
    const struct sockaddr_in6 *meant = (const void *)&p->meant;
    struct sockaddr_in6 *to6 = (void *)to;
    socklen_t bytes = sizeof(*to);
    bool mapped = p->meant.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&meant->sin6_addr);
    struct sockaddr_in v4;

    if (p->meant.ss_family == AF_INET6 && !mapped)
        return getsockname(the.listeners->v6, (struct sockaddr *)to, &bytes);
    if (getsockname(the.listeners->v4, (struct sockaddr *)to, &bytes) < 0)
        return -1;
    if (mapped) {
        memcpy(&v4, to, sizeof(v4));
        memset(to6, 0, sizeof(*to6));
        to6->sin6_family = AF_INET6;
        to6->sin6_port = v4.sin_port;
        to6->sin6_addr.s6_addr[10] = to6->sin6_addr.s6_addr[11] = 0xff;
        memcpy(to6->sin6_addr.s6_addr + 12, &v4.sin_addr, 4);
    }
    return 0;
}

/* What accept will say of `a` when it comes: an IPv4 address, even from an IPv6 socket. */
static void unmap(struct sockaddr_storage *a)
{
    struct sockaddr_in6 a6;
    struct sockaddr_in *a4 = (void *)a;

    memcpy(&a6, a, sizeof(a6));
    if (a->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a6.sin6_addr))
        return;
    memset(a, 0, sizeof(*a));
    a4->sin_family = AF_INET;
    a4->sin_port = a6.sin6_port;
    memcpy(&a4->sin_addr, a6.sin6_addr.s6_addr + 12, 4);
}

/* Not blocking, or a listener whose queue strangers have filled would hold this thread, which empties it. */
static int connect_loop(struct passage *p, const struct sockaddr_storage *to)
{
    int flags = fcntl(p->fd, F_GETFL), r;
    socklen_t bytes = sizeof(p->loop);

    if (!(flags & O_NONBLOCK))
        fcntl(p->fd, F_SETFL, flags | O_NONBLOCK);
    r = connect(p->fd, (const struct sockaddr *)to, address_bytes(to)) < 0 ? -errno : 0;
    if (!(flags & O_NONBLOCK))
        fcntl(p->fd, F_SETFL, flags);
    if (r < 0 && r != -EINPROGRESS)
        return r;
    return getsockname(p->fd, (struct sockaddr *)&p->loop, &bytes) < 0 ? -errno : 0;
}

static void on_connected(uv_connect_t *request, int status)
{
    struct passage *p = request->data;
    struct sockaddr_storage to;
    int bytes = sizeof(p->ours);

    if (status < 0) {
        fail(p, status);
        return;
    }
    uv_tcp_getsockname(p->connected, (struct sockaddr *)&p->ours, &bytes);
    if (listener_for(p, &to) < 0 || connect_loop(p, &to) < 0) {
        /* A socket that cannot reach loopback: bound to a device, or to an address that has gone. */
        ns_notify_continue(the.notify, &p->notice);
        ns_relay_discard(p->connected);
        forget(p);
        return;
    }
    unmap(&p->loop);
    p->state = LOOPING;
}

static void begin_relay(struct passage *p, int accepted)
{
    uv_tcp_t *tcp = malloc(sizeof(*tcp));

    if (!tcp) {
        close(accepted);
        fail(p, -ENOBUFS);
        return;
    }
    uv_tcp_init(the.loop, tcp);
    uv_tcp_open(tcp, accepted);
    p->state = RELAYING;
    close(p->fd);
    p->fd = -1;
    /* Interrupted by a signal, the caller asks again, and is told then. */
    p->told = ns_notify_answer(the.notify, &p->notice, 0) == 0;
    ns_relay_start(tcp, p->connected, on_relay_ended, p);
}

static void on_listener(uv_poll_t *handle, int status, int events)
{
    struct sockaddr_storage from;
    socklen_t bytes = sizeof(from);
    struct passage *p;
    uv_os_fd_t listener;
    int fd;

    uv_fileno((uv_handle_t *)handle, &listener);
    while ((fd = accept4(listener, (struct sockaddr *)&from, &bytes, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        for (p = the.passages; p && !(p->state == LOOPING && same_address(&p->loop, &from)); p = p->next)
            ;
        if (p)
            begin_relay(p, fd);
        else
            close(fd); /* a stranger */
        bytes = sizeof(from);
    }
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
    p->connect.data = p;
    p->next = the.passages;
    the.passages = p;
    return p;
}

static void dial(struct passage *p)
{
    int r;

    uv_tcp_init(the.loop, p->connected);
    r = uv_tcp_connect(&p->connect, p->connected, (const struct sockaddr *)&p->meant, on_connected);
    if (r < 0)
        fail(p, r);
}

static void on_connect(const struct ns_notice *notice)
{
    struct sockaddr_storage to = { 0 };
    int fd = ns_notify_fetch(the.notify, notice);
    struct passage *p = fd < 0 ? NULL : passage_of(fd);

    if (p && p->state < RELAYING) {
        p->notice = *notice; /* a signal interrupted it, and it asks again */
        close(fd);
        return;
    }
    if (p && !p->told) {
        p->told = ns_notify_answer(the.notify, notice, 0) == 0;
        close(fd);
        return;
    }
    if (fd >= 0 && !p && notice->length >= sizeof(struct sockaddr_in) && notice->length <= sizeof(to) &&
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
    if (!p || p->state < RELAYING) {
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

static void close_all(void)
{
    uv_close((uv_handle_t *)&the.notices, NULL);
    uv_close((uv_handle_t *)&the.v4, NULL);
    if (the.listeners->v6 >= 0)
        uv_close((uv_handle_t *)&the.v6, NULL);
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
    else
        on_name(&notice);
}

int ns_redirect_start(uv_loop_t *loop, int notify, const struct ns_redirect_listeners *listeners,
                      const struct ns_policy *policy)
{
    int r;

    the = (struct redirect){ .loop = loop, .notify = notify, .listeners = listeners, .policy = policy };
    r = uv_poll_init(loop, &the.notices, notify);
    if (r == 0)
        r = uv_poll_start(&the.notices, UV_READABLE | UV_DISCONNECT, on_notice);
    if (r == 0)
        r = uv_poll_init(loop, &the.v4, listeners->v4);
    if (r == 0)
        r = uv_poll_start(&the.v4, UV_READABLE, on_listener);
    if (r == 0 && listeners->v6 >= 0)
        r = uv_poll_init(loop, &the.v6, listeners->v6);
    if (r == 0 && listeners->v6 >= 0)
        r = uv_poll_start(&the.v6, UV_READABLE, on_listener);
    return r;
}
