#include "engine/door.h"

#include "engine/broker.h"
#include "engine/engine.h"
#include "engine/hello.h"
#include "engine/internal.h"
#include "engine/ready.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define ROOMS 1024
/* One that is stopped while it has the lock does not stop the others for long. */
#define LOCK_MS 200
/* For so long this process goes on answering HELLO when the others cannot be reached. */
#define PROMISE_MS 10000
/* A process waits at most this long for its helper, before its first accept. */
#define JOIN_MS 1000

/* One process. Its helper has `alive` locked for as long as it lives: the kernel tells
 * who looks that it has died (set_robust_list(2)). */
struct room {
    pthread_mutex_t alive;
    uint32_t inside; /* threads in accept(2); atomic */
};

struct ns_door {
    pthread_mutex_t lock;
    uint32_t queued;   /* connections in the socket, or more; lock, atomic */
    uint32_t accepted; /* rises; lock, atomic */
    uint32_t unlocked; /* atomic */
    bool uncounted;    /* there was something in it before; constant */
    uint32_t high;     /* rooms from here on were never used; lock */
    struct room rooms[ROOMS];
};

static uint32_t doors; /* of this process; atomic */

/* Doors whose listener a child has closed, as one does that serves a single connection: it
 * may have to say there that it cannot keep what was promised. Table. */
#define LEFT_MAX 8
static struct {
    struct ns_door *door;
    int bell;
} left[LEFT_MAX];
static unsigned left_count;
static bool heir; /* this process was forked, and inherited one */

/* ---- the lock ---- */

/* gcc 12's thread sanitizer does not know this one. It knows pthread_mutex_timedlock, whose clock may be set. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
static int lock_until(pthread_mutex_t *m, const struct timespec *end)
{
    __tsan_mutex_pre_lock(m, __tsan_mutex_try_lock);
    int err = pthread_mutex_clocklock(m, CLOCK_MONOTONIC, end);
    bool got = !err || err == EOWNERDEAD;
    __tsan_mutex_post_lock(m, __tsan_mutex_try_lock | (got ? 0 : __tsan_mutex_try_lock_failed), 0);
    return err;
}
#else
static int lock_until(pthread_mutex_t *m, const struct timespec *end)
{
    return pthread_mutex_clocklock(m, CLOCK_MONOTONIC, end);
}
#endif

/* Signal handlers are put off, as by ns_lock. What a dead process left half done is
 * a number that is too high, which `take` puts right. */
static bool lock(struct ns_door *d)
{
    struct ns_time end = ns_time_add(ns_now(), ns_time_ms(LOCK_MS));
    struct timespec ts = { end.ns / 1000000000, end.ns % 1000000000 };
    ns_signals_put_off();
    int err = pthread_mutex_trylock(&d->lock);
    if (err == EBUSY)
        err = lock_until(&d->lock, &ts);
    if (err == EOWNERDEAD)
        err = pthread_mutex_consistent(&d->lock);
    if (err)
        ns_signals_let_in();
    return err == 0;
}

static void unlock(struct ns_door *d)
{
    pthread_mutex_unlock(&d->lock);
    ns_signals_let_in();
}

/* Takes a room that nobody lives in. */
static bool take_room(struct room *r)
{
    int err = pthread_mutex_trylock(&r->alive);
    if (err == EOWNERDEAD)
        err = pthread_mutex_consistent(&r->alive);
    if (err)
        return false;
    __atomic_store_n(&r->inside, 0, __ATOMIC_SEQ_CST);
    return true;
}

/* ---- what is in the backlog ---- */

bool ns_door_waits(const struct ns_listener *l)
{
    const struct ns_door *d = __atomic_load_n(&l->door, __ATOMIC_ACQUIRE);
    if (!d)
        return false;
    /* Programs that know of no door may take from one that is unlocked. */
    return d->uncounted || __atomic_load_n(&d->unlocked, __ATOMIC_SEQ_CST)
               ? ns_backlog_waits(&l->backlog)
               : __atomic_load_n(&d->queued, __ATOMIC_SEQ_CST) > 0;
}

/* The lock is held. */
static int take(struct ns_listener *l, struct ns_name *peer, int flags)
{
    struct ns_door *d = l->door;
    int fd = ns_door_waits(l) ? ns_backlog_take(&l->backlog, peer, flags) : -EAGAIN;
    if (fd == -EAGAIN)
        __atomic_store_n(&d->queued, 0, __ATOMIC_SEQ_CST);
    else if (fd >= 0 && d->queued > 0)
        __atomic_fetch_sub(&d->queued, 1, __ATOMIC_SEQ_CST);
    return fd;
}

/* ---- making one ---- */

static void init_mutex(pthread_mutex_t *m, const pthread_mutexattr_t *kind)
{
    pthread_mutex_init(m, kind);
}

static struct ns_door *door_new(void)
{
    pthread_mutexattr_t kind;
    struct ns_door *d =
        mmap(NULL, sizeof *d, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (d == MAP_FAILED)
        return NULL;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    init_mutex(&d->lock, &kind);
    pthread_mutexattr_destroy(&kind);
    return d;
}

static bool bell_new(struct ns_listener *l)
{
    l->bell = ns_internal(ns_sys_eventfd2(0, EFD_CLOEXEC));
    if (l->bell >= 0)
        ns_internal_inherit(l->bell);
    return l->bell >= 0;
}

bool ns_door_open(struct ns_listener *l)
{
    if (l->door)
        return true;
    /* Version 1 finds a session by the connection before, in one process. */
    if (l->shared || l->o.fd < 0 || ns_engine.policy.version == 1 || !ns_broker_connected() || !ns_identity())
        return false;
    bool before = l->backlog.open; /* by an exec that failed: nobody has counted what is in it */
    struct ns_door *d = ns_backlog_open(&l->backlog) ? door_new() : NULL;
    if (d && !bell_new(l)) {
        munmap(d, sizeof *d);
        d = NULL;
    }
    if (!d)
        return false; /* the backlog serves without one, too */
    l->room = -1;
    d->uncounted = before;
    __atomic_fetch_add(&doors, 1, __ATOMIC_RELAXED);
    /* What waits for this process's next accept is another's from now on, too. */
    lock(d);
    __atomic_store_n(&l->door, d, __ATOMIC_RELEASE);
    ns_listener_share_queue(l);
    unlock(d);
    ns_listener_accompany(l, true);
    ns_helper_look();
    return true;
}

void ns_door_inherit(struct ns_listener *l)
{
    if (l->door)
        heir = true;
    l->room = -1;
    l->door_source.fd = l->bell_source.fd = -1;
    l->stood_in = false;
}

bool ns_door_cut_off(void)
{
    struct ns_time since = ns_broker_lost_since();
    return __atomic_load_n(&doors, __ATOMIC_RELAXED) > 0 && !ns_broker_connected() &&
           ns_now().ns - since.ns > PROMISE_MS * 1000000LL;
}

/* ---- in and out ---- */

void ns_door_attend(struct ns_listener *l)
{
    if (__atomic_load_n(&l->door, __ATOMIC_ACQUIRE) && __atomic_load_n(&l->room, __ATOMIC_ACQUIRE) < 0 &&
        ns_helper_start() == 0)
        ns_helper_look();
}

/* The helper's to give, which may have to be started first. */
static int room_of(struct ns_listener *l)
{
    int room = __atomic_load_n(&l->room, __ATOMIC_ACQUIRE);
    if (__builtin_expect(room >= 0, 1))
        return room;
    ns_door_attend(l);
    if (!ns_helper_running())
        return room;
    struct ns_time end = ns_time_add(ns_now(), ns_time_ms(JOIN_MS));
    while ((room = __atomic_load_n(&l->room, __ATOMIC_ACQUIRE)) < 0 && ns_time_before(ns_now(), end))
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 50000 }, NULL);
    return room;
}

int ns_door_enter(struct ns_listener *l, struct ns_name *peer, int flags)
{
    struct ns_door *d = l->door;
    int room = room_of(l), fd = -EAGAIN;
    bool locked = lock(d);
    __atomic_fetch_add(&d->accepted, 1, __ATOMIC_SEQ_CST);
    if (locked)
        fd = take(l, peer, flags);
    if (fd == -EAGAIN && room >= 0)
        __atomic_fetch_add(&d->rooms[room].inside, 1, __ATOMIC_SEQ_CST);
    if (locked)
        unlock(d);
    return fd;
}

void ns_door_leave(struct ns_listener *l)
{
    int room = __atomic_load_n(&l->room, __ATOMIC_ACQUIRE);
    if (room < 0)
        return;
    uint32_t *inside = &l->door->rooms[room].inside, n = __atomic_load_n(inside, __ATOMIC_SEQ_CST);
    /* The helper may have put it to zero: see ns_door_begin. */
    while (n > 0 &&
           !__atomic_compare_exchange_n(inside, &n, n - 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

/* Every helper hears it, and nobody stops it. */
static void say_unlocked(struct ns_door *d, int bell)
{
    uint64_t one = 1;
    if (!__atomic_exchange_n(&d->unlocked, 1, __ATOMIC_SEQ_CST))
        ns_sys_write(bell, &one, sizeof one);
}

void ns_door_unlock(struct ns_listener *l)
{
    say_unlocked(l->door, l->bell);
    /* Whoever was about to take something over has done it then. */
    if (lock(l->door))
        unlock(l->door);
    if (!l->shared)
        ns_info("not protected any more: its listener is another program's, too");
    ns_listener_unwatch(l);
    l->watched = l->shared = true; /* nor is it watched again */
    ns_hello_mute();
}

void ns_doors_unlock(void)
{
    for (unsigned i = 0; i < left_count; i++)
        say_unlocked(left[i].door, left[i].bell);
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_LISTENER && o->fd >= 0 && ((struct ns_listener *)o)->door)
            ns_door_unlock((struct ns_listener *)o);
}

/* ---- the helper ---- */

/* Another process has unlocked it. */
static void rung(struct ns_source *source, uint32_t events, struct ns_time now)
{
    struct ns_listener *l = (struct ns_listener *)((char *)source - offsetof(struct ns_listener, bell_source));
    struct ns_hold hold;
    ns_table_hold(&hold);
    if (!l->shared)
        ns_door_unlock(l);
    ns_table_unhold(&hold);
}

/* Something was put into the backlog: whoever waits for the listener here is to know. */
static void waiting(struct ns_source *source, uint32_t events, struct ns_time now)
{
    ns_slots_wake();
}

static int find_room(struct ns_door *d)
{
    pthread_mutexattr_t kind;
    for (uint32_t i = 0; i < d->high; i++)
        if (take_room(&d->rooms[i]))
            return (int)i;
    if (d->high == ROOMS)
        return -1;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    init_mutex(&d->rooms[d->high].alive, &kind);
    pthread_mutexattr_destroy(&kind);
    return take_room(&d->rooms[d->high]) ? (int)d->high++ : -1;
}

void ns_door_join(struct ns_listener *l)
{
    if (l->room >= 0)
        return;
    if (!lock(l->door))
        return; /* the next time that somebody asks */
    int room = find_room(l->door);
    unlock(l->door);
    l->door_source = (struct ns_source){ .fd = l->backlog.out, .ready = waiting };
    l->bell_source = (struct ns_source){ .fd = l->bell, .ready = rung };
    ns_loop_add(&l->door_source, EPOLLIN | EPOLLET);
    ns_loop_add(&l->bell_source, EPOLLIN | EPOLLET);
    __atomic_store_n(&l->room, room, __ATOMIC_RELEASE);
    if (room < 0)
        ns_error("too many processes have the listener: what is lost may not come back to this one");
}

/* Its memory stays: another thread may be about to look into it. */
void ns_door_part(struct ns_listener *l)
{
    if (!l->backlog.open)
        return;
    if (l->room >= 0) {
        ns_loop_remove(&l->door_source);
        ns_loop_remove(&l->bell_source);
        __atomic_store_n(&l->door->rooms[l->room].inside, 0, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&l->door->rooms[l->room].alive);
    }
    if (heir && left_count < LEFT_MAX) {
        left[left_count].door = l->door;
        left[left_count++].bell = l->bell;
    } else {
        ns_internal_close(l->bell);
    }
    l->bell = -1;
    ns_backlog_close(&l->backlog);
    l->room = -1;
    __atomic_fetch_sub(&doors, 1, __ATOMIC_RELAXED);
}

/* Whether a thread of any process is inside. One that a handler has left by longjmp is not. */
static bool anybody_inside(struct ns_listener *l)
{
    struct ns_door *d = l->door;
    bool any = false;
    for (int i = 0; i < (int)d->high; i++) {
        struct room *r = &d->rooms[i];
        if (__atomic_load_n(&r->inside, __ATOMIC_SEQ_CST) == 0)
            continue;
        if (i == l->room && !ns_slots_inside(l)) {
            __atomic_store_n(&r->inside, 0, __ATOMIC_SEQ_CST);
            continue;
        }
        if (i != l->room && take_room(r)) { /* it has died in there */
            pthread_mutex_unlock(&r->alive);
            continue;
        }
        any = true;
    }
    return any;
}

void ns_door_look(struct ns_listener *l)
{
    l->seen = __atomic_load_n(&l->door->accepted, __ATOMIC_SEQ_CST);
}

bool ns_door_begin(struct ns_listener *l)
{
    struct ns_door *d = l->door;
    if (__atomic_load_n(&d->accepted, __ATOMIC_SEQ_CST) != l->seen || d->unlocked || !lock(d))
        return false;
    if (!anybody_inside(l))
        return true;
    unlock(d);
    return false;
}

bool ns_door_put(struct ns_listener *l, int fd, const struct ns_name *peer)
{
    struct ns_door *d = l->door;
    if (d->queued >= NS_QUEUE_MAX)
        return false;
    __atomic_fetch_add(&d->queued, 1, __ATOMIC_SEQ_CST);
    if (!ns_backlog_put(&l->backlog, fd, peer)) {
        __atomic_fetch_sub(&d->queued, 1, __ATOMIC_SEQ_CST);
        return false;
    }
    ns_internal_close(fd);
    ns_debug("a connection waits for whichever process accepts next");
    return true;
}

bool ns_door_full(const struct ns_listener *l)
{
    return __atomic_load_n(&l->door->queued, __ATOMIC_SEQ_CST) >= NS_QUEUE_MAX;
}

void ns_door_sift(struct ns_listener *l, bool (*of_helper)(int fd))
{
    struct ns_name peer;
    for (uint32_t n = l->door->queued; n > 0; n--) {
        int fd = take(l, &peer, SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (of_helper(fd))
            ns_helper_give(fd);
        else if (!ns_door_put(l, fd, &peer) && ns_queue_count(&l->queue) < NS_QUEUE_MAX)
            ns_queue_put(&l->queue, fd, &peer); /* no memory: this process's, which has the place */
    }
}

void ns_door_done(struct ns_listener *l)
{
    unlock(l->door);
}
