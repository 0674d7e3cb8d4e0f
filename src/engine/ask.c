#include "engine/ask.h"

#include "engine/await.h"
#include "engine/connect.h"
#include "engine/dial.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/sys.h"
#include "engine/uring.h"
#include "engine/watch.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

#define ANSWERS          64
#define HELLO_MS         5000  /* an answer may come as late as this */
#define NO_FOR_MS        30000 /* a plain peer is not asked again for as long */
#define REFUSED_FOR_MS   2000  /* nobody listened (any more): a one-shot listener */
#define ADDRESS_BYTES    20
#define REPLY_BYTES_MAX  (NS_PACKET_BYTES_HELLO_ACK + NS_HELLO_ADDRESSES * ADDRESS_BYTES)

enum answer {
    ANSWER_NONE,
    ANSWER_PENDING, /* HELLO is out */
    ANSWER_YES,     /* good while the lease is open */
    ANSWER_NO,      /* good until `until` */
};

static struct entry {
    /* under the lock */
    enum answer answer;
    struct ns_address address;
    uint16_t port;
    struct ns_time until;
    struct ns_hello_ack ack;
    struct ns_master master;
    int lease_fd; /* the HELLO connection; -1 when none */
    /* the helper's own */
    struct ns_source source;
    struct ns_timer deadline;
    bool hello_sent;
    size_t reply_bytes;
    uint8_t reply[REPLY_BYTES_MAX];
} entries[ANSWERS] NS_LARGE;

static struct ns_lock lock;
static unsigned next_victim;
static int used; /* entries from here on never held anything; lock */

static void lease_event(struct ns_source *source, uint32_t events, struct ns_time now);
static void hello_event(struct ns_source *source, uint32_t events, struct ns_time now);

static struct entry *entry_of_source(struct ns_source *source)
{
    return (struct entry *)((char *)source - offsetof(struct entry, source));
}

/* ---- what is remembered; lock held ---- */

static struct entry *find(const struct ns_address *a, uint16_t port)
{
    for (int i = 0; i < used; i++)
        if (entries[i].answer != ANSWER_NONE && entries[i].port == port &&
            ns_address_equal(&entries[i].address, a))
            return &entries[i];
    return NULL;
}

/* The end of the server process shows on the lease before a successor of its
 * can have accepted anything. */
static bool lease_open(const struct entry *e)
{
    char byte;
    return e->lease_fd >= 0 && ns_sys_recv(e->lease_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == -EAGAIN;
}

static enum answer remembered(const struct ns_address *a, uint16_t port, struct ns_hello_ack *ack,
                              struct ns_master *master)
{
    struct entry *e = find(a, port);
    if (!e)
        return ANSWER_NONE;
    if (e->answer == ANSWER_YES) {
        if (!lease_open(e))
            return ANSWER_NONE;
        *ack = e->ack;
        *master = e->master;
    }
    if (e->answer == ANSWER_NO && ns_time_before(e->until, ns_now()))
        return ANSWER_NONE;
    return e->answer;
}

bool ns_ask_promised(const struct ns_sock *s)
{
    sigset_t saved;
    ns_lock_quiet(&lock, &saved);
    const struct entry *e = find(&s->pair.destination, s->port);
    bool stands = e && e->answer == ANSWER_YES && lease_open(e) &&
                  memcmp(e->ack.instance, s->session.instance, sizeof e->ack.instance) == 0;
    ns_unlock_quiet(&lock, &saved);
    return stands;
}

/* ---- applying an answer to a session; its tx held ---- */

static void make_offer(struct ns_sock *s, const struct ns_hello_ack *ack, const struct ns_master *master)
{
    if (!ns_sock_event(s, NS_EVENT_ANSWER_YES))
        return;
    s->master = *master;
    memcpy(s->session.instance, ack->instance, sizeof ack->instance);
    s->given_count = ack->count;
    memcpy(s->given, ack->addresses, sizeof s->given);
}

static void make_offer_v1(struct ns_sock *s)
{
    if (!ns_sock_event(s, NS_EVENT_ANSWER_YES))
        return;
    s->session.version = 1;
    s->offer_bytes = (uint8_t)ns_wire_put_v1_new(s->offer);
    s->session.carrier.tx_header_bytes = s->offer_bytes;
    ns_random(s->session.id, sizeof s->session.id);
}

static void start_holding(struct ns_sock *s, int fd)
{
    struct ns_ledger l;
    int64_t rtt_us = ns_ledger_read(fd, &l) == 0 ? l.rtt_us : 0;
    s->hold_until = ns_time_add(ns_now(), (struct ns_time){ 2 * rtt_us * 1000 +
                                                            ns_engine.policy.hold_margin_ms * 1000000 });
    ns_await_mark(s, rtt_us);
}

/* ---- holding: no byte is taken, and nobody is told that the socket is writable ---- */

static void holds_over(struct ns_timer *timer, struct ns_time now);
static struct ns_timer next_hold = { .fire = holds_over }; /* the helper's */

static void unmute_at(struct ns_time at)
{
    if (!next_hold.set || ns_time_before(at, next_hold.at))
        ns_timer_set(&next_hold, at);
}

/* Whatever has not got its answer by now is written to all the same. */
static void holds_over(struct ns_timer *timer, struct ns_time now)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind != NS_KIND_SOCK || ns_sock_state(s) != NS_ASKING)
            continue;
        if (ns_time_before(now, s->hold_until))
            unmute_at(s->hold_until);
        else
            ns_watch_unmute(o);
    }
    ns_table_unhold(&hold);
    ns_slots_wake();
}

void ns_ask_begin(struct ns_sock *s, int fd, bool trusted)
{
    struct ns_hello_ack ack;
    struct ns_master master;
    sigset_t saved;
    enum answer answer = ANSWER_NONE;
    if (!trusted) {
        ns_lock_quiet(&lock, &saved);
        answer = remembered(&s->pair.destination, s->port, &ack, &master);
        ns_unlock_quiet(&lock, &saved);
    }
    bool ask = false;
    ns_lock(&s->tx);
    if (s->session.state == NS_CONNECTING) {
        if (trusted) {
            make_offer_v1(s);
        } else if (answer == ANSWER_YES) {
            make_offer(s, &ack, &master);
        } else if (answer == ANSWER_NO) {
            ns_sock_event(s, NS_EVENT_ANSWER_NO);
        } else {
            start_holding(s, fd);
            ns_sock_event(s, NS_EVENT_ESTABLISHED);
            ask = true;
        }
    }
    enum ns_state state = s->session.state;
    ns_unlock(&s->tx);
    if (ask) {
        if (!s->near) /* else once it was waited for in vain */
            ns_watch_mute_now(s);
        ns_helper_post(s, NS_TODO_ASK);
    } else if (state == NS_PLAIN) {
        ns_sock_forget(s);
    }
}

/* ---- on the helper ---- */

static void answer_yes_to(struct ns_sock *s, const struct entry *e)
{
    ns_lock(&s->tx);
    if (s->session.state == NS_ASKING)
        make_offer(s, &e->ack, &e->master);
    /* A write that waits takes NEW along; otherwise it goes alone, now. */
    bool alone = s->session.state == NS_OFFERING && __atomic_load_n(&s->holders, __ATOMIC_SEQ_CST) == 0;
    ns_unlock(&s->tx);
    if (alone && s->o.fd >= 0)
        ns_offer_now(s, s->o.fd);
}

static void answer_no_to(struct ns_sock *s)
{
    ns_lock(&s->tx);
    bool now = s->session.state == NS_ASKING && ns_sock_event(s, NS_EVENT_ANSWER_NO);
    ns_unlock(&s->tx);
    if (now)
        ns_sock_forget(s);
}

/* Tells every session that waits for this answer. */
static void apply(const struct entry *e)
{
    struct ns_hold hold;
    struct ns_object *next;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = next) {
        struct ns_sock *s = (struct ns_sock *)o;
        next = o->next;
        if (o->kind != NS_KIND_SOCK || ns_sock_state(s) != NS_ASKING || s->port != e->port ||
            !ns_address_equal(&s->pair.destination, &e->address))
            continue;
        if (e->answer == ANSWER_YES) {
            answer_yes_to(s, e);
            ns_watch_unmute(o);
        } else {
            answer_no_to(s);
        }
    }
    ns_table_unhold(&hold);
    ns_slots_wake();
}

static void drop_connection(struct entry *e)
{
    ns_timer_clear(&e->deadline);
    if (e->source.fd < 0)
        return;
    ns_loop_remove(&e->source);
    ns_internal_close(e->source.fd);
    e->source.fd = -1;
}

static void settle(struct entry *e, enum answer answer, int64_t for_ms, struct ns_time now)
{
    sigset_t saved;
    ns_lock_quiet(&lock, &saved);
    e->answer = answer;
    e->until = ns_time_add(now, ns_time_ms(for_ms));
    e->lease_fd = answer == ANSWER_YES ? e->source.fd : -1;
    ns_unlock_quiet(&lock, &saved);
    if (answer != ANSWER_YES)
        drop_connection(e);
    apply(e);
}

static void settle_no(struct entry *e, int64_t for_ms, const char *why, struct ns_time now)
{
    ns_info("the peer is plain TCP: %s", why);
    settle(e, ANSWER_NO, for_ms, now);
}

static void deadline_passed(struct ns_timer *timer, struct ns_time now)
{
    struct entry *e = (struct entry *)((char *)timer - offsetof(struct entry, deadline));
    settle_no(e, NO_FOR_MS, "no answer to HELLO in time", now);
}

static void forget(struct entry *e)
{
    sigset_t saved;
    ns_lock_quiet(&lock, &saved);
    e->answer = ANSWER_NONE;
    e->lease_fd = -1;
    ns_unlock_quiet(&lock, &saved);
    drop_connection(e);
}

static void lease_ended(struct entry *e)
{
    ns_debug("a lease has ended: the peer is asked again");
    forget(e);
}

/* Anything on a lease, end of file above all, ends it. */
static void lease_event(struct ns_source *source, uint32_t events, struct ns_time now)
{
    lease_ended(entry_of_source(source));
}

static void lease_over(struct ns_timer *timer, struct ns_time now)
{
    lease_ended((struct entry *)((char *)timer - offsetof(struct entry, deadline)));
}

/* A host that has lost its power, or its address to another, ends nothing: the kernel
 * asks whether it is still there, and no lease is longer than it was given for. */
static void watch_lease(struct entry *e, struct ns_time now)
{
    int64_t ms = (int64_t)e->ack.lease_s * 1000;
    const int idle_s = (int)(ns_engine.policy.keepalive_idle_ms / 1000);
    const int keepalive[4] = { 1, idle_s, 1, 3 }, patience_ms = (idle_s + 3) * 1000;
    for (int i = 3; i >= 0; i--)
        ns_sys_setsockopt(e->source.fd, ns_keepalive_options[i].level, ns_keepalive_options[i].name,
                          &keepalive[i], sizeof(int));
    ns_sys_setsockopt(e->source.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience_ms, sizeof patience_ms);
    e->deadline.fire = lease_over;
    ns_timer_set(
        &e->deadline,
        ns_time_add(now, ns_time_ms(ms < ns_engine.policy.lease_ms ? ms : ns_engine.policy.lease_ms)));
}

/* With another key the server could not verify NEW. */
static bool same_key(const struct ns_hello_ack *ack)
{
    return ack->key_check == ns_auth_key_check(ns_engine.policy.psk, ns_engine.policy.psk_bytes,
                                               ack->instance, ack->public_key);
}

static void take_answer(struct entry *e, struct ns_time now)
{
    struct ns_hello_ack ack;
    if (ns_wire_get_hello_ack(e->reply, e->reply_bytes, &ack) <= 0 || ack.highest_version < 2 ||
        ns_master_for(&e->master, ack.public_key, false) < 0) {
        settle_no(e, NO_FOR_MS, "its answer to HELLO is not ours", now);
        return;
    }
    if (!same_key(&ack)) {
        ns_error("the peer has another pre-shared key, or only one of us has one");
        settle_no(e, NO_FOR_MS, "its pre-shared key is not ours", now);
        return;
    }
    e->ack = ack;
    ns_info("the peer speaks namesocket, version %d", ack.highest_version);
    ns_timer_clear(&e->deadline);
    e->source.ready = lease_event;
    settle(e, ANSWER_YES, 0, now);
    if (ack.lease_s == 0)
        forget(e);
    else
        watch_lease(e, now);
}

static void read_answer(struct entry *e, struct ns_time now)
{
    int length = e->reply_bytes ? ns_wire_length(e->reply, e->reply_bytes) : 0;
    size_t want = length > 0 ? (size_t)length : 8;
    ssize_t n = ns_sys_recv(e->source.fd, e->reply + e->reply_bytes, want - e->reply_bytes, MSG_DONTWAIT);
    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        settle_no(e, n == 0 ? NO_FOR_MS : REFUSED_FOR_MS, n == 0 ? "it answers HELLO with end of file" : "it refuses HELLO",
                  now);
        return;
    }
    e->reply_bytes += (size_t)n;
    length = ns_wire_length(e->reply, e->reply_bytes);
    if (length < 0 || (size_t)length > sizeof e->reply || (length > 4 && e->reply[3] != NS_PACKET_HELLO_ACK))
        settle_no(e, NO_FOR_MS, "it answers HELLO with something else", now);
    else if (length > 0 && e->reply_bytes == (size_t)length)
        take_answer(e, now);
    else
        read_answer(e, now);
}

static void hello_event(struct ns_source *source, uint32_t events, struct ns_time now)
{
    struct entry *e = entry_of_source(source);
    if (e->hello_sent) {
        read_answer(e, now);
        return;
    }
    int err = 0;
    socklen_t len = sizeof err;
    ns_sys_getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (err || !(events & EPOLLOUT)) {
        settle_no(e, REFUSED_FOR_MS, "it refuses HELLO", now);
        return;
    }
    /* Urgent, so that it is no part of a plain server's input; then the end. */
    ns_sys_send(source->fd, "N", 1, MSG_OOB | MSG_NOSIGNAL | MSG_DONTWAIT);
    ns_sys_shutdown(source->fd, SHUT_WR);
    e->hello_sent = true;
    ns_loop_change(source, EPOLLIN);
}

static struct entry *claim(const struct ns_sock *s)
{
    sigset_t saved;
    struct entry *e = NULL;
    ns_lock_quiet(&lock, &saved);
    for (int i = 0; i < ANSWERS && !e; i++)
        if (entries[i].answer == ANSWER_NONE)
            e = &entries[i];
    /* Before anything else of it changes: a fork may be at any point in between. */
    if (e && e - entries >= used)
        __atomic_store_n(&used, (int)(e - entries) + 1, __ATOMIC_SEQ_CST);
    ns_unlock_quiet(&lock, &saved);
    for (int tries = 0; tries < ANSWERS && !e; tries++) {
        struct entry *victim = &entries[next_victim++ % ANSWERS];
        if (victim->answer != ANSWER_PENDING) {
            forget(victim);
            e = victim;
        }
    }
    if (e) {
        ns_lock_quiet(&lock, &saved);
        e->address = s->pair.destination;
        e->port = s->port;
        e->answer = ANSWER_PENDING;
        ns_unlock_quiet(&lock, &saved);
    }
    return e;
}

/* HELLO goes from where the application's connection comes from. */
static void learn_source(struct ns_sock *s)
{
    struct ns_hold hold;
    uint16_t port;
    ns_table_hold(&hold);
    if (s->o.fd >= 0 && ns_name_learn(&s->local, s->o.fd, ns_sys_getsockname))
        ns_address_from_sockaddr(&s->pair.source, &port, (struct sockaddr *)&s->local.address, s->local.length);
    ns_table_unhold(&hold);
}

void ns_ask_for(struct ns_sock *s, struct ns_time now)
{
    sigset_t saved;
    if (ns_sock_state(s) != NS_ASKING)
        return;
    unmute_at(s->hold_until);
    ns_lock_quiet(&lock, &saved);
    struct entry *e = find(&s->pair.destination, s->port);
    ns_unlock_quiet(&lock, &saved);
    if (e && e->answer == ANSWER_PENDING)
        return;
    if (e && e->answer == ANSWER_YES && lease_open(e)) {
        apply(e);
        return;
    }
    if (e)
        forget(e);
    e = ns_uring_here() ? NULL : claim(s);
    if (!e) {
        answer_no_to(s);
        return;
    }
    e->hello_sent = false;
    e->reply_bytes = 0;
    e->deadline.fire = deadline_passed;
    learn_source(s);
    struct ns_pair pair = { .source = s->pair.source, .destination = e->address };
    e->source = (struct ns_source){ .fd = ns_dial(&pair, e->port, true), .ready = hello_event };
    if (e->source.fd < 0 || ns_loop_add(&e->source, EPOLLOUT) < 0) {
        settle_no(e, REFUSED_FOR_MS, "HELLO cannot be sent", now);
        return;
    }
    ns_timer_set(&e->deadline, ns_time_add(now, ns_time_ms(HELLO_MS)));
}

NS_EACH_FORK void ns_ask_fork_child(void)
{
    next_hold.set = false;
    ns_lock_reset(&lock);
    for (int i = 0; i < used; i++) {
        if (entries[i].answer != ANSWER_NONE && entries[i].source.fd >= 0)
            ns_internal_close(entries[i].source.fd);
        entries[i] = (struct entry){ .source.fd = -1, .lease_fd = -1 };
    }
}
