#include "engine/serve.h"

#include "engine/broker.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/guest.h"
#include "engine/first.h"
#include "engine/hello.h"
#include "engine/internal.h"
#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/listener.h"
#include "engine/mailbox.h"
#include "engine/resume.h"
#include "engine/sock.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/witness.h"

#include <errno.h>
#include <string.h>

#define STRANGER_MS   2000
#define PROVEN_MS     10000
#define EXCHANGES_MAX 16 /* about one session; above what a client tries at once */
#define PINNED_MAX    ((uint64_t)1 << 20) /* bytes kept for exchanges about one session, at the least */
#define SEARCH_MS     100
#define SEARCH_LOOKS  2000
#define OFFERED_MAX   64 /* strangers may send RESUMEs for sessions that nobody has */

static struct ns_log_limit refusals;

static struct ns_guest *of_source(struct ns_source *source)
{
    return (struct ns_guest *)((char *)source - offsetof(struct ns_guest, source));
}

static unsigned offered;

static void dismiss(struct ns_guest *g)
{
    struct ns_sock *s = g->sock;
    if (g->state == NS_GUEST_OFFERED) {
        offered--;
        ns_broker_withdraw(g);
    }
    if (s) {
        s->guests--;
        ns_lock(&s->tx);
        ns_exchange_end(&g->exchange);
        ns_unlock(&s->tx);
    }
    /* The client lives on it since its CONFIRM: FIN would end its stream. */
    if (g->state == NS_GUEST_SKIPPING)
        ns_swap_abort(g->source.fd);
    ns_guest_free(g);
    /* If its old connection is given up already, the session waits for another. */
    if (s && !s->parked.set)
        ns_resume_suspended(s, ns_now());
}

static void expired(struct ns_timer *timer, struct ns_time now)
{
    dismiss((struct ns_guest *)((char *)timer - offsetof(struct ns_guest, timer)));
}

static void complain(const char *what, struct ns_time now)
{
    if (ns_log_allowed(&refusals, now))
        ns_info("refused: %s", what);
}

static bool send_whole(struct ns_guest *g, const uint8_t *packet, size_t bytes)
{
    return ns_sys_send(g->source.fd, packet, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)bytes;
}

/* ---- RESUME ---- */

static void refuse(struct ns_guest *g, enum ns_refusal why, uint64_t epoch, struct ns_time now)
{
    uint8_t out[NS_PACKET_BYTES_RESUME_ACK];
    static const uint8_t nobody[16];
    const struct ns_identity *own = ns_identity();
    size_t n = ns_exchange_refuse(why, epoch, own ? own->instance : nobody, out);
    send_whole(g, out, n);
    dismiss(g);
}

/* The oldest exchange about a session goes when another begins and there are many.
 * The other may have connected before all of them, so it must not be among them yet. */
static void make_room(struct ns_sock *s)
{
    struct ns_guest *g = ns_guests;
    while (g && (g->sock != s || g->state != NS_GUEST_ANSWERED))
        g = g->next;
    if (g && s->guests >= EXCHANGES_MAX)
        dismiss(g);
}

/* Strangers may send as many RESUMEs for no session as they like: what it costs to look for one
 * where nobody has read yet is bounded. */
static bool may_search(void)
{
    static struct ns_time until;
    static uint32_t looks;
    struct ns_time now = ns_now();
    if (!ns_time_before(now, until)) {
        until = ns_time_add(now, ns_time_ms(SEARCH_MS));
        looks = 0;
    }
    if (looks >= SEARCH_LOOKS)
        return false;
    looks += __atomic_load_n(&ns_count_awaiting, __ATOMIC_SEQ_CST);
    return true;
}

/* The session, wherever its first connection is by now; table held. */
static struct ns_sock *find(const uint8_t id[16], enum ns_refusal *refusal)
{
    struct ns_sock *s = ns_sock_find(id);
    /* The application may not have read its first bytes yet, or not even accepted it. */
    bool may = s || may_search();
    if (!s && may && ns_first_find(id))
        s = ns_sock_find(id);
    *refusal = s && ns_session_protected(&s->session) ? NS_GO_ON : NS_REFUSED_UNKNOWN;
    if (!s && (!may || ns_listener_queued(id)))
        *refusal = NS_REFUSED_LATER;
    return ns_sock_help(s);
}

enum ns_refusal ns_serve_holds(const uint8_t id[16])
{
    struct ns_hold hold;
    enum ns_refusal refusal;
    uint8_t mailbox[NS_MAILBOX_BYTES];
    ns_table_hold(&hold);
    find(id, &refusal);
    if (refusal == NS_REFUSED_UNKNOWN &&
        (ns_witness_find(id, mailbox) == NS_ROUTE_LATER || ns_listener_hides()))
        refusal = NS_REFUSED_LATER;
    ns_table_unhold(&hold);
    return refusal;
}

static void answered(void *ctx, enum ns_broker_answer answer, struct ns_time now)
{
    struct ns_guest *g = ctx;
    struct ns_resume p = { 0 };
    offered--;
    ns_guest_become(g, NS_GUEST_STRANGER);
    /* The other process has a descriptor of its own. If it only may have, a word from here could come
     * between its own; and if it has not, the client sees an end, and tries again. */
    if (answer == NS_BROKER_TAKEN || answer == NS_BROKER_PERHAPS) {
        ns_guest_free(g);
        return;
    }
    ns_wire_get_resume(g->in, g->have, &p);
    bool unknown = answer == NS_BROKER_UNKNOWN && ns_serve_holds(p.session_id) == NS_REFUSED_UNKNOWN;
    if (unknown)
        complain("a RESUME for a session that no process has", now);
    refuse(g, unknown ? NS_REFUSED_UNKNOWN : NS_REFUSED_LATER, p.epoch, now);
}

/* Whose session it is, the broker knows. Without one that can be asked now, but will be
 * again, nobody can say that there is no such session. */
static bool pass_on(struct ns_guest *g, const struct ns_resume *p, struct ns_time now)
{
    if (g->passed != NS_PASSED_NOT || !ns_broker_expected())
        return false;
    if (offered == OFFERED_MAX || !ns_broker_offer(p->session_id, g->source.fd, g->in, g->have, answered, g)) {
        refuse(g, NS_REFUSED_LATER, p->epoch, now);
        return true;
    }
    offered++;
    ns_guest_become(g, NS_GUEST_OFFERED);
    /* What comes next is another's to read. */
    ns_loop_remove(&g->source);
    ns_timer_clear(&g->timer);
    return true;
}

/* Whether another process of the family has it, and gets the connection. */
static bool passed_on(struct ns_guest *g, const uint8_t id[16], enum ns_refusal *refusal)
{
    struct ns_hold hold;
    uint8_t mailbox[NS_MAILBOX_BYTES];
    ns_table_hold(&hold);
    enum ns_route r = ns_witness_find(id, mailbox);
    ns_table_unhold(&hold);
    if (r == NS_ROUTE_THERE && g->passed != NS_PASSED_BY_FAMILY &&
        ns_mailbox_pass(mailbox, g->source.fd, g->in, g->have)) {
        ns_debug("a RESUME goes to the process that has its session");
        return true;
    }
    /* Where there is a broker it asks all. */
    if (r != NS_ROUTE_NONE && !(g->passed == NS_PASSED_NOT && ns_broker_expected()))
        *refusal = NS_REFUSED_LATER;
    return false;
}

/* So that what the ring holds later is what was kept for the exchange; table and tx held. */
static void forget_acknowledged(struct ns_sock *s)
{
    int64_t unacknowledged = ns_ledger_unacknowledged(s->o.fd >= 0 ? s->o.fd : s->linger_fd);
    if (unacknowledged >= 0 && s->session.state == NS_CONNECTED)
        ns_session_trim(&s->session, (uint64_t)unacknowledged);
}

static void got_resume(struct ns_guest *g, struct ns_time now)
{
    struct ns_resume p;
    uint8_t nonce[16], out[NS_PACKET_BYTES_RESUME_ACK];
    struct ns_hold hold;
    enum ns_refusal refusal;
    const struct ns_identity *own = ns_identity();
    if (ns_wire_get_resume(g->in, g->have, &p) <= 0 || !own || ns_random(nonce, sizeof nonce) < 0) {
        dismiss(g);
        return;
    }
    ns_table_hold(&hold);
    struct ns_sock *s = find(p.session_id, &refusal);
    size_t n = 0;
    bool held = refusal == NS_GO_ON;
    if (held) {
        uint64_t received = ns_swap_received(s);
        ns_lock(&s->tx);
        forget_acknowledged(s);
        n = ns_exchange_answer(&g->exchange, &s->session, g->in, nonce, received, own->instance, &refusal, out);
        ns_unlock(&s->tx);
    }
    ns_table_unhold(&hold);
    if (!held && refusal == NS_REFUSED_UNKNOWN && passed_on(g, p.session_id, &refusal)) {
        dismiss(g);
        return;
    }
    if (!held && refusal == NS_REFUSED_UNKNOWN && pass_on(g, &p, now))
        return;
    if (refusal == NS_REFUSED_LATER) {
        refuse(g, refusal, p.epoch, now);
        return;
    }
    if (refusal != NS_GO_ON) {
        complain(refusal == NS_REFUSED_EPOCH ? "a RESUME whose epoch does not rise"
                 : refusal == NS_REFUSED_GAP ? "a RESUME with an offset that was never sent"
                                             : "a RESUME for a session that is not here, or with a bad tag",
                 now);
        refuse(g, refusal, p.epoch, now);
        return;
    }
    ns_debug("Got RESUME connection, epoch %llu; sending RESUME_ACK", (unsigned long long)p.epoch);
    make_room(s);
    ns_guest_become(g, NS_GUEST_ANSWERED);
    g->sock = s;
    s->guests++;
    struct ns_guest *other = ns_guest_in_the_way(g);
    if (other)
        dismiss(other);
    ns_guest_count(g);
    if (!send_whole(g, out, n)) {
        dismiss(g);
        return;
    }
    g->have = 0;
    ns_timer_set(&g->timer, ns_time_add(now, ns_time_ms(PROVEN_MS)));
}

static void address_of(int fd, bool peer, struct ns_address *out)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    uint16_t port;
    int err = peer ? ns_sys_getpeername(fd, (struct sockaddr *)&ss, &len)
                   : ns_sys_getsockname(fd, (struct sockaddr *)&ss, &len);
    *out = (struct ns_address){ 0 };
    if (err == 0)
        ns_address_from_sockaddr(out, &port, (struct sockaddr *)&ss, len);
}

/* The session lives on this connection now. */
static void take_place(struct ns_guest *g, struct ns_time now)
{
    struct ns_sock *s = g->sock;
    struct ns_pair pair = { 0 };
    address_of(g->source.fd, false, &pair.source);
    address_of(g->source.fd, true, &pair.destination);
    ns_loop_remove(&g->source);
    int fd = g->source.fd;
    g->source.fd = -1;
    s->guests--;
    ns_guest_free(g);
    ns_swap_install(s, fd, &pair, now);
    ns_resume_over(s, now);
    char own[64], client[64];
    ns_address_format(&pair.source, own, sizeof own);
    ns_address_format(&pair.destination, client, sizeof client);
    ns_info("Successfully resumed at server");
    ns_tell("resumed by the client over %s <- %s", own, client);
}

/* Discards what we had of the client's stream before it was sent again. */
static void skip_more(struct ns_guest *g, struct ns_time now)
{
    uint8_t gone[4096];
    while (g->skip > 0) {
        size_t want = g->skip < sizeof gone ? (size_t)g->skip : sizeof gone;
        ssize_t n = ns_sys_recv(g->source.fd, gone, want, MSG_DONTWAIT);
        if (n == -EAGAIN)
            return;
        if (n < 0) {
            dismiss(g);
            return;
        }
        if (n == 0)
            break; /* the stream ends earlier: what was counted as a byte was FIN */
        g->skip -= (uint64_t)n;
    }
    take_place(g, now);
}

static void got_confirm(struct ns_guest *g, struct ns_time now)
{
    struct ns_sock *s = g->sock;
    static const int inlined = 1;
    uint8_t out[NS_PACKET_BYTES_DONE];
    ns_lock(&s->tx);
    enum ns_exchange_step step = ns_session_protected(&s->session) ? ns_exchange_input(&g->exchange, g->in)
                                                                   : NS_STEP_BROKEN;
    ns_unlock(&s->tx);
    if (step != NS_STEP_CONFIRMED) {
        complain("a CONFIRM with a bad tag, or one that comes too late", now);
        dismiss(g);
        return;
    }
    /* A connection that had its turn before may be half-way in. */
    for (struct ns_guest *other = ns_guests, *next; other; other = next) {
        next = other->next;
        if (other != g && other->sock == s)
            dismiss(other);
    }
    int err = ns_swap_retire(s);
    if (err < 0) {
        dismiss(g);
        if (err == -ESTALE)
            ns_sock_abandon(s, now);
        else
            ns_error("cannot give the old connection up (%s)", strerror(-err));
        return;
    }
    ns_lock(&s->tx);
    int n = ns_exchange_done(&g->exchange, s->received, out);
    g->skip = n > 0 ? s->session.carrier.rx_floor - s->session.carrier.rx_start : 0;
    ns_unlock(&s->tx);
    if (n < 0) {
        dismiss(g);
        ns_error("the peer's offsets do not fit the session");
        ns_sock_give_up(s, -ECONNRESET, now);
        return;
    }
    if (!send_whole(g, out, (size_t)n)) {
        dismiss(g);
        return;
    }
    ns_guest_become(g, NS_GUEST_SKIPPING);
    /* An urgent byte among those has been counted: a read must not step over it. The
     * socket gets the application's own setting when it is put in place. */
    ns_sys_setsockopt(g->source.fd, SOL_SOCKET, SO_OOBINLINE, &inlined, sizeof inlined);
    skip_more(g, now);
}

/* ---- version 1 ---- */

static bool same_end(const struct ns_name *name, const uint8_t *address, bool ipv6, uint16_t port)
{
    struct ns_address a;
    uint16_t p;
    if (!name->length || ns_address_from_sockaddr(&a, &p, (const struct sockaddr *)&name->address, name->length) < 0)
        return false;
    return p == port && (a.family == AF_INET6) == ipv6 && memcmp(a.bytes, address, ipv6 ? 16 : 4) == 0;
}

static bool of_last(const struct ns_sock *s, const struct ns_v1_resume *p)
{
    return same_end(&s->last_peer, p->client, p->ipv6, p->client_port) &&
           same_end(&s->last_local, p->server, p->ipv6, p->server_port);
}

/*
 * A client that RESUME_ACK did not reach knows only the connection before. But so
 * does a RESUME that it has left behind: that one must not end a connection that
 * works, nor the session, should its counter be too old.
 */
static bool of_the_one_before(const struct ns_sock *s, const struct ns_v1_resume *p)
{
    return ns_sock_state(s) == NS_SUSPENDED && same_end(&s->before_peer, p->client, p->ipv6, p->client_port) &&
           same_end(&s->before_local, p->server, p->ipv6, p->server_port) &&
           ns_session_holds_v1(&s->session, p->received);
}

/* Thesis 5.1.2: the session is found by the quadruple of its last connection. */
static struct ns_sock *find_v1(const struct ns_v1_resume *p,
                               bool (*matches)(const struct ns_sock *, const struct ns_v1_resume *))
{
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind != NS_KIND_SOCK || s->session.role != NS_SERVER || s->session.version != 1 ||
            !ns_session_protected(&s->session))
            continue;
        if (matches(s, p))
            return s;
    }
    return NULL;
}

static void got_resume_v1(struct ns_guest *g, struct ns_time now)
{
    struct ns_v1_resume p;
    uint8_t out[NS_V1_BYTES_RESUME_ACK];
    struct ns_hold hold;
    if (ns_engine.policy.version != 1 || ns_wire_get_v1_resume(g->in, g->have, &p) <= 0) {
        complain("a RESUME of version 1", now);
        dismiss(g);
        return;
    }
    ns_debug("Searching for server socket to resume");
    ns_table_hold(&hold);
    struct ns_sock *s = find_v1(&p, of_last);
    if (!s)
        s = find_v1(&p, of_the_one_before);
    ns_table_unhold(&hold);
    if (!s || ns_swap_retire(s) < 0) {
        complain("a RESUME for a session that is not here", now);
        dismiss(g);
        return;
    }
    ns_lock(&s->tx);
    int err = ns_session_resume_v1(&s->session, p.received, s->received, sizeof out, (uint32_t)g->have);
    ns_unlock(&s->tx);
    g->sock = s;
    s->guests++;
    g->exchange = (struct ns_exchange){ .phase = NS_X_OVER };
    size_t n = ns_wire_put_v1_resume_ack(out, ns_v1_counter(s->received));
    ns_debug("Addr's and ports match");
    if (err < 0 || !send_whole(g, out, n)) {
        dismiss(g);
        if (err < 0)
            ns_sock_give_up(s, -ECONNRESET, now);
        return;
    }
    ns_debug("Sending NSPT_RESUME_ACK");
    take_place(g, now);
}

/* ---- reading ---- */

/* Reads until `want` bytes are here. Returns 1, 0 (not yet), or -1 (dismissed). */
static int fill(struct ns_guest *g, size_t want)
{
    while (g->have < want) {
        ssize_t n = ns_sys_recv(g->source.fd, g->in + g->have, want - g->have, MSG_DONTWAIT);
        if (n == -EAGAIN)
            return 0;
        if (n <= 0) {
            dismiss(g);
            return -1;
        }
        g->have += (size_t)n;
    }
    return 1;
}

static bool is_hello(struct ns_guest *g)
{
    uint8_t byte = 0, two[2];
    if (ns_sys_recv(g->source.fd, &byte, 1, MSG_OOB | MSG_DONTWAIT) == 1)
        return byte == 'N';
    struct pollfd p = { .fd = g->source.fd, .events = POLLRDHUP };
    ssize_t n = ns_sys_recv(g->source.fd, two, sizeof two, MSG_PEEK | MSG_DONTWAIT);
    ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL);
    return n == 1 && two[0] == 'N' && (p.revents & POLLRDHUP);
}

static void read_stranger(struct ns_guest *g, struct ns_time now)
{
    if (g->have == 0 && is_hello(g)) {
        ns_hello_answer(g, now);
        return;
    }
    if (fill(g, NS_PACKET_BYTES_HEADER) <= 0)
        return;
    int length = ns_wire_length(g->in, g->have);
    uint8_t type = g->in[3];
    if (length <= 0 || (type != NS_PACKET_RESUME && type != NS_PACKET_RESUME4)) {
        complain("a packet of an unknown version or type", now);
        dismiss(g);
        return;
    }
    if (fill(g, (size_t)length) <= 0)
        return;
    if (g->in[2] == 2)
        got_resume(g, now);
    else
        got_resume_v1(g, now);
}

static void guest_event(struct ns_source *source, uint32_t events, struct ns_time now)
{
    struct ns_guest *g = of_source(source);
    switch (g->state) {
    case NS_GUEST_STRANGER:
        read_stranger(g, now);
        break;
    case NS_GUEST_ANSWERED:
        if (fill(g, NS_PACKET_BYTES_CONFIRM) > 0)
            got_confirm(g, now);
        break;
    case NS_GUEST_SKIPPING:
        skip_more(g, now);
        break;
    case NS_GUEST_LEASE:
        if (events & (EPOLLERR | EPOLLHUP))
            dismiss(g);
        break;
    case NS_GUEST_OFFERED:
    case NS_GUEST_FREE:
        break;
    }
}

void ns_serve_take(int fd, struct ns_time now)
{
    struct ns_guest *g = ns_guest_new(fd, guest_event, expired);
    if (!g)
        return;
    ns_loop_add(&g->source, EPOLLIN | EPOLLPRI);
    ns_timer_set(&g->timer, ns_time_add(now, ns_time_ms(STRANGER_MS)));
    read_stranger(g, now);
    /* Only one that has to be waited for takes a place in the table. */
    if (g->state == NS_GUEST_STRANGER)
        ns_guest_count(g);
}

void ns_serve_take_passed(int fd, const uint8_t *read, size_t bytes, bool by_family, struct ns_time now)
{
    struct ns_guest *g = ns_guest_new(fd, guest_event, expired);
    if (!g)
        return;
    ns_loop_add(&g->source, EPOLLIN | EPOLLPRI);
    ns_timer_set(&g->timer, ns_time_add(now, ns_time_ms(STRANGER_MS)));
    g->passed = by_family ? NS_PASSED_BY_FAMILY : NS_PASSED_BY_BROKER;
    ns_debug("took a connection that another process accepted");
    g->have = bytes < sizeof g->in ? bytes : sizeof g->in;
    memcpy(g->in, read, g->have);
    if (ns_wire_length(g->in, g->have) == (int)g->have && g->in[2] == 2 && g->in[3] == NS_PACKET_RESUME)
        got_resume(g, now);
    else
        dismiss(g);
}

NS_EACH_FORK void ns_serve_fork_child(void)
{
    offered = 0;
}

/* What is acknowledged and kept all the same: it grows only while the old connection works, so that
 * nobody needs another. */
static bool pinned_too_much(struct ns_sock *s, uint64_t unacknowledged)
{
    int buffer = 0;
    socklen_t len = sizeof buffer;
    ns_sys_getsockopt(s->o.fd >= 0 ? s->o.fd : s->linger_fd, SOL_SOCKET, SO_SNDBUF, &buffer, &len);
    uint64_t most = 4 * (uint64_t)buffer > PINNED_MAX ? 4 * (uint64_t)buffer : PINNED_MAX;
    ns_lock(&s->tx);
    uint64_t used = ns_ring_used(&s->session.ring);
    ns_unlock(&s->tx);
    return used > unacknowledged && used - unacknowledged > most;
}

void ns_serve_relieve(struct ns_sock *s, uint64_t unacknowledged)
{
    if (s->guests == 0 || !pinned_too_much(s, unacknowledged))
        return;
    ns_info("a client asks for its session and does not take it: it has to ask again");
    for (struct ns_guest *g = ns_guests, *next; g; g = next) {
        next = g->next;
        if (g->sock == s && g->state == NS_GUEST_ANSWERED)
            dismiss(g);
    }
    ns_lock(&s->tx);
    forget_acknowledged(s);
    ns_unlock(&s->tx);
}

void ns_serve_forget(struct ns_sock *s)
{
    for (struct ns_guest *g = ns_guests, *next; g && s->guests > 0; g = next) {
        next = g->next;
        if (g->sock == s)
            dismiss(g);
    }
}
