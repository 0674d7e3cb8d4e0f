#include "engine/listener.h"

#include "engine/door.h"
#include "engine/engine.h"
#include "engine/first.h"
#include "engine/internal.h"
#include "engine/libc.h"
#include "engine/ready.h"
#include "engine/guest.h"
#include "engine/shared.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* How long the helper leaves a waiting connection to the application. */
#define TAKE_OVER_MS 2
#define PUMP_MAX     64 /* connections taken in one go */
#define AGAIN_MS     20 /* and looks again, when there is no room, or something in the queue has not spoken */
/* Where other processes accept, too: each helper is woken by each connection, and may be so
 * for nothing. So it leaves the next one for longer, until it was needed. */
#define DOOR_MS      4
#define DOOR_MOST_MS 128

enum verdict {
    SILENT,          /* nothing is here yet */
    FOR_APPLICATION, /* may begin with NEW */
    PLAIN,           /* begins with something else, or has ended without a byte */
    HELLO,
    RESUME,
};

/* HELLO's urgent byte, or that of an application, whose stream begins elsewhere. */
static enum verdict urgent(int fd)
{
    uint8_t byte;
    if (ns_sys_recv(fd, &byte, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) != 1)
        return SILENT;
    return byte == 'N' ? HELLO : PLAIN;
}

/* What an accepted connection is, as far as its first bytes are here. */
static enum verdict classify(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLPRI | POLLRDHUP };
    if (ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) <= 0)
        return SILENT;
    if (p.revents & POLLERR)
        return FOR_APPLICATION; /* a look would take the error */
    uint8_t head[8];
    ssize_t n = ns_sys_recv(fd, head, sizeof head, MSG_PEEK | MSG_DONTWAIT);
    if (n <= 0 && (p.revents & POLLPRI))
        return urgent(fd);
    if (n == 0)
        return PLAIN;
    if (n < 0)
        return FOR_APPLICATION;
    /* HELLO whose urgency a middlebox has taken away, or all that an application says. */
    if (n == 1 && head[0] == 'N')
        return (p.revents & POLLRDHUP) && (ns_first_urgent(fd) || ns_first_beside(fd)) ? HELLO : FOR_APPLICATION;
    if (ns_wire_length(head, (size_t)n) < 0)
        return PLAIN;
    if (n >= 4 && (head[3] == NS_PACKET_RESUME || head[3] == NS_PACKET_RESUME4))
        return RESUME;
    return FOR_APPLICATION;
}

/*
 * Whether it is the parent's, who may have children that accept from it as well, or others
 * have it: what one of them promised, another could not keep. So NEW is taken off, and that
 * is all.
 */
static bool foreign(struct ns_listener *l)
{
    if (l->passed)
        return true;
    if (l->parent == 0)
        return false;
    if ((uint32_t)ns_sys_getppid() == l->parent)
        return true;
    l->parent = 0; /* it has gone, as of a daemon: this is the one now */
    return false;
}

static void take_guest(int fd, enum verdict v, bool of_parent)
{
    if ((v == HELLO && of_parent) || ns_helper_start() < 0)
        ns_sys_close(fd);
    else
        ns_helper_give(fd);
}

/* Makes the application's side of a connection that may turn out protected. */
static void begin_session(int fd, const struct ns_name *peer, bool bytes_here, bool foreign)
{
    struct ns_sock *s = ns_sock_create(fd, NS_SERVER, 2);
    if (!s) {
        ns_error("no memory for a session: the connection stays plain TCP");
        return;
    }
    s->peer = s->last_peer = *peer;
    s->unfaithful = foreign;
    if (ns_engine.policy.version == 1 && ns_name_learn(&s->local, fd, ns_sys_getsockname))
        s->last_local = s->local;
    if (bytes_here)
        ns_first_settle(s, fd);
}

/* ---- the queue of the application's connections ---- */

/* Besides the backlog, which stands for itself. */
bool ns_listener_hidden(const struct ns_listener *l)
{
    return ns_queue_count(&l->queue) > 0;
}

/* A door knows it by a count, which costs no system call. */
bool ns_listener_backlogged(const struct ns_listener *l)
{
    return __atomic_load_n(&l->door, __ATOMIC_ACQUIRE) ? ns_door_waits(l) : ns_backlog_waits(&l->backlog);
}

bool ns_listener_waits(const struct ns_listener *l)
{
    return ns_queue_count(&l->queue) > 0 || ns_listener_backlogged(l);
}

void ns_listener_stand_in(struct ns_listener *l, bool on)
{
    if (l->stood_in == on)
        return;
    l->stood_in = on;
    __atomic_fetch_add(&ns_count_special, on ? 1 : -1u, __ATOMIC_SEQ_CST);
    ns_watch_stand_in(&l->o, on);
}

static void stand_in_over(struct ns_listener *l)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    if (!ns_listener_hidden(l))
        ns_listener_stand_in(l, false);
    ns_table_unhold(&hold);
}

static bool enqueue(struct ns_listener *l, int fd, const struct ns_name *peer)
{
    int n = ns_queue_put(&l->queue, fd, peer);
    if (n < 0)
        return false;
    l->queued = ns_now();
    if (n == 1) {
        ns_listener_stand_in(l, true);
        ns_slots_wake();
    }
    return true;
}

/* With a door it is looked at on the way into accept. */
static bool left_to_all(const struct ns_listener *l)
{
    return !__atomic_load_n(&l->door, __ATOMIC_ACQUIRE) && ns_backlog_waits(&l->backlog);
}

/* Whether something is in the queue, or may be once the table is free. */
static bool queues(const struct ns_listener *l)
{
    return ns_queue_count(&l->queue) > 0 || __atomic_load_n(&l->pumping, __ATOMIC_SEQ_CST) || left_to_all(l);
}

/* The oldest queued connection under the lowest free number, as accept4 gives it. */
static int dequeue(struct ns_listener *l, struct ns_name *peer, int flags)
{
    struct ns_hold hold;
    if (!queues(l))
        return -EAGAIN;
    ns_table_hold(&hold);
    int fd = left_to_all(l) ? ns_backlog_take(&l->backlog, peer, flags) : -EAGAIN;
    if (fd == -EAGAIN)
        fd = ns_queue_take(&l->queue, peer, flags);
    if (fd >= 0 && !ns_listener_hidden(l))
        ns_listener_stand_in(l, false);
    ns_table_unhold(&hold);
    return fd;
}

/* One connection. Returns 1; 0: there is none, or no room for it; or a negative errno of accept4. */
static int pump_one(struct ns_listener *l, int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    if ((l->door && ns_door_full(l)) || ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) != 1 ||
        !(p.revents & POLLIN))
        return 0;
    struct ns_name peer = { .length = sizeof peer.address };
    int c = ns_sys_accept4(fd, (struct sockaddr *)&peer.address, &peer.length, SOCK_CLOEXEC);
    if (c < 0)
        return c;
    enum verdict v = classify(c);
    if (v != HELLO && v != RESUME)
        return (l->door && ns_door_put(l, c, &peer)) || enqueue(l, c, &peer);
    take_guest(c, v, foreign(l));
    return 1;
}

int ns_listener_pump(struct ns_listener *l, int fd, unsigned most)
{
    int more = 1;
    /* Either we see the thread that enters accept, or it sees this and waits for
     * the table: it must not sleep in the kernel for what is put in the queue. */
    __atomic_store_n(&l->pumping, true, __ATOMIC_SEQ_CST);
    bool inside = ns_slots_inside(l);
    /* Strangers must not keep the table for as long as they keep coming. */
    for (int i = 0; i < PUMP_MAX && !inside && ns_queue_count(&l->queue) < most && more > 0; i++)
        more = pump_one(l, fd);
    __atomic_store_n(&l->pumping, false, __ATOMIC_SEQ_CST);
    return inside || ns_queue_count(&l->queue) > 0 ? 1 : more < 0 ? more : 0;
}

static bool goes_to_all(void *ctx, const struct ns_queued *entry)
{
    struct ns_listener *l = ctx;
    if (l->door)
        return ns_door_put(l, entry->fd, &entry->peer);
    if (!ns_backlog_put(&l->backlog, entry->fd, &entry->peer))
        return false;
    ns_internal_close(entry->fd);
    return true;
}

void ns_listener_accompany(struct ns_listener *l, bool on)
{
    if (l->accompanied == on)
        return;
    l->accompanied = on;
    ns_watch_accompany(&l->o, on);
}

void ns_listener_share_queue(struct ns_listener *l)
{
    if (ns_queue_count(&l->queue) == 0 || !ns_backlog_open(&l->backlog))
        return;
    ns_queue_sift(&l->queue, 0, goes_to_all, l);
    ns_listener_accompany(l, true);
    if (!ns_listener_hidden(l))
        ns_listener_stand_in(l, false);
}

void ns_listener_drop_backlog(struct ns_listener *l)
{
    ns_listener_accompany(l, false);
    if (!l->door)
        ns_backlog_close(&l->backlog);
}

void ns_listener_keep_backlog(struct ns_listener *l)
{
    struct ns_name peer;
    int fd;
    /* A thread that looks into the queue first, and then into the backlog, is to look again. */
    __atomic_store_n(&l->pumping, true, __ATOMIC_SEQ_CST);
    while (ns_queue_count(&l->queue) < NS_QUEUE_MAX && ns_backlog_waits(&l->backlog) &&
           (fd = ns_backlog_take(&l->backlog, &peer, SOCK_CLOEXEC)) >= 0)
        ns_queue_put(&l->queue, fd, &peer);
    if (ns_listener_hidden(l))
        ns_listener_stand_in(l, true);
    ns_listener_drop_backlog(l);
    __atomic_store_n(&l->pumping, false, __ATOMIC_SEQ_CST);
}

void ns_listener_pause(struct ns_listener *l)
{
    ns_listener_share_queue(l);
    if (l->door || l->paused)
        return;
    l->paused = true;
    if (!l->shared)
        ns_listener_unwatch(l);
}

void ns_listener_go_on(struct ns_listener *l)
{
    if (!l->paused)
        return;
    l->paused = false;
    ns_helper_look();
}

static bool names(void *id, const struct ns_queued *entry)
{
    return ns_first_names(entry->fd, id);
}

bool ns_listener_queued(const uint8_t id[16])
{
    bool found = false;
    for (struct ns_object *o = ns_objects; o && !found; o = o->next)
        found = o->kind == NS_KIND_LISTENER && ns_queue_any(&((struct ns_listener *)o)->queue, names, (void *)id);
    return found;
}

/* ---- what has spoken since it was queued ---- */

/* A client does not wait longer for the answer to its first bytes. */
#define SPEAKS_MS 8000
/* What was reported is accepted within this. */
#define ANNOUNCED_MS 1000

static bool of_helper(int fd)
{
    enum verdict v = classify(fd);
    return v == HELLO || v == RESUME;
}

struct sifted {
    int fds[NS_QUEUE_MAX];
    unsigned count;
};

static bool goes_to_helper(void *ctx, const struct ns_queued *entry)
{
    struct sifted *s = ctx;
    bool goes = of_helper(entry->fd);
    if (goes) {
        ns_internal_release(entry->fd);
        s->fds[s->count++] = entry->fd;
    }
    return goes;
}

/*
 * A RESUME, say, whose first bytes were late or had to be sent again: the application that
 * it waits behind may be blocked reading that very session. Table held.
 */
static void sift(struct ns_listener *l)
{
    struct sifted s = { .count = 0 };
    /* What a wait has reported the application is to find: accept must not block then. One that
     * has not come for so long is busy elsewhere, with that very session perhaps. */
    bool comes = ns_time_sub(ns_now(), l->queued).ns < ANNOUNCED_MS * 1000000LL;
    uint32_t least = comes && __atomic_load_n(&l->announced, __ATOMIC_SEQ_CST) ? 1 : 0;
    ns_queue_sift(&l->queue, least, goes_to_helper, &s);
    for (unsigned i = 0; i < s.count; i++)
        ns_helper_give(s.fds[i]);
    if (s.count > 0 && !ns_listener_hidden(l))
        ns_listener_stand_in(l, false);
}

/* Whether something in the queue may still turn out to be the helper's. */
static bool undecided(struct ns_listener *l, struct ns_time now)
{
    return ns_queue_count(&l->queue) > 0 && ns_time_sub(now, l->queued).ns < SPEAKS_MS * 1000000LL;
}

static bool kernel_ready(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    return ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) != 0;
}

/* Another process may have taken what was there, and may take what is: then whoever
 * accepts now finds nothing, as without us. */
static bool door_ready(struct ns_listener *l, int fd)
{
    if (ns_listener_waits(l))
        return true;
    ns_listener_stand_in(l, false);
    return kernel_ready(fd);
}

bool ns_listener_alone(void)
{
    bool alone = false;
    for (struct ns_object *o = ns_objects; o && !alone; o = o->next) {
        struct ns_listener *l = (struct ns_listener *)o;
        alone = o->kind == NS_KIND_LISTENER && o->fd >= 0 && !l->door && !foreign(l);
    }
    return alone;
}

bool ns_listener_own(uint16_t port)
{
    struct ns_hold hold;
    bool any = false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && !any; o = o->next) {
        struct ns_listener *l = (struct ns_listener *)o;
        struct ns_name name = { .length = 0 };
        struct ns_address address;
        uint16_t its = 0;
        any = o->kind == NS_KIND_LISTENER && o->fd >= 0 && !l->door && foreign(l) &&
              ns_name_learn(&name, o->fd, ns_sys_getsockname) &&
              ns_address_from_sockaddr(&address, &its, (struct sockaddr *)&name.address, name.length) == 0 && its == port;
    }
    ns_table_unhold(&hold);
    return any;
}

bool ns_listener_hides(void)
{
    bool any = false;
    for (struct ns_object *o = ns_objects; o && !any; o = o->next)
        any = o->kind == NS_KIND_LISTENER && ns_listener_backlogged((struct ns_listener *)o);
    return any;
}

bool ns_listener_ready(struct ns_listener *l, int fd)
{
    struct ns_hold hold;
    bool ready = true;
    ns_table_hold(&hold);
    if (ns_object_at(fd) == &l->o && l->door)
        ready = door_ready(l, fd);
    else if (ns_object_at(fd) == &l->o && (l->passed || l->paused))
        ready = ns_listener_waits(l) || kernel_ready(fd);
    else if (ns_object_at(fd) == &l->o)
        ready = ns_listener_waits(l) || ns_listener_pump(l, fd, 1) != 0;
    if (ready) /* if only for accept to say why not */
        __atomic_store_n(&l->announced, true, __ATOMIC_SEQ_CST);
    ns_table_unhold(&hold);
    return ready;
}

/* ---- accept(2) ---- */

static int libc_accept(int fd, struct ns_name *peer, int flags)
{
    int saved = errno;
    peer->length = sizeof peer->address;
    int c = ns_libc.accept4(fd, (struct sockaddr *)&peer->address, &peer->length, flags);
    if (c < 0) {
        c = -errno;
        errno = saved;
    }
    return c;
}

static void tell_address(const struct ns_name *peer, struct sockaddr *addr, socklen_t *len)
{
    if (!addr || !len)
        return;
    memcpy(addr, &peer->address, *len < peer->length ? *len : peer->length);
    *len = peer->length;
}

/* What others have left for the next who accepts, or what comes. */
static int accept_inside(struct ns_listener *l, int fd, struct ns_name *peer, int flags)
{
    if (!__atomic_load_n(&l->door, __ATOMIC_ACQUIRE))
        return libc_accept(fd, peer, flags);
    int c = ns_door_enter(l, peer, flags);
    if (c != -EAGAIN)
        return c;
    c = libc_accept(fd, peer, flags);
    ns_door_leave(l);
    return c;
}

/* Then accept, after a wait that has reported the listener, must not go on to the next: there
 * may be none. The application gets a client that came and left (first.c). */
static bool blocks(int fd)
{
    return !(ns_sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK);
}

int ns_accept(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    struct ns_name peer;
    struct ns_slot *slot = ns_slot_self();
    struct ns_handled since = ns_handled;
    bool announced = false;
    for (;;) {
        struct ns_listener *l = ns_listener_at(fd);
        if (!l || !slot)
            return NS_NOT_OURS;
        bool others = foreign(l);
        announced |= __atomic_exchange_n(&l->announced, false, __ATOMIC_SEQ_CST);
        int c = dequeue(l, &peer, flags);
        if (c == -EAGAIN) {
            if (!ns_slot_enter(slot, l))
                return NS_NOT_OURS;
            /* From here on the helper queues nothing; what it queued before comes first. */
            if (queues(l)) {
                ns_slot_leave(slot);
                continue;
            }
            c = ns_object_at(fd) == &l->o ? accept_inside(l, fd, &peer, flags) : NS_NOT_OURS;
            __atomic_store_n(&l->accepting, true, __ATOMIC_RELAXED);
            if (l->stood_in)
                stand_in_over(l);
            ns_slot_leave(slot);
        }
        if (c < 0)
            return c;
        ns_fd_born(c);
        enum verdict v = classify(c); /* what waited in the queue may have spoken since */
        if ((v == HELLO || v == RESUME) && !(announced && blocks(fd))) {
            take_guest(c, v, others);
            if (ns_handled.ending != since.ending)
                return -EINTR;
            continue;
        }
        if (v != PLAIN)
            begin_session(c, &peer, v != SILENT, others);
        tell_address(&peer, addr, len);
        return c;
    }
}

/* ---- the helper's watch ---- */

static struct ns_listener *of_source(struct ns_source *source)
{
    return (struct ns_listener *)((char *)source - offsetof(struct ns_listener, source));
}

static void rearm(struct ns_listener *l)
{
    ns_loop_change(&l->source, EPOLLIN | EPOLLONESHOT);
}

/* Whether there was need to. */
static bool take_over_door(struct ns_listener *l)
{
    if (!kernel_ready(l->source.fd) || !ns_door_begin(l))
        return false;
    if (ns_door_full(l))
        ns_door_sift(l, of_helper);
    int r = ns_listener_pump(l, l->source.fd, NS_QUEUE_MAX);
    ns_door_done(l);
    return r >= 0;
}

static void take_over(struct ns_timer *timer, struct ns_time now)
{
    struct ns_listener *l = (struct ns_listener *)((char *)timer - offsetof(struct ns_listener, timer));
    struct ns_hold hold;
    ns_table_hold(&hold);
    /* Who has accepted since comes again, most likely: what waits now has not
     * waited for long, and by way of the queue it costs twice as much. */
    bool busy = __atomic_exchange_n(&l->accepting, false, __ATOMIC_RELAXED), full = false;
    sift(l);
    if (l->o.fd >= 0 && l->door)
        l->delay_ms = take_over_door(l)                ? DOOR_MS
                      : 2 * l->delay_ms < DOOR_MOST_MS ? 2 * l->delay_ms
                                                       : DOOR_MOST_MS;
    else if (l->o.fd >= 0 && !busy && !l->shared && !l->paused)
        full = ns_listener_pump(l, l->source.fd, NS_QUEUE_MAX) < 0;
    full |= ns_queue_count(&l->queue) == NS_QUEUE_MAX || (l->door && ns_door_full(l));
    bool again = full || undecided(l, now);
    ns_table_unhold(&hold);
    if (again)
        ns_timer_set(timer, ns_time_add(now, ns_time_ms(AGAIN_MS)));
    if (!full)
        rearm(l);
}

static void waiting(struct ns_source *source, uint32_t events, struct ns_time now)
{
    struct ns_listener *l = of_source(source);
    __atomic_store_n(&l->accepting, false, __ATOMIC_RELAXED);
    /* A fork may make one at this moment. */
    bool door = __atomic_load_n(&l->door, __ATOMIC_ACQUIRE) != NULL;
    if (door)
        ns_door_look(l);
    ns_timer_set(&l->timer, ns_time_add(now, ns_time_ms(door ? l->delay_ms : TAKE_OVER_MS)));
}

static void watch(struct ns_listener *l)
{
    l->watched = true;
    l->timer.fire = take_over;
    l->delay_ms = DOOR_MS;
    /* The application's own number: a duplicate would keep the port open after
     * the application has closed it. */
    l->source = (struct ns_source){ .fd = l->o.fd, .ready = waiting };
    ns_loop_add(&l->source, EPOLLIN | EPOLLONESHOT);
}

void ns_listeners_watch(struct ns_time now)
{
    struct ns_hold hold;
    struct ns_object *next;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = next) {
        struct ns_listener *l = (struct ns_listener *)o;
        next = o->next;
        if (o->kind != NS_KIND_LISTENER)
            continue;
        if (o->fd >= 0 && l->door)
            ns_door_join(l);
        if (o->fd >= 0 && !l->watched && !l->paused) {
            watch(l);
        } else if (o->fd < 0) {
            ns_timer_clear(&l->timer);
            /* A thread that is inside may use the door's descriptors: the next time. */
            if (l->door && ns_slots_inside(l))
                continue;
            if (l->door)
                ns_door_part(l);
            ns_object_free(o);
        }
    }
    ns_table_unhold(&hold);
}

void ns_listener_unwatch(struct ns_listener *l)
{
    if (l->watched)
        ns_loop_remove(&l->source);
    l->watched = false;
}

static bool goes_away(void *ctx, const struct ns_queued *entry)
{
    ns_internal_close(entry->fd);
    return true;
}

void ns_listener_close(struct ns_listener *l)
{
    ns_guest_end_leases();
    ns_listener_unwatch(l);
    ns_listener_stand_in(l, false);
    ns_queue_sift(&l->queue, 0, goes_away, NULL);
    ns_watch_drop_all(&l->o);
    ns_listener_drop_backlog(l);
    if (l->door && !ns_helper_running() && !ns_slots_inside(l))
        ns_door_part(l); /* nobody else will */
}

void ns_listener_new(int fd, bool passed)
{
    int shared = 0;
    socklen_t len = sizeof shared;
    struct ns_listener *l = (struct ns_listener *)ns_object_new(NS_KIND_LISTENER);
    if (!l)
        return;
    ns_sys_getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shared, &len);
    l->shareable = shared;
    l->source.fd = -1;
    l->passed = l->shared = l->watched = passed; /* nor is it watched again */
    if (passed)
        ns_info("not protected: others may accept from its listener, too");
    ns_table_put(fd, &l->o);
    __atomic_fetch_add(&ns_count_listeners, 1, __ATOMIC_RELAXED);
}

int ns_listen(int fd, int backlog)
{
    int type = 0, protocol = 0;
    socklen_t len = sizeof type;
    int err = ns_sys_listen(fd, backlog);
    if (err < 0 || !ns_table || (unsigned)fd >= NS_FD_MAX || ns_object_at(fd))
        return err;
    ns_sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
    len = sizeof protocol;
    ns_sys_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len);
    if (type != SOCK_STREAM || protocol != IPPROTO_TCP || ns_helper_start() < 0)
        return err;
    struct ns_hold hold;
    ns_table_hold(&hold);
    ns_listener_new(fd, ns_socket_passed(fd));
    ns_table_unhold(&hold);
    ns_helper_look();
    return err;
}
