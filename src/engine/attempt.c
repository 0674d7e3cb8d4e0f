#include "engine/recovery.h"

#include "engine/dial.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/resume.h"
#include "engine/swap.h"
#include "engine/sys.h"

#include <errno.h>
#include <string.h>

#define ATTEMPT_MS 4000 /* one pair's connect and RESUME_ACK */

void ns_attempt_end(struct ns_attempt *a)
{
    if (!a->active)
        return;
    struct ns_sock *s = a->recovery->sock;
    ns_lock(&s->tx);
    ns_exchange_end(&a->exchange);
    ns_unlock(&s->tx);
    ns_timer_clear(&a->timer);
    ns_loop_remove(&a->source);
    /* Once CONFIRM is out, or RESUME of version 1, the server may live on it: then only
     * RST ends it, since FIN would be the end of the stream. */
    if (a->recovery->committed == a || (a->connected && s->session.version == 1))
        ns_swap_abort(a->source.fd);
    else if (!a->connected)
        ns_dial_withdraw(a->source.fd);
    ns_internal_close(a->source.fd);
    a->source.fd = -1;
    a->active = false;
}

/* This pair did not work: on to the next at once. */
static void attempt_failed(struct ns_attempt *a, const char *why, struct ns_time now)
{
    struct ns_recovery *r = a->recovery;
    ns_debug("address pair: %s", why);
    ns_attempt_end(a);
    if (r->committed == a)
        r->committed = NULL;
    if (!r->committed)
        ns_rounds_next(r, now);
}

static void read_answer(struct ns_attempt *a, struct ns_time now);

static void attempt_expired(struct ns_timer *timer, struct ns_time now)
{
    struct ns_attempt *a = (struct ns_attempt *)((char *)timer - offsetof(struct ns_attempt, timer));
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

static bool under_way(const struct ns_recovery *r, const struct ns_pair *pair)
{
    for (int i = 0; i < NS_ATTEMPTS_MAX; i++)
        if (r->attempts[i].active && ns_same_pair(&r->attempts[i].pair, pair))
            return true;
    return false;
}

bool ns_attempts_active(const struct ns_recovery *r)
{
    for (int i = 0; i < NS_ATTEMPTS_MAX; i++)
        if (r->attempts[i].active)
            return true;
    return false;
}

static struct ns_attempt *free_attempt(struct ns_recovery *r)
{
    struct ns_attempt *oldest = &r->attempts[0];
    for (int i = 0; i < NS_ATTEMPTS_MAX; i++) {
        if (!r->attempts[i].active)
            return &r->attempts[i];
        if (ns_time_before(r->attempts[i].timer.at, oldest->timer.at))
            oldest = &r->attempts[i];
    }
    ns_attempt_end(oldest);
    return oldest;
}

static void attempt_event(struct ns_source *source, uint32_t events, struct ns_time now);

bool ns_attempt_start(struct ns_recovery *r, const struct ns_pair *pair, struct ns_time now)
{
    if (under_way(r, pair))
        return false;
    struct ns_attempt *a = free_attempt(r);
    trace_pair(pair);
    int fd = ns_dial(pair, r->sock->port, true);
    if (fd < 0) {
        ns_log_error(&ns_engine.log, NS_LOG_DEBUG, "connect", -fd);
        return false;
    }
    *a = (struct ns_attempt){ .active = true,
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
static bool send_whole(struct ns_attempt *a, const uint8_t *packet, size_t bytes)
{
    return ns_sys_send(a->source.fd, packet, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)bytes;
}

static void send_resume_v1(struct ns_attempt *a, struct ns_time now)
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

static void send_resume(struct ns_attempt *a, struct ns_time now)
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

static void refused(struct ns_attempt *a, struct ns_time now)
{
    struct ns_recovery *r = a->recovery;
    struct ns_sock *s = r->sock;
    /* Refusals carry no proof, so one alone ends nothing: only that of the host
     * that had the session counts, and only when no other address has it. */
    if (a->exchange.refusal == NS_REFUSED_UNKNOWN || a->exchange.refusal == NS_REFUSED_GAP) {
        r->refused_here |= memcmp(a->exchange.refuser, s->session.instance, 16) == 0;
        r->refused_there |= ns_address_equal(&a->pair.destination, &s->pair.destination);
    }
    attempt_failed(a, "RESUME is refused", now);
}

/* What the old path has done since the hedge began says whether to move. */
static bool still_wanted(struct ns_attempt *a)
{
    struct ns_recovery *r = a->recovery;
    if (r->urgency != NS_HEDGE || r->sock->retired)
        return true;
    struct ns_ledger l = ns_recovery_ledger(r->sock);
    bool waiting = l.in_flight > 0 || (l.unsent_bytes > 0 && l.probes > 0);
    bool mute = waiting && l.acknowledged == r->acknowledged;
    bool deaf = l.received == r->received && a->exchange.peer_sent > a->exchange.told_received;
    return mute || deaf;
}

static void commit(struct ns_attempt *a, struct ns_time now)
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
    for (int i = 0; i < NS_ATTEMPTS_MAX; i++)
        if (&r->attempts[i] != a)
            ns_attempt_end(&r->attempts[i]);
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

static void report(struct ns_recovery *r, const struct ns_pair *pair, uint64_t replayed_before,
                   struct ns_time now)
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
static void move_in(struct ns_attempt *a, struct ns_time now)
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
    ns_recovery_finish(r, now);
    ns_resume_over(s, now);
}

static void got_ack_v1(struct ns_attempt *a, struct ns_time now)
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
static void foreign_answer(struct ns_attempt *a, bool reset)
{
    struct ns_recovery *r = a->recovery;
    if (r->committed == a || !ns_address_equal(&a->pair.destination, &r->sock->pair.destination))
        return;
    r->foreign += reset ? 2 : 5;
    if (r->foreign >= 10)
        r->refused_here = true;
}

static void got_packet(struct ns_attempt *a, struct ns_time now)
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

static void read_answer(struct ns_attempt *a, struct ns_time now)
{
    size_t want =
        a->recovery->sock->session.version == 1 ? NS_V1_BYTES_RESUME_ACK : ns_exchange_wants(&a->exchange);
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
    struct ns_attempt *a = (struct ns_attempt *)((char *)source - offsetof(struct ns_attempt, source));
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
        if (err == ECONNREFUSED &&
            ns_address_equal(&a->pair.destination, &a->recovery->sock->pair.destination))
            a->recovery->refused_here = true;
        attempt_failed(a, strerror(err), now);
        return;
    }
    send_resume(a, now);
}
