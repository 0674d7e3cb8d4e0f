#include "engine/adopt.h"

#include "engine/broker.h"
#include "engine/detect.h"
#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/estate.h"
#include "engine/gate.h"
#include "engine/handover.h"
#include "engine/internal.h"
#include "engine/joint.h"
#include "engine/laid.h"
#include "engine/linger.h"
#include "engine/record.h"
#include "engine/resume.h"
#include "engine/sock.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <errno.h>
#include <netinet/tcp.h>
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
static struct ns_sock *new_session(int file, bool (*read)(struct ns_sock *, int))
{
    struct ns_sock *s = (struct ns_sock *)ns_object_new(NS_KIND_SOCK);
    if (!s)
        return NULL;
    ns_session_init(&s->session, NS_CLIENT, 2);
    ns_ring_init(&s->inbox, 0);
    s->linger_fd = -1;
    bool taken = read(s, file);
    s->inherited = true; /* the other tells of it still */
    s->inbox_filled = ns_ring_used(&s->inbox) > 0;
    ns_sock_count(s);
    if (taken)
        return s;
    ns_sock_uncount(s);
    ns_object_free(&s->o);
    return NULL;
}

/* What the kernel has to be given before anybody writes again: the rest of the ring, or the end. */
static bool behind(const struct ns_sock *s)
{
    return s->session.carrier.tx_position < s->session.ring.head || (s->session.tx_ended && !s->fin_queued);
}

/* The socket is the relay's, to read and write as it comes; the users' settings are on theirs. If
 * this process is killed the peer must not take that for the end of the stream. */
static void make_relays(struct ns_sock *s, int socket)
{
    struct linger reset = { .l_onoff = 1 };
    ns_sys_setsockopt(socket, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    ns_sys_set_int(socket, SOL_SOCKET, SO_RCVLOWAT, 1);
    ns_sys_set_int(socket, SOL_SOCKET, SO_OOBINLINE, 1);
    ns_sys_set_int(socket, IPPROTO_TCP, TCP_CORK, 0);
    ns_sys_fcntl(socket, F_SETFL, ns_sys_fcntl(socket, F_GETFL, 0) & ~O_ASYNC);
    s->low_water = 0;
    s->rx_urgent = 0; /* that is on its way */
}

/* In use, under the number that it came with. Table held. */
static void put_to_use(struct ns_sock *s, int socket)
{
    bool here = s->session.state == NS_CONNECTED;
    s->rx_open = here && !s->inbox_filled;
    s->tx_open = here && !behind(s);
    make_relays(s, socket);
    ns_table_put(socket, &s->o);
    ns_object_identify(&s->o);
}

/* Table held. */
static struct ns_sock *make(int file, int socket, bool (*read)(struct ns_sock *, int))
{
    bool good = is_tcp(socket) && of_this_network(socket) && room_for(file);
    struct ns_sock *s = good ? new_session(file, read) : NULL;
    if (s && s->session.role == NS_SERVER)
        ns_sock_index(s);
    return s;
}

static bool take_remains(int file, int socket)
{
    struct ns_hold hold;
    socket = ns_internal(socket);
    if (socket < 0)
        return false;
    ns_table_hold(&hold);
    struct ns_sock *s = make(file, socket, ns_laid_take);
    if (s)
        s->linger_fd = socket;
    ns_table_unhold(&hold);
    if (s)
        ns_helper_post(s, NS_TODO_ADOPTED);
    else
        ns_internal_close(socket);
    return s != NULL;
}

/* What `file` is, once: the sessions of one fork, of which several may come. Table held. */
static struct ns_share *share_of(const struct ns_handover *h, int file, struct ns_estate **e)
{
    *e = NULL;
    int own = ns_estate_sound(file, h->shares) ? ns_sys_fcntl(file, F_DUPFD_CLOEXEC, 3) : -1;
    if (own >= 0)
        *e = ns_estate_adopt(own, h->shares);
    if (!*e)
        return NULL;
    struct ns_share *x = ns_estate_use(*e, h->share);
    ns_estate_unuse(*e); /* that of adopting it */
    return x;
}

/* The users' end, and a duplicate of the gate, are the session's, if it is taken; the socket and the
 * relay's end the relay's. Table held. */
static struct ns_sock *make_joint(const struct ns_handover *h, const int *fds)
{
    struct ns_estate *e;
    int gate = ns_internal(ns_sys_fcntl(fds[NS_HANDOVER_GATE], F_DUPFD_CLOEXEC, 3));
    struct ns_share *x = gate >= 0 ? share_of(h, fds[NS_HANDOVER_ESTATE], &e) : NULL;
    struct ns_sock *s = x ? make(fds[NS_HANDOVER_STATE], fds[NS_HANDOVER_SOCKET], ns_laid_take_whole) : NULL;
    if (s) {
        ns_gate_take(s, gate);
        ns_joint_keep(s, ns_internal(fds[NS_HANDOVER_USERS_END]));
        ns_dormant_relay(s, e, x);
        put_to_use(s, fds[NS_HANDOVER_SOCKET]);
        return s;
    }
    if (x)
        ns_estate_unuse(e);
    ns_internal_close(gate);
    return NULL;
}

static bool take_joint(const struct ns_handover *h, const int *fds)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_sock *s = fds[NS_HANDOVER_SOCKET] < NS_FD_MAX ? make_joint(h, fds) : NULL;
    ns_table_unhold(&hold);
    if (s)
        ns_helper_post(s, NS_TODO_ADOPTED);
    return s != NULL;
}

/* ---- the process that hands over ---- */

struct record {
    struct ns_handover h;
    size_t count;
    int fds[NS_HANDOVER_FDS];
};

static void close_rest(struct record *r)
{
    for (size_t i = 0; i < r->count; i++)
        ns_sys_close(r->fds[i]);
    r->count = 0;
}

/* Returns whether one came in time. */
static bool receive(int pair, struct record *r)
{
    struct pollfd p = { .fd = pair, .events = POLLIN };
    struct timespec most = { NS_HANDOVER_MS / 1000, NS_HANDOVER_MS % 1000 * 1000000 };
    if (ns_sys_ppoll(&p, 1, &most, NULL) != 1)
        return false;
    if (ns_record_receive(pair, &r->h, sizeof r->h, r->fds, NS_HANDOVER_FDS, &r->count, NULL) ==
        (ssize_t)sizeof r->h)
        return true;
    close_rest(r);
    return false;
}

static bool say(int pair, uint8_t byte)
{
    return ns_sys_send(pair, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

/* What is left in the record afterwards is not taken. */
static bool take_record(struct record *r, ns_relay_reserve *reserve, ns_relay_begin *relay)
{
    int *fds = r->fds;
    if (r->h.what == NS_HANDOVER_REMAINS && r->count == 2) {
        bool taken = take_remains(fds[NS_HANDOVER_STATE], fds[NS_HANDOVER_SOCKET]);
        fds[NS_HANDOVER_SOCKET] = -1;
        return taken;
    }
    if (r->h.what != NS_HANDOVER_JOINT || r->count != NS_HANDOVER_FDS || !reserve() ||
        !take_joint(&r->h, fds))
        return false;
    relay(fds[NS_HANDOVER_SOCKET], fds[NS_HANDOVER_RELAYS_END], fds[NS_HANDOVER_GATE]);
    fds[NS_HANDOVER_SOCKET] = fds[NS_HANDOVER_RELAYS_END] = fds[NS_HANDOVER_USERS_END] = fds[NS_HANDOVER_GATE] = -1;
    return true;
}

void ns_adopt(int pair, ns_relay_reserve *reserve, ns_relay_begin *relay)
{
    struct record r;
    bool on = ns_helper_start() == 0 && say(pair, NS_HANDOVER_READY);
    while (on && receive(pair, &r)) {
        bool taken = take_record(&r, reserve, relay);
        close_rest(&r);
        on = say(pair, taken ? NS_HANDOVER_TAKEN : NS_HANDOVER_REFUSED);
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

/* It is in use: as one that this process has always had. */
static void relay_on(struct ns_sock *s, struct ns_time now)
{
    ns_info("relaying a session that several processes use");
    ns_helper_attend(s, now);
    ns_joint_look(now);
    if (ns_sock_state(s) == NS_SUSPENDED)
        ns_resume_suspended(s, now);
    else if (!__atomic_load_n(&s->tx_open, __ATOMIC_SEQ_CST))
        ns_swap_replay(s);
}

void ns_adopt_go_on(struct ns_sock *s, struct ns_time now)
{
    if (ns_sock_number(s) >= 0) {
        relay_on(s, now);
        return;
    }
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
