#include "engine/resume.h"

#include "engine/detect.h"
#include "engine/dial.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/ledger.h"
#include "engine/linger.h"
#include "engine/link.h"
#include "engine/lookup.h"
#include "engine/serve.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS_MAX        32
#define DESTINATIONS_MAX 40
#define LOCALS_MAX       64
#define STAGGER_MIN_MS   10   /* between one pair and the next; two round trips of */
#define STAGGER_MAX_MS   250  /* the old path in between (RFC 8305, 5 and 8) */
#define ATTEMPT_MS       4000 /* one pair's connect and RESUME_ACK */
#define ROUND_MIN_MS     100  /* between rounds over all pairs; doubles */
#define ROUND_MAX_MS     4000

/* One pair being tried. */
struct attempt {
    bool active, connected;
    struct ns_source source;
    struct ns_timer timer;
    struct ns_recovery *recovery;
    struct ns_pair pair;
    struct ns_exchange exchange;
    size_t have;
    uint8_t in[NS_PACKET_BYTES_RESUME_ACK];
};

/* At a time: enough that addresses which never answer do not keep one that
 * would from its turn. When all are taken, the oldest gives way. */
#define ATTEMPTS_MAX 12

struct ns_recovery {
    struct ns_sock *sock;
    enum ns_urgency urgency;
    struct ns_time begun, lost;
    uint64_t acknowledged, received; /* when it began: has the old path moved on since? */
    struct attempt attempts[ATTEMPTS_MAX];
    struct attempt *committed; /* CONFIRM is out on this one */
    struct ns_timer stagger, round, patience;
    int64_t round_ms, stagger_ms;
    struct ns_pair pairs[PAIRS_MAX];
    size_t pair_count, next_pair;
    struct ns_address found[DESTINATIONS_MAX]; /* by the name, this time */
    size_t found_count;
    struct ns_lookup *lookup;
    unsigned foreign;  /* answers in a row, where the session was, that are none of ours */
    bool refused_here; /* the host that had the session says that it has not */
};

static void start_next(struct ns_recovery *r, struct ns_time now);
static void attempt_event(struct ns_source *source, uint32_t events, struct ns_time now);

static struct ns_ledger ledger_now(struct ns_sock *s)
{
    struct ns_ledger l = { 0 };
    struct ns_hold hold;
    ns_table_hold(&hold);
    ns_ledger_read(s->o.fd >= 0 ? s->o.fd : s->linger_fd, &l);
    ns_table_unhold(&hold);
    return l;
}

/* ---- one attempt ---- */

static void attempt_end(struct attempt *a)
{
    if (!a->active)
        return;
    struct ns_sock *s = a->recovery->sock;
    ns_lock(&s->tx);
    ns_exchange_end(&a->exchange);
    ns_unlock(&s->tx);
    ns_timer_clear(&a->timer);
    ns_loop_remove(&a->source);
    /* Once CONFIRM is out the server may live on it: then only RST ends it, since
     * FIN would be the end of the stream. */
    if (a->recovery->committed == a)
        ns_swap_abort(a->source.fd);
    else if (!a->connected)
        ns_dial_withdraw(a->source.fd);
    ns_internal_close(a->source.fd);
    a->source.fd = -1;
    a->active = false;
}

/* This pair did not work: on to the next at once. */
static void attempt_failed(struct attempt *a, const char *why, struct ns_time now)
{
    struct ns_recovery *r = a->recovery;
    ns_debug("address pair: %s", why);
    attempt_end(a);
    if (r->committed == a)
        r->committed = NULL;
    if (!r->committed)
        start_next(r, now);
}

static void read_answer(struct attempt *a, struct ns_time now);

static void attempt_expired(struct ns_timer *timer, struct ns_time now)
{
    struct attempt *a = (struct attempt *)((char *)timer - offsetof(struct attempt, timer));
    struct ns_recovery *r = a->recovery;
    /* DONE may be here already, and bytes behind it that are acknowledged. */
    if (r->committed == a) {
        struct ns_sock *s = r->sock;
        ns_swap_stop_reception(a->source.fd);
        read_answer(a, now);
        if (!s->recovery || !a->active)
            return;
    }
    attempt_failed(a, "no answer in time", now);
}

static void trace_pair(const struct ns_pair *p)
{
    char src[64], dst[64];
    ns_address_format(&p->source, src, sizeof src);
    ns_address_format(&p->destination, dst, sizeof dst);
    ns_debug("Attempting connection with address pair: src: %s dst: %s", src, dst);
}

static bool same_pair(const struct ns_pair *a, const struct ns_pair *b)
{
    return ns_address_equal(&a->source, &b->source) && ns_address_equal(&a->destination, &b->destination);
}

static bool under_way(const struct ns_recovery *r, const struct ns_pair *pair)
{
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        if (r->attempts[i].active && same_pair(&r->attempts[i].pair, pair))
            return true;
    return false;
}

static struct attempt *free_attempt(struct ns_recovery *r)
{
    struct attempt *oldest = &r->attempts[0];
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        if (!r->attempts[i].active)
            return &r->attempts[i];
        if (ns_time_before(r->attempts[i].timer.at, oldest->timer.at))
            oldest = &r->attempts[i];
    }
    attempt_end(oldest);
    return oldest;
}

static bool attempt_start(struct ns_recovery *r, const struct ns_pair *pair, struct ns_time now)
{
    if (under_way(r, pair))
        return false;
    struct attempt *a = free_attempt(r);
    trace_pair(pair);
    int fd = ns_dial(pair, r->sock->port, true);
    if (fd < 0) {
        ns_log_error(&ns_engine.log, NS_LOG_DEBUG, "connect", -fd);
        return false;
    }
    *a = (struct attempt){ .active = true,
                           .recovery = r,
                           .pair = *pair,
                           .source = { .fd = fd, .ready = attempt_event },
                           .timer = { .fire = attempt_expired },
                           .exchange = { .phase = NS_X_OVER } };
    ns_loop_add(&a->source, EPOLLOUT);
    ns_timer_set(&a->timer, ns_time_add(now, ns_time_ms(ATTEMPT_MS)));
    return true;
}

/* Whether the packet went out whole; a new connection has room for it. */
static bool send_whole(struct attempt *a, const uint8_t *packet, size_t bytes)
{
    return ns_sys_send(a->source.fd, packet, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)bytes;
}

static void send_resume_v1(struct attempt *a, struct ns_time now)
{
    struct ns_sock *s = a->recovery->sock;
    uint8_t out[NS_V1_BYTES_RESUME6];
    struct ns_address client, server;
    struct ns_v1_resume p = { 0 };
    /* Thesis 4.2.2: the counter is final, so the old connection goes first. */
    if (ns_swap_retire(s) < 0 ||
        ns_address_from_sockaddr(&client, &p.client_port, (struct sockaddr *)&s->last_local.address,
                                 s->last_local.length) < 0 ||
        ns_address_from_sockaddr(&server, &p.server_port, (struct sockaddr *)&s->last_peer.address,
                                 s->last_peer.length) < 0) {
        attempt_failed(a, "the old connection cannot be given up", now);
        return;
    }
    p.ipv6 = client.family == AF_INET6;
    memcpy(p.client, client.bytes, 16);
    memcpy(p.server, server.bytes, 16);
    p.received = ns_v1_counter(s->received);
    ns_debug("Sending NSPT_RESUME");
    if (!send_whole(a, out, ns_wire_put_v1_resume(out, &p)))
        attempt_failed(a, "RESUME cannot be sent", now);
}

static void send_resume(struct attempt *a, struct ns_time now)
{
    struct ns_sock *s = a->recovery->sock;
    uint8_t nonce[16], out[NS_PACKET_BYTES_RESUME];
    struct ns_hold hold;
    a->connected = true;
    ns_loop_change(&a->source, EPOLLIN);
    if (s->session.version == 1) {
        send_resume_v1(a, now);
        return;
    }
    if (ns_random(nonce, sizeof nonce) < 0) {
        attempt_failed(a, "no randomness", now);
        return;
    }
    ns_table_hold(&hold);
    uint64_t received = ns_swap_received(s);
    ns_lock(&s->tx);
    size_t n = ns_exchange_begin(&a->exchange, &s->session, nonce, received, out);
    ns_unlock(&s->tx);
    ns_table_unhold(&hold);
    ns_debug("Sending NSPT_RESUME, epoch %llu", (unsigned long long)a->exchange.epoch);
    if (!send_whole(a, out, n))
        attempt_failed(a, "RESUME cannot be sent", now);
}

/* ---- an attempt has been answered ---- */

static void refused(struct attempt *a, struct ns_time now)
{
    struct ns_recovery *r = a->recovery;
    struct ns_sock *s = r->sock;
    /* Refusals carry no proof, so one alone ends nothing: only that of the host
     * that had the session counts, and only when no other address has it. */
    if (a->exchange.refusal == NS_REFUSED_UNKNOWN || a->exchange.refusal == NS_REFUSED_GAP)
        r->refused_here |= memcmp(a->exchange.refuser, s->session.instance, 16) == 0 ||
                           ns_address_equal(&a->pair.destination, &s->pair.destination);
    attempt_failed(a, "RESUME is refused", now);
}

/* What the old path has done since the hedge began says whether to move. */
static bool still_wanted(struct attempt *a)
{
    struct ns_recovery *r = a->recovery;
    if (r->urgency != NS_HEDGE || r->sock->retired)
        return true;
    struct ns_ledger l = ledger_now(r->sock);
    bool waiting = l.in_flight > 0 || (l.unsent_bytes > 0 && l.probes > 0);
    bool mute = waiting && l.acknowledged == r->acknowledged;
    bool deaf = l.received == r->received && a->exchange.peer_sent > a->exchange.told_received;
    return mute || deaf;
}

static void finish(struct ns_recovery *r, struct ns_time now);

static void commit(struct attempt *a, struct ns_time now)
{
    struct ns_recovery *r = a->recovery;
    struct ns_sock *s = r->sock;
    uint8_t out[NS_PACKET_BYTES_CONFIRM];
    if (!still_wanted(a)) {
        ns_debug("the old path works after all");
        ns_resume_not_needed(s, now);
        return;
    }
    if (r->lost.ns == 0)
        r->lost = now;
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        if (&r->attempts[i] != a)
            attempt_end(&r->attempts[i]);
    ns_timer_clear(&r->stagger);
    int err = ns_swap_retire(s);
    if (err == -ESTALE) {
        ns_sock_abandon(s, now);
        return;
    }
    if (err < 0) {
        /* Half given up is given up: it must go on by another path. */
        if (ns_sock_state(s) == NS_SUSPENDED)
            r->urgency = NS_DEAD;
        attempt_failed(a, "the old connection cannot be given up yet", now);
        return;
    }
    ns_lock(&s->tx);
    int n = ns_exchange_confirm(&a->exchange, s->received, out);
    ns_unlock(&s->tx);
    if (n < 0) {
        ns_error("the peer's offsets do not fit the session");
        ns_sock_give_up(s, s->error ? s->error : -ECONNRESET, now);
        return;
    }
    r->committed = a;
    r->urgency = NS_DEAD; /* there is no way back to the old path */
    a->have = 0;
    ns_timer_set(&a->timer, ns_time_add(now, ns_time_ms(ATTEMPT_MS)));
    if (!send_whole(a, out, (size_t)n))
        attempt_failed(a, "CONFIRM cannot be sent", now);
}

static void report(struct ns_recovery *r, const struct ns_pair *pair, uint64_t replayed_before, struct ns_time now)
{
    char src[64], dst[64];
    struct ns_sock *s = r->sock;
    double ms = (double)ns_time_sub(now, r->lost.ns ? r->lost : r->begun).ns / 1e6;
    ns_address_format(&pair->source, src, sizeof src);
    ns_address_format(&pair->destination, dst, sizeof dst);
    unsigned long long again = s->replayed - replayed_before;
    ns_info("session resumed after %.1f ms over %s -> %s, %llu bytes sent again", ms, src, dst, again);
    ns_info("Resume successfully completed by client");
    ns_tell("resumed after %.1f ms over %s -> %s, %llu bytes sent again", ms, src, dst, again);
}

/* The attempt's connection becomes the session's. */
static void move_in(struct attempt *a, struct ns_time now)
{
    struct ns_recovery *r = a->recovery;
    struct ns_sock *s = r->sock;
    struct ns_pair pair = a->pair;
    uint64_t before = s->replayed;
    int fd = a->source.fd;
    ns_loop_remove(&a->source);
    ns_timer_clear(&a->timer);
    a->active = false;
    a->source.fd = -1;
    r->committed = NULL;
    ns_swap_install(s, fd, &pair, now);
    report(r, &pair, before, now);
    finish(r, now);
    ns_resume_over(s, now);
}

static void got_ack_v1(struct attempt *a, struct ns_time now)
{
    struct ns_sock *s = a->recovery->sock;
    uint32_t counter;
    if (ns_wire_get_v1_resume_ack(a->in, a->have, &counter) <= 0) {
        attempt_failed(a, "RESUME_ACK is none", now);
        return;
    }
    bool ipv6 = a->pair.source.family == AF_INET6;
    ns_lock(&s->tx);
    int err = ns_session_resume_v1(&s->session, counter, s->received,
                                   ipv6 ? NS_V1_BYTES_RESUME6 : NS_V1_BYTES_RESUME4, NS_V1_BYTES_RESUME_ACK);
    ns_unlock(&s->tx);
    if (err < 0)
        ns_sock_give_up(s, s->error ? s->error : -ECONNRESET, now);
    else
        move_in(a, now);
}

/* Whoever has the server's address and port now does not speak with us. Twice in
 * a row counts as a refusal; a reset, which may be the network's, five times. */
static void foreign_answer(struct attempt *a, bool reset)
{
    struct ns_recovery *r = a->recovery;
    if (r->committed == a || !ns_address_equal(&a->pair.destination, &r->sock->pair.destination))
        return;
    r->foreign += reset ? 2 : 5;
    if (r->foreign >= 10)
        r->refused_here = true;
}

static void got_packet(struct attempt *a, struct ns_time now)
{
    struct ns_sock *s = a->recovery->sock;
    if (s->session.version == 1) {
        got_ack_v1(a, now);
        return;
    }
    ns_lock(&s->tx);
    enum ns_exchange_step step = ns_exchange_input(&a->exchange, a->in);
    ns_unlock(&s->tx);
    switch (step) {
    case NS_STEP_PROVED:
        commit(a, now);
        break;
    case NS_STEP_ADOPTED:
        move_in(a, now);
        break;
    case NS_STEP_REFUSED:
        refused(a, now);
        break;
    default:
        foreign_answer(a, false);
        attempt_failed(a, "the answer is not the peer's", now);
    }
}

static void read_answer(struct attempt *a, struct ns_time now)
{
    size_t want = a->recovery->sock->session.version == 1 ? NS_V1_BYTES_RESUME_ACK
                                                          : ns_exchange_wants(&a->exchange);
    while (a->have < want) {
        ssize_t n = ns_sys_recv(a->source.fd, a->in + a->have, want - a->have, MSG_DONTWAIT);
        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            foreign_answer(a, n < 0);
            attempt_failed(a, n == 0 ? "closed by the peer" : strerror((int)-n), now);
            return;
        }
        a->have += (size_t)n;
    }
    got_packet(a, now);
}

static void attempt_event(struct ns_source *source, uint32_t events, struct ns_time now)
{
    struct attempt *a = (struct attempt *)((char *)source - offsetof(struct attempt, source));
    if (a->connected) {
        read_answer(a, now);
        return;
    }
    int err = 0;
    socklen_t len = sizeof err;
    ns_sys_getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (err) {
        ns_log_error(&ns_engine.log, NS_LOG_DEBUG, "connect", err);
        /* The host is there, the server is not. */
        if (err == ECONNREFUSED && ns_address_equal(&a->pair.destination, &a->recovery->sock->pair.destination))
            a->recovery->refused_here = true;
        attempt_failed(a, strerror(err), now);
        return;
    }
    send_resume(a, now);
}

/* ---- rounds over all pairs ---- */

static size_t add_destination(struct ns_address *list, size_t n, const struct ns_address *a)
{
    for (size_t i = 0; i < n; i++)
        if (ns_address_equal(&list[i], a))
            return n;
    if (n < DESTINATIONS_MAX)
        list[n++] = *a;
    return n;
}

static void given_address(const struct ns_hello_address *h, struct ns_address *out)
{
    *out = (struct ns_address){ .family = h->family == 4 ? AF_INET : AF_INET6 };
    if (h->family == 4)
        memcpy(out->bytes, h->address + 12, 4);
    else
        memcpy(out->bytes, h->address, 16);
}

static bool covers(const struct ns_local *l, const struct ns_address *a)
{
    if (l->address.family != a->family)
        return false;
    for (unsigned bit = 0; bit < l->prefix_length; bit++)
        if ((l->address.bytes[bit / 8] ^ a->bytes[bit / 8]) & 0x80 >> bit % 8)
            return false;
    return true;
}

/*
 * Whether a pair is worth trying early (0), late (2) or as it comes (1). Both
 * ends on one link that works: early. A destination on a link without carrier:
 * late, whatever the source, since the route may lead there still. Thesis 5.1.1
 * matches by prefix for the same reason.
 */
static int lateness(const struct ns_pair *pair, const struct ns_local *locals, size_t n)
{
    int rank = 1;
    for (size_t i = 0; i < n; i++) {
        if (!covers(&locals[i], &pair->destination))
            continue;
        if (!locals[i].carrier && !locals[i].loopback)
            return 2;
        if (ns_address_equal(&locals[i].address, &pair->source))
            rank = 0;
    }
    return rank;
}

/* Stable: within a rank the order stays that of RFC 6724. The failing pair
 * stays last. */
static void links_first(struct ns_recovery *r, const struct ns_local *locals, size_t n)
{
    static struct ns_pair sorted[PAIRS_MAX];
    size_t count = 0;
    for (int rank = 0; rank <= 2; rank++)
        for (size_t i = 0; i < r->pair_count; i++) {
            const struct ns_pair *p = &r->pairs[i];
            int own = same_pair(p, &r->sock->pair) ? 2 : lateness(p, locals, n);
            if (own == rank)
                sorted[count++] = *p;
        }
    memcpy(r->pairs, sorted, count * sizeof *sorted);
}

static void make_pairs(struct ns_recovery *r)
{
    static struct ns_local locals[LOCALS_MAX];
    struct ns_address to[DESTINATIONS_MAX];
    struct ns_sock *s = r->sock;
    size_t n = 0;
    /* What the name says now comes before what was true once. */
    for (size_t i = 0; i < r->found_count; i++)
        n = add_destination(to, n, &r->found[i]);
    n = add_destination(to, n, &s->pair.destination);
    for (uint8_t i = 0; i < s->given_count; i++) {
        struct ns_address a;
        given_address(&s->given[i], &a);
        n = add_destination(to, n, &a);
    }
    ssize_t l = ns_link_addresses(locals, LOCALS_MAX);
    r->pair_count = l > 0 ? ns_path_pairs(locals, (size_t)l, to, n, &s->pair, r->pairs, PAIRS_MAX) : 0;
    if (l > 0)
        links_first(r, locals, (size_t)l);
    r->next_pair = 0;
}

static void found_addresses(void *ctx, int error, const struct ns_address *list, size_t n)
{
    struct ns_recovery *r = ctx;
    r->lookup = NULL;
    for (size_t i = 0; i < n && error == 0; i++)
        r->found_count = add_destination(r->found, r->found_count, &list[i]);
    if (error == 0 && !r->committed) {
        make_pairs(r);
        start_next(r, ns_now());
    }
}

static bool attempts_active(const struct ns_recovery *r)
{
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        if (r->attempts[i].active)
            return true;
    return false;
}

static void new_round(struct ns_recovery *r, struct ns_time now)
{
    struct ns_sock *s = r->sock;
    make_pairs(r);
    if (s->name[0] && !r->lookup) {
        r->found_count = 0;
        r->lookup = ns_lookup_start(s->name, found_addresses, r, now);
    }
    start_next(r, now);
}

static void round_over(struct ns_recovery *r, struct ns_time now)
{
    struct ns_sock *s = r->sock;
    if (r->urgency == NS_HEDGE) {
        finish(r, now);
        return;
    }
    if (r->refused_here && r->urgency == NS_DEAD && !r->lookup) {
        ns_info("no address has the session any more");
        ns_sock_give_up(s, s->error ? s->error : -ETIMEDOUT, now);
        return;
    }
    ns_timer_set(&r->round, ns_time_add(now, ns_time_ms(r->round_ms)));
    r->round_ms = r->round_ms * 2 < ROUND_MAX_MS ? r->round_ms * 2 : ROUND_MAX_MS;
}

/* Starts pairs until one is under way, then waits a little before the next. */
static void start_next(struct ns_recovery *r, struct ns_time now)
{
    if (r->round.set)
        ns_timer_clear(&r->round);
    while (r->next_pair < r->pair_count) {
        if (attempt_start(r, &r->pairs[r->next_pair++], now)) {
            ns_timer_set(&r->stagger, ns_time_add(now, ns_time_ms(r->stagger_ms)));
            return;
        }
    }
    if (!attempts_active(r))
        round_over(r, now);
}

static void stagger_over(struct ns_timer *timer, struct ns_time now)
{
    struct ns_recovery *r = (struct ns_recovery *)((char *)timer - offsetof(struct ns_recovery, stagger));
    if (!r->committed && r->next_pair < r->pair_count)
        start_next(r, now);
}

static void round_due(struct ns_timer *timer, struct ns_time now)
{
    struct ns_recovery *r = (struct ns_recovery *)((char *)timer - offsetof(struct ns_recovery, round));
    r->refused_here = false;
    new_round(r, now);
}

static void patience_over(struct ns_timer *timer, struct ns_time now)
{
    struct ns_recovery *r = (struct ns_recovery *)((char *)timer - offsetof(struct ns_recovery, patience));
    struct ns_sock *s = r->sock;
    if (ns_sock_state(s) == NS_SUSPENDED)
        ns_sock_give_up(s, s->error ? s->error : -ETIMEDOUT, now);
    else
        finish(r, now);
}

/* ---- the whole of it ---- */

static void finish(struct ns_recovery *r, struct ns_time now)
{
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        attempt_end(&r->attempts[i]);
    ns_timer_clear(&r->stagger);
    ns_timer_clear(&r->round);
    ns_timer_clear(&r->patience);
    if (r->lookup)
        ns_lookup_cancel(r->lookup);
    r->sock->recovery = NULL;
    free(r);
}

static int64_t stagger_ms(uint32_t rtt_us)
{
    int64_t ms = 2 * (int64_t)rtt_us / 1000;
    return ms < STAGGER_MIN_MS ? STAGGER_MIN_MS : ms > STAGGER_MAX_MS ? STAGGER_MAX_MS : ms;
}

void ns_resume_stop(struct ns_sock *s, struct ns_time now)
{
    if (s->recovery)
        finish(s->recovery, now);
}

/* TCP_USER_TIMEOUT says "no longer than this" (RFC 5482): then the application
 * gets the error, resumable or not. */
static int64_t patience_ms(struct ns_sock *s)
{
    struct ns_hold hold;
    unsigned user_ms = 0;
    socklen_t len = sizeof user_ms;
    ns_table_hold(&hold);
    ns_sys_getsockopt(s->o.fd >= 0 ? s->o.fd : s->linger_fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, &len);
    ns_table_unhold(&hold);
    return user_ms > 0 && user_ms < ns_engine.policy.give_up_ms ? user_ms : ns_engine.policy.give_up_ms;
}

static struct ns_recovery *begin(struct ns_sock *s, enum ns_urgency urgency, struct ns_time now)
{
    struct ns_ledger l = ledger_now(s);
    struct ns_recovery *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    *r = (struct ns_recovery){ .sock = s,
                               .urgency = urgency,
                               .begun = now,
                               .lost = urgency == NS_HEDGE ? (struct ns_time){ 0 } : now,
                               .acknowledged = l.acknowledged,
                               .received = l.received,
                               .round_ms = ROUND_MIN_MS,
                               .stagger_ms = stagger_ms(l.rtt_us),
                               .stagger.fire = stagger_over,
                               .round.fire = round_due,
                               .patience.fire = patience_over };
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        r->attempts[i].source.fd = -1;
    s->recovery = r;
    ns_timer_set(&r->patience, ns_time_add(now, ns_time_ms(patience_ms(s))));
    return r;
}

void ns_resume_try(struct ns_sock *s, enum ns_urgency urgency, struct ns_time now)
{
    static const char *const words[] = { "suspected", "lost", "dead" };
    struct ns_recovery *r = s->recovery;
    if (s->session.role != NS_CLIENT || !ns_session_protected(&s->session))
        return;
    if (r && urgency <= r->urgency)
        return;
    ns_info("path %s, attempting resume...", words[urgency]);
    if (urgency != NS_HEDGE)
        ns_tell("link lost (%s), trying other paths", words[urgency]);
    if (r) {
        r->urgency = urgency;
        if (r->lost.ns == 0)
            r->lost = now;
        if (r->round.set || !attempts_active(r))
            new_round(r, now);
        return;
    }
    r = begin(s, urgency, now);
    if (r)
        new_round(r, now);
    else
        ns_error("no memory for a resume");
}

void ns_resume_not_needed(struct ns_sock *s, struct ns_time now)
{
    if (s->recovery && !s->recovery->committed && !s->retired && s->recovery->urgency != NS_DEAD)
        finish(s->recovery, now);
}

void ns_resume_progress(struct ns_sock *s, uint64_t acknowledged, uint64_t received, struct ns_time now)
{
    struct ns_recovery *r = s->recovery;
    if (r && (acknowledged > r->acknowledged || received > r->received))
        ns_resume_not_needed(s, now);
}

static bool waits_for_round(const struct ns_object *o)
{
    const struct ns_sock *s = (const struct ns_sock *)o;
    return o->kind == NS_KIND_SOCK && s->recovery && !s->recovery->committed && s->recovery->round.set;
}

void ns_resume_hurry(struct ns_time now)
{
    struct ns_hold hold;
    struct ns_object *o;
    do {
        ns_table_hold(&hold);
        for (o = ns_objects; o && !waits_for_round(o); o = o->next)
            ;
        ns_table_unhold(&hold);
        if (o) {
            struct ns_recovery *r = ((struct ns_sock *)o)->recovery;
            r->round_ms = ROUND_MIN_MS;
            ns_timer_clear(&r->round);
            new_round(r, now);
        }
    } while (o);
}

static void park_over(struct ns_timer *timer, struct ns_time now)
{
    struct ns_sock *s = (struct ns_sock *)((char *)timer - offsetof(struct ns_sock, parked));
    ns_info("nobody has resumed the session in time");
    ns_sock_give_up(s, s->error ? s->error : -ETIMEDOUT, now);
}

void ns_resume_suspended(struct ns_sock *s, struct ns_time now)
{
    struct ns_hold hold;
    if (ns_sock_state(s) != NS_SUSPENDED)
        return;
    ns_swap_stop_replay(s);
    ns_table_hold(&hold);
    ns_watch_suspend(&s->o);
    ns_table_unhold(&hold);
    ns_slots_wake();
    ns_info("session suspended: %s", s->error && s->error != NS_ERROR_END ? strerror(-s->error) : "no connection");
    if (s->session.role == NS_CLIENT) {
        ns_resume_try(s, NS_DEAD, now);
        return;
    }
    /* A reset is as often the client's end as the network's: its own patience. */
    bool reset = s->error == -ECONNRESET || s->error == -EPIPE || s->error == NS_ERROR_END;
    int64_t ms = reset ? ns_engine.policy.reset_grace_ms : ns_engine.policy.park_ms;
    s->parked.fire = park_over;
    ns_timer_set(&s->parked, ns_time_add(now, ns_time_ms(ms)));
}

void ns_resume_over(struct ns_sock *s, struct ns_time now)
{
    ns_timer_clear(&s->parked);
    s->error = 0;
    ns_detect_moved(s, now);
    if (s->linger_fd >= 0)
        ns_linger_look(s, now);
}
