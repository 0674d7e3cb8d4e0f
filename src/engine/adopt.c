#include "engine/adopt.h"

#include "engine/remains.h"
#include "engine/broker.h"
#include "engine/detect.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/laid.h"
#include "engine/linger.h"
#include "engine/resume.h"
#include "engine/sock.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif

/* ---- what there is ---- */

unsigned ns_adopted(void)
{
    struct ns_hold hold;
    unsigned n = 0;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next)
        n += o->kind == NS_KIND_SOCK;
    ns_table_unhold(&hold);
    return n;
}

static uint64_t bytes_held(void)
{
    struct ns_hold hold;
    uint64_t n = 0;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_SOCK)
            n += ns_ring_used(&((struct ns_sock *)o)->session.ring);
    ns_table_unhold(&hold);
    return n;
}

/* ---- taking one ---- */

/* What is dialled here has to leave by the links that the socket has. */
static bool of_this_network(int socket)
{
    uint64_t its = 0, own = 0;
    socklen_t len = sizeof its;
    int fd = ns_sys_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool same = fd >= 0 && ns_sys_getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, &its, &len) == 0 &&
                ns_sys_getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &own, &len) == 0 && its == own;
    if (fd >= 0)
        ns_sys_close(fd);
    return same;
}

static bool is_tcp(int socket)
{
    int protocol = 0;
    socklen_t len = sizeof protocol;
    return ns_sys_getsockopt(socket, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) == 0 &&
           protocol == IPPROTO_TCP;
}

static bool room_for(int file)
{
    struct stat st;
    return ns_sys_fstat(file, &st) == 0 && st.st_size >= 0 && (uint64_t)st.st_size <= NS_ADOPT_BYTES &&
           bytes_held() + (uint64_t)st.st_size <= NS_ADOPT_BYTES && ns_adopted() < NS_ADOPT_SESSIONS;
}

/* As ns_sock_create, but that no number stands for it; table held. */
static struct ns_sock *new_session(int file)
{
    struct ns_sock *s = (struct ns_sock *)ns_object_new(NS_KIND_SOCK);
    if (!s)
        return NULL;
    ns_session_init(&s->session, NS_CLIENT, 2);
    ns_ring_init(&s->inbox, 0);
    s->linger_fd = -1;
    bool taken = ns_laid_take(s, file);
    ns_sock_count(s);
    if (taken)
        return s;
    ns_sock_uncount(s);
    ns_object_free(&s->o);
    return NULL;
}

static bool take(int file, int socket)
{
    struct ns_hold hold;
    socket = ns_internal(socket);
    if (socket < 0)
        return false;
    ns_table_hold(&hold);
    bool good = is_tcp(socket) && of_this_network(socket) && room_for(file);
    struct ns_sock *s = good ? new_session(file) : NULL;
    if (s) {
        s->linger_fd = socket;
        s->inherited = true; /* the other tells of it still */
        if (s->session.role == NS_SERVER)
            ns_sock_index(s);
    }
    ns_table_unhold(&hold);
    if (s)
        ns_helper_post(s, NS_TODO_ADOPTED);
    else
        ns_internal_close(socket);
    return s != NULL;
}

/* ---- the process that leaves ---- */

/* A record with two descriptors. Returns whether it came in time. */
static bool receive(int pair, int both[2])
{
    uint8_t byte = 0;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec iov = { &byte, 1 };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
    };
    struct pollfd p = { .fd = pair, .events = POLLIN };
    struct timespec most = { NS_REMAINS_MS / 1000, NS_REMAINS_MS % 1000 * 1000000 };
    size_t count = 0;
    if (ns_sys_ppoll(&p, 1, &most, NULL) != 1 ||
        ns_sys_recvmsg(pair, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
        return false;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(both, CMSG_DATA(c), count * sizeof(int));
    }
    if (count == 2 && byte == NS_REMAINS_SESSION)
        return true;
    for (size_t i = 0; i < count; i++)
        ns_sys_close(both[i]);
    return false;
}

static bool say(int pair, uint8_t byte)
{
    return ns_sys_send(pair, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

void ns_adopt(int pair)
{
    int both[2];
    bool on = ns_helper_start() == 0 && say(pair, NS_REMAINS_READY);
    while (on && receive(pair, both)) {
        bool taken = take(both[0], both[1]);
        ns_sys_close(both[0]);
        on = say(pair, taken ? NS_REMAINS_TAKEN : NS_REMAINS_REFUSED);
    }
    ns_sys_close(pair);
}

/* ---- on the helper ---- */

static void too_long(struct ns_timer *timer, struct ns_time now)
{
    struct ns_sock *s = (struct ns_sock *)((char *)timer - offsetof(struct ns_sock, stalled));
    ns_info("what another process has left is not delivered in time");
    if (ns_sock_state(s) == NS_SUSPENDED)
        ns_sock_give_up(s, s->error ? s->error : -ETIMEDOUT, now);
    else
        ns_sock_bury(s, now); /* the kernel goes on with what it has */
}

void ns_adopt_go_on(struct ns_sock *s, struct ns_time now)
{
    ns_info("adopted a session with %zu bytes that the peer may lack", ns_ring_used(&s->session.ring));
    s->stalled.fire = too_long;
    ns_timer_set(&s->stalled, ns_time_add(now, ns_time_ms(ns_engine.policy.give_up_ms)));
    ns_detect_born(s, now);
    ns_broker_hold(s);
    if (ns_sock_state(s) == NS_SUSPENDED) {
        ns_resume_suspended(s, now);
        return;
    }
    if (s->fin_queued)
        s->tx_open = true;
    else
        ns_swap_replay(s); /* and ends the stream */
    ns_linger_closed(s, now);
}
