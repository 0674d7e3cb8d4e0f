#include "engine/detect.h"

#include "engine/connect.h"
#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/hello.h"
#include "engine/internal.h"
#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/link.h"
#include "engine/preserve.h"
#include "engine/resume.h"
#include "engine/serve.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

#define TICK_MS       10   /* between looks while there is traffic */
#define SETTLED_MS    1000 /* and while there is none */
#define DOUBT_MS      4    /* beyond two round trips: the links are looked at */
#define RESTS         10   /* so many looks that find nothing: then only what comes wakes us */
#define ACTIVE_MS     2000 /* a session counts as active this long after traffic */
#define PROBE_MIN_MS  100  /* the shortest time without progress that raises suspicion */
#define PROBE_SLACK_MS 40  /* beyond the round trip: a delayed acknowledgement (RFC 9293, 3.8.6.3) */
#define HEDGE_MIN_MS  1000 /* between one session's hedges; doubles while they are needless */
#define HEDGE_MAX_SHIFT 5
#define SILENT_LOOKS  12   /* a steady flow that pauses this long raises suspicion */
#define STEADY_LOOKS  12   /* of the 52 before */
#define REPEAT_LOOKS  2    /* a peer that repeats itself does not get our acknowledgements */
#define KERNEL_MS     300  /* what the kernel has to move a connection, where it can, before we do */
#define LOCALS_MAX    64
#define BATCH         64

static struct ns_timer tick;
static uint32_t rests; /* looks in a row that found nothing to look after */
static struct ns_timer stranded; /* looks again at connections that the kernel had time to move */
static bool links_in_doubt; /* look at the links after this round */
static struct ns_source link_source = { .fd = -1 };

/* ---- links and addresses ---- */

struct link_news {
    bool worse, better;
};

static void link_event(void *ctx, const struct ns_link_event *e)
{
    struct link_news *news = ctx;
    switch (e->kind) {
    case NS_LINK_ADDRESS_GONE:
    case NS_LINK_DOWN:
        news->worse = true;
        break;
    case NS_LINK_ADDRESS_CAME:
    case NS_LINK_UP:
        news->better = true;
        break;
    default:
        news->worse = news->better = true;
    }
}

/* Whether it is this host's, asked of the kernel: there may be more than the list holds, and
 * such as are in none (a route of type local). */
static bool own(const struct ns_address *a)
{
    struct sockaddr_storage ss;
    int fd = ns_sys_socket(a->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return true; /* nobody knows */
    int err = ns_sys_bind(fd, (struct sockaddr *)&ss, ns_address_to_sockaddr(a, 0, false, &ss));
    ns_sys_close(fd);
    return err != -EADDRNOTAVAIL;
}

static bool usable(const struct ns_address *a, const struct ns_local *locals, ssize_t n)
{
    for (ssize_t i = 0; i < n; i++)
        if (ns_address_equal(&locals[i].address, a))
            return locals[i].carrier || locals[i].loopback;
    return own(a);
}

static bool present(const struct ns_address *a, const struct ns_local *locals, ssize_t n)
{
    for (ssize_t i = 0; i < n; i++)
        if (ns_address_equal(&locals[i].address, a))
            return true;
    return own(a);
}

/* A server cannot dial, but its client finds out at once when the connection
 * over an address that is gone is reset. */
static void server_lost_address(struct ns_sock *s, struct ns_time now)
{
    ns_info("own address is gone: resetting the connection, the client resumes");
    int err = ns_swap_retire(s);
    if (err == -ESTALE)
        ns_sock_abandon(s, now);
    if (err < 0)
        return;
    s->error = -EADDRNOTAVAIL;
    ns_resume_suspended(s, now);
}

static size_t sessions(struct ns_sock **out, size_t max, bool (*wanted)(struct ns_sock *s, void *ctx), void *ctx)
{
    struct ns_hold hold;
    size_t n = 0;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && n < max; o = o->next)
        if (o->kind == NS_KIND_SOCK && wanted((struct ns_sock *)o, ctx))
            out[n++] = ns_sock_help((struct ns_sock *)o);
    ns_table_unhold(&hold);
    return n;
}

struct snapshot {
    struct ns_local locals[LOCALS_MAX];
    ssize_t n;
    struct ns_time now;
};

static int descriptor(const struct ns_sock *s)
{
    return s->o.fd >= 0 ? s->o.fd : s->linger_fd;
}

static bool learn_source(struct ns_sock *s)
{
    uint16_t port;
    int fd = descriptor(s);
    if (s->pair.source.family)
        return true;
    return fd >= 0 && ns_name_learn(&s->local, fd, ns_sys_getsockname) &&
           ns_address_from_sockaddr(&s->pair.source, &port, (struct sockaddr *)&s->local.address,
                                    s->local.length) == 0;
}

/* Whether the kernel has moved the connection to another address, or may still
 * do it. The one that getsockname tells stays the same. */
static bool left_to_kernel(struct ns_sock *s, struct snapshot *snap)
{
    struct ns_pulse *p = &s->pulse;
    struct ns_address local;
    if (!p->preserved || !ns_preserve_local(descriptor(s), &local))
        return false;
    if (usable(&local, snap->locals, snap->n)) {
        p->stranded = (struct ns_time){ 0 };
        return true;
    }
    if (!p->stranded.ns)
        p->stranded = snap->now;
    struct ns_time until = ns_time_add(p->stranded, ns_time_ms(KERNEL_MS));
    if (!ns_time_before(snap->now, until))
        return false;
    if (!stranded.set || ns_time_before(until, stranded.at))
        ns_timer_set(&stranded, until);
    return true;
}

static bool lost_its_link(struct ns_sock *s, void *ctx)
{
    struct snapshot *snap = ctx;
    if (ns_sock_state(s) != NS_CONNECTED || !learn_source(s))
        return false;
    if (usable(&s->pair.source, snap->locals, snap->n) || left_to_kernel(s, snap))
        return false;
    if (s->session.role == NS_SERVER)
        return !present(&s->pair.source, snap->locals, snap->n);
    /* Each is told once, however many there are; a mere suspicion does not count. */
    return ns_resume_worse(s, NS_LOST);
}

/* Returns whether there may be more. */
static bool link_worse_batch(struct ns_time now)
{
    static struct snapshot snap NS_LARGE;
    struct ns_sock *hit[BATCH];
    snap.now = now;
    snap.n = ns_link_addresses(snap.locals, LOCALS_MAX);
    if (snap.n < 0)
        return false;
    size_t n = sessions(hit, BATCH, lost_its_link, &snap);
    for (size_t i = 0; i < n; i++) {
        if (hit[i]->session.role == NS_CLIENT)
            ns_resume_try(hit[i], NS_LOST, now);
        else
            server_lost_address(hit[i], now);
    }
    return n == BATCH;
}

static void link_worse(struct ns_time now)
{
    /* Bounded: a session that cannot be moved now must not hold up the rest. */
    for (int batch = 0; batch < NS_FD_MAX / BATCH && link_worse_batch(now); batch++)
        ;
}

static void still_stranded(struct ns_timer *timer, struct ns_time now)
{
    (void)timer;
    link_worse(now);
}

static void link_ready(struct ns_source *source, uint32_t events, struct ns_time now)
{
    struct link_news news = { 0 };
    ns_link_read(source->fd, link_event, &news);
    ns_hello_addresses_changed();
    if (news.worse)
        link_worse(now);
    if (news.better || news.worse)
        ns_resume_hurry(now);
}

/* ---- progress ---- */

static int64_t probe_ns(const struct ns_ledger *l)
{
    int64_t spread_us = 4LL * l->rttvar_us > 1000 ? 4LL * l->rttvar_us : 1000;
    int64_t ns = (l->rtt_us + spread_us) * 1000 + PROBE_SLACK_MS * 1000000LL;
    return ns > PROBE_MIN_MS * 1000000LL ? ns : PROBE_MIN_MS * 1000000LL;
}

static bool flow_paused(struct ns_pulse *p)
{
    uint64_t recent = p->flowing & ((1u << SILENT_LOOKS) - 1);
    return recent == 0 && __builtin_popcountll(p->flowing >> SILENT_LOOKS) >= STEADY_LOOKS;
}

/* Notes what came since the last look. */
static void hear(struct ns_pulse *p, const struct ns_ledger *l, struct ns_time now)
{
    bool fresh = l->received != p->received;
    p->flowing = p->flowing << 1 | fresh;
    if (fresh || p->fresh.ns == 0) {
        p->fresh = now;
        p->repeats = 0;
    } else if (l->segments != p->segments) {
        p->repeats++;
    }
    p->received = l->received;
    p->segments = l->segments;
}

/* Whether the socket holds an error, which stays there. */
static bool has_error(int fd)
{
    struct pollfd p = { .fd = fd };
    return ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) == 1 && (p.revents & POLLERR);
}

/* The connection has died while nobody used it. What was written to it is to
 * arrive all the same, and what the peer has to say. Both ends ended looks the
 * same but for the error, and is how it should be. */
static void died(struct ns_sock *s, const struct ns_ledger *l)
{
    int fd = descriptor(s);
    bool finished = __atomic_load_n(&s->session.tx_ended, __ATOMIC_SEQ_CST) && l->unacknowledged == 0;
    if (finished && (__atomic_load_n(&s->rx_ended, __ATOMIC_SEQ_CST) || !has_error(fd)))
        return;
    ns_sock_lost(s, __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST), NS_ERROR_UNREAD);
}

/* Looks at one active session. Returns whether its path is suspect. */
static bool look(struct ns_sock *s, struct ns_time now)
{
    struct ns_pulse *p = &s->pulse;
    struct ns_ledger l;
    if (ns_ledger_read(descriptor(s), &l) < 0)
        return false;
    if (l.state == NS_TCP_CLOSE) {
        died(s, &l);
        return false;
    }
    /* A closed window is no loss, as long as the probes of it are answered. */
    bool waiting = l.in_flight > 0 || (l.unsent_bytes > 0 && l.probes > 0);
    if (l.acknowledged != p->acknowledged || !waiting) {
        p->acknowledged = l.acknowledged;
        p->progress = now;
        p->doubted = false;
    }
    hear(p, &l, now);
    ns_resume_progress(s, l.acknowledged, l.received, now);
    ns_serve_relieve(s, l.unacknowledged);
    /* The kernel announces a lost carrier up to a second late (its linkwatch), but
     * says so when it is asked: once where an acknowledgement is a little late, and
     * where what the peer would take does not leave this host. */
    bool late = waiting && ns_time_sub(now, p->progress).ns > l.rtt_us * 2000LL + DOUBT_MS * 1000000LL;
    bool held = l.unsent_bytes > 0 && l.in_flight == 0 && l.window_bytes > 0;
    if ((late || held) && !p->doubted)
        p->doubted = links_in_doubt = true;
    if (s->session.role != NS_CLIENT || s->recovery)
        return false;
    int64_t kernel_ns = p->preserved ? KERNEL_MS * 1000000LL : 0;
    int64_t patience = probe_ns(&l) + kernel_ns;
    bool stuck = ns_time_sub(now, p->progress).ns > patience;
    bool repeats = p->repeats >= REPEAT_LOOKS && ns_time_sub(now, p->fresh).ns > patience;
    bool paused = (flow_paused(p) && ns_time_sub(now, p->fresh).ns > kernel_ns) || repeats;
    if (!stuck && !paused)
        return false;
    int64_t pause_ms = (int64_t)HEDGE_MIN_MS << p->hedge_backoff;
    if (p->hedged.ns && ns_time_before(now, ns_time_add(p->hedged, ns_time_ms(pause_ms))))
        return false;
    p->hedged = now;
    p->flowing = p->repeats = 0;
    if (p->hedge_backoff < HEDGE_MAX_SHIFT)
        p->hedge_backoff++;
    ns_debug("descriptor %d: %s", s->o.fd, stuck     ? "no acknowledgement in time"
             : repeats ? "the peer repeats what is here"
                       : "a steady flow has paused");
    return true;
}

/* An idle session holds no ring. Returns whether this one does: the peer has not got all. */
static bool tidy(struct ns_sock *s)
{
    int fd = descriptor(s);
    ns_lock(&s->tx);
    if (s->session.ring.data) {
        int64_t unacknowledged = ns_ledger_unacknowledged(fd);
        if (ns_sock_state(s) == NS_CONNECTED && s->tx_open && unacknowledged == 0)
            ns_session_trim(&s->session, 0);
        if (s->o.fd >= 0)
            ns_ring_release(&s->session.ring);
    }
    bool owed = ns_ring_used(&s->session.ring) > 0;
    ns_unlock(&s->tx);
    return owed;
}

/* A ring that was full takes more once a quarter of it is free: in small steps
 * each would cost a wake. Table held. */
static void ease(struct ns_sock *s)
{
    struct ns_ring *ring = &s->session.ring;
    int fd = descriptor(s);
    ns_lock(&s->tx);
    int64_t unacknowledged = ns_ledger_unacknowledged(fd);
    if (unacknowledged >= 0 && (s->tx_open || s->session.state == NS_AWAITING))
        ns_session_trim(&s->session, (uint64_t)unacknowledged);
    bool room = ns_ring_free(ring) >= ring->capacity / 4;
    if (room)
        ns_sock_set_full(s, false);
    ns_unlock(&s->tx);
    if (room) {
        ns_watch_unmute(&s->o);
        ns_slots_wake();
    }
}

/* ---- keepalive ---- */

/* Idle sessions are probed, so that their loss is noticed before they are used. */
static void keep_alive(struct ns_sock *s)
{
    const int ours[4] = { 1, (int)(ns_engine.policy.keepalive_idle_ms / 1000), 1, 3 };
    if (s->keepalive_ours || s->o.fd < 0)
        return;
    for (int i = 0; i < 4; i++) {
        socklen_t len = sizeof(int);
        ns_sys_getsockopt(s->o.fd, ns_keepalive_options[i].level, ns_keepalive_options[i].name, &s->keepalive[i], &len);
    }
    __atomic_store_n(&s->keepalive_ours, true, __ATOMIC_SEQ_CST);
    for (int i = 3; i >= 0; i--)
        ns_sys_setsockopt(s->o.fd, ns_keepalive_options[i].level, ns_keepalive_options[i].name, &ours[i], sizeof(int));
}

/* ---- the tick ---- */

struct round {
    struct ns_time now;
    bool active;   /* some session is */
    bool any;      /* there are sessions */
};

static bool due(struct ns_sock *s, void *ctx)
{
    struct round *r = ctx;
    struct ns_pulse *p = &s->pulse;
    enum ns_state state = ns_sock_state(s);
    if (s->o.fd < 0 && s->linger_fd < 0)
        return false;
    if (state == NS_AWAITING && __atomic_load_n(&s->tx_full, __ATOMIC_SEQ_CST)) {
        r->any = r->active = true;
        ease(s);
    }
    if (state != NS_CONNECTED)
        return false;
    r->any = true;
    if (!p->progress.ns)
        p->progress = r->now;
    if (__atomic_exchange_n(&s->touched, false, __ATOMIC_RELAXED))
        p->heard = r->now;
    if (__atomic_load_n(&s->tx_full, __ATOMIC_SEQ_CST)) {
        p->heard = r->now;
        ease(s);
    }
    if (ns_time_before(r->now, ns_time_add(p->heard, ns_time_ms(ACTIVE_MS)))) {
        r->active = true;
        return look(s, r->now);
    }
    keep_alive(s);
    /* While there is something to send the kernel does not probe for us (tcp(7)), and a hedge that was needless
     * may have put the next one off beyond the active time. */
    if (tidy(s))
        return look(s, r->now);
    p->progress = r->now;
    return false;
}

/* Traffic that has begun since the look, on a session that was idle. */
static bool begun(struct ns_sock *s, void *ctx)
{
    struct round *r = ctx;
    enum ns_state state = ns_sock_state(s);
    r->active |= (state == NS_CONNECTED || (state == NS_AWAITING && __atomic_load_n(&s->tx_full, __ATOMIC_SEQ_CST))) &&
                 __atomic_load_n(&s->touched, __ATOMIC_SEQ_CST);
    return false;
}

/* With no traffic the next look is far off, and whoever begins wakes us. Never said
 * while there is some: each wake would be a system call of the application's. */
static void settle(struct round *r)
{
    __atomic_store_n(&ns_helper_settled, 1, __ATOMIC_SEQ_CST);
    sessions(NULL, 1, begun, r);
    if (r->active)
        __atomic_store_n(&ns_helper_settled, 0, __ATOMIC_SEQ_CST);
}

/* A server's that nobody has told of (ns_sock_born). */
static bool unattended(struct ns_sock *s, void *ctx)
{
    bool is = ns_sock_state(s) == NS_CONNECTED && s->o.fd >= 0 && s->since.ns == 0;
    *(bool *)ctx |= is;
    return is;
}

static bool any_unattended(struct ns_sock *s, void *ctx)
{
    unattended(s, ctx);
    return false;
}

static void attend(struct ns_time now)
{
    struct ns_sock *born[BATCH];
    size_t n;
    bool any = false;
    do {
        n = sessions(born, BATCH, unattended, &any);
        for (size_t i = 0; i < n; i++)
            ns_helper_attend(born[i], now);
    } while (n == BATCH);
}

static void tick_at(struct ns_time at)
{
    ns_timer_set(&tick, at);
    __atomic_store_n(&ns_helper_ticking, 1, __ATOMIC_SEQ_CST);
}

/* Nothing is looked after any more. What another thread leaves for us from now on it
 * tells, before is found here. */
static void rest(struct round *r)
{
    __atomic_store_n(&ns_helper_ticking, 0, __ATOMIC_SEQ_CST);
    r->any |= __atomic_load_n(&ns_count_dormant, __ATOMIC_SEQ_CST) > 0;
    sessions(NULL, 1, any_unattended, &r->any);
}

static void ticked(struct ns_timer *timer, struct ns_time now)
{
    (void)timer;
    struct ns_sock *suspects[BATCH];
    struct round r = { .now = now };
    attend(now);
    size_t n = sessions(suspects, BATCH, due, &r);
    for (size_t i = 0; i < n; i++)
        ns_resume_try(suspects[i], NS_HEDGE, now);
    if (links_in_doubt)
        link_worse(now);
    links_in_doubt = false;
    r.any |= ns_dormant_reclaim(now);
    if (!r.active)
        settle(&r);
    rests = r.any ? 0 : rests + 1;
    if (rests >= RESTS)
        rest(&r);
    if (rests < RESTS || r.any)
        tick_at(ns_time_add(now, ns_time_ms(r.active ? TICK_MS : SETTLED_MS)));
}

void ns_detect_roused(struct ns_time now)
{
    if (__atomic_load_n(&ns_helper_settled, __ATOMIC_RELAXED) && tick.set)
        return;
    struct ns_time soon = ns_time_add(now, ns_time_ms(TICK_MS));
    if (!tick.set || ns_time_before(soon, tick.at))
        tick_at(soon);
}

void ns_detect_born(struct ns_sock *s, struct ns_time now)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    ns_object_identify(&s->o);
    if (s->o.fd >= 0)
        learn_source(s);
    links_in_doubt |= s->share != NULL; /* nobody looked after it, for a while; fork writes it with the table held */
    ns_table_unhold(&hold);
    s->since = now;
    ns_detect_moved(s, now);
    ns_detect_roused(now);
}

void ns_detect_moved(struct ns_sock *s, struct ns_time now)
{
    struct ns_time hedged = s->pulse.hedged;
    uint32_t backoff = s->pulse.hedge_backoff;
    struct ns_address local;
    struct ns_hold hold;
    s->pulse = (struct ns_pulse){ .progress = now, .heard = now, .hedged = hedged, .hedge_backoff = backoff };
    ns_table_hold(&hold); /* the application may be moving it to other numbers */
    s->pulse.preserved = ns_preserve_local(descriptor(s), &local);
    ns_table_unhold(&hold);
    if (s->pulse.preserved)
        ns_debug("descriptor %d: the kernel moves this connection first", s->o.fd);
    __atomic_store_n(&ns_helper_settled, 0, __ATOMIC_SEQ_CST);
    tick_at(ns_time_add(now, ns_time_ms(TICK_MS)));
}

void ns_detect_doubt_links(void)
{
    links_in_doubt = true;
}

void ns_detect_start(void)
{
    tick.fire = ticked;
    stranded.fire = still_stranded;
    __atomic_store_n(&ns_helper_settled, 1, __ATOMIC_SEQ_CST); /* a session may be in use already */
    link_source = (struct ns_source){ .fd = ns_internal(ns_link_open()), .ready = link_ready };
    if (link_source.fd >= 0)
        ns_loop_add(&link_source, EPOLLIN);
    else
        ns_error("links cannot be watched (%s): losses are noticed later", strerror(-link_source.fd));
}

NS_EACH_FORK void ns_detect_stop(void)
{
    if (link_source.fd >= 0)
        ns_internal_close(link_source.fd);
    link_source.fd = -1;
    tick = stranded = (struct ns_timer){ 0 };
}

NS_EACH_FORK void ns_detect_fork_child(void)
{
    ns_detect_stop();
}
