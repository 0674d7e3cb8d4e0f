#include "core/session.h"

#include <errno.h>
#include <string.h>

static const char *const state_names[NS_STATES] = {
    [NS_CONNECTING] = "connecting", [NS_ASKING] = "asking",       [NS_OFFERING] = "offering",
    [NS_AWAITING] = "awaiting",     [NS_CONNECTED] = "connected", [NS_SUSPENDED] = "suspended",
    [NS_PLAIN] = "plain",           [NS_FAILED] = "failed",
};

static const char *const event_names[NS_EVENTS] = {
    [NS_EVENT_ESTABLISHED] = "established", [NS_EVENT_ANSWER_YES] = "answer yes",
    [NS_EVENT_ANSWER_NO] = "answer no",     [NS_EVENT_NEW] = "new",
    [NS_EVENT_NOT_NEW] = "not new",         [NS_EVENT_LOST] = "lost",
    [NS_EVENT_RESUMED] = "resumed",         [NS_EVENT_DEMOTED] = "demoted",
    [NS_EVENT_GAVE_UP] = "gave up",
};

const char *ns_state_name(enum ns_state state)
{
    return state < NS_STATES ? state_names[state] : "?";
}

const char *ns_event_name(enum ns_event event)
{
    return event < NS_EVENTS ? event_names[event] : "?";
}

/* One more than the state to go to, so that an absent entry is "no meaning here". */
#define GO(state) ((state) + 1)

static const uint8_t transitions[NS_STATES][NS_EVENTS] = {
    [NS_CONNECTING] = { [NS_EVENT_ESTABLISHED] = GO(NS_ASKING),
                        [NS_EVENT_ANSWER_YES] = GO(NS_OFFERING),
                        [NS_EVENT_ANSWER_NO] = GO(NS_PLAIN),
                        [NS_EVENT_DEMOTED] = GO(NS_PLAIN) },
    [NS_ASKING] = { [NS_EVENT_ANSWER_YES] = GO(NS_OFFERING),
                    [NS_EVENT_ANSWER_NO] = GO(NS_PLAIN),
                    [NS_EVENT_DEMOTED] = GO(NS_PLAIN) },
    [NS_OFFERING] = { [NS_EVENT_NEW] = GO(NS_CONNECTED), [NS_EVENT_DEMOTED] = GO(NS_PLAIN) },
    [NS_AWAITING] = { [NS_EVENT_NEW] = GO(NS_CONNECTED),
                      [NS_EVENT_NOT_NEW] = GO(NS_PLAIN),
                      [NS_EVENT_DEMOTED] = GO(NS_PLAIN) },
    [NS_CONNECTED] = { [NS_EVENT_LOST] = GO(NS_SUSPENDED), [NS_EVENT_DEMOTED] = GO(NS_PLAIN) },
    [NS_SUSPENDED] = { [NS_EVENT_RESUMED] = GO(NS_CONNECTED), [NS_EVENT_GAVE_UP] = GO(NS_FAILED) },
};

bool ns_session_event(struct ns_session *s, enum ns_event event)
{
    uint8_t go = transitions[s->state][event];
    if (!go)
        return false;
    /* Atomic only because other threads may look; who sets it holds the lock. */
    __atomic_store_n(&s->state, (enum ns_state)(go - 1), __ATOMIC_SEQ_CST);
    return true;
}

void ns_session_init(struct ns_session *s, enum ns_role role, uint8_t version)
{
    *s = (struct ns_session){ .role = role,
                              .version = version,
                              .state = role == NS_CLIENT ? NS_CONNECTING : NS_AWAITING,
                              .carrier = { .opener = role == NS_CLIENT, .adopted = true } };
    ns_ring_init(&s->ring, 0);
}

void ns_session_destroy(struct ns_session *s)
{
    ns_ring_destroy(&s->ring);
    explicit_bzero(&s->keys, sizeof s->keys);
}

/* ---- offsets ---- */

uint64_t ns_carrier_acknowledged(const struct ns_carrier *c, uint64_t unacknowledged, bool fin_queued)
{
    if (fin_queued && unacknowledged > 0)
        unacknowledged--;
    uint64_t written = c->tx_position - c->tx_start;
    return unacknowledged >= written ? c->tx_start : c->tx_position - unacknowledged;
}

uint64_t ns_carrier_received(const struct ns_carrier *c, uint64_t received, bool fin_received)
{
    uint64_t overhead = (uint64_t)c->rx_header_bytes + fin_received;
    uint64_t offset = c->rx_start + (received > overhead ? received - overhead : 0);
    return offset > c->rx_floor ? offset : c->rx_floor;
}

bool ns_carrier_faithful(const struct ns_carrier *c, uint64_t acknowledged, uint64_t unacknowledged,
                         bool fin_queued)
{
    uint64_t expected = c->tx_header_bytes + (c->tx_position - c->tx_start) + c->opener + fin_queued;
    return acknowledged + unacknowledged == expected;
}

void ns_session_trim(struct ns_session *s, uint64_t unacknowledged)
{
    if (s->pins || !s->carrier.adopted)
        return;
    /* While the ring is being sent again, FIN is not in the queue yet. */
    bool fin_queued = s->tx_ended && s->carrier.tx_position == s->ring.head;
    uint64_t acknowledged = ns_carrier_acknowledged(&s->carrier, unacknowledged, fin_queued);
    if (acknowledged > s->ring.tail)
        ns_ring_trim(&s->ring, acknowledged);
}

uint64_t ns_carrier_written(const struct ns_carrier *c, uint64_t acknowledged, uint64_t unacknowledged)
{
    uint64_t overhead = (uint64_t)c->tx_header_bytes + c->opener;
    uint64_t all = acknowledged + unacknowledged;
    return c->tx_start + (all > overhead ? all - overhead : 0);
}

bool ns_session_catch_up(struct ns_session *s, uint64_t position)
{
    if (s->pins || s->tx_ended || position < s->carrier.tx_position || s->carrier.tx_position != s->ring.head)
        return false;
    if (position == s->ring.head)
        return true;
    ns_ring_destroy(&s->ring);
    ns_ring_init(&s->ring, position);
    s->carrier.tx_position = position;
    return true;
}

/* ---- NEW ---- */

size_t ns_session_offer(struct ns_session *s, const struct ns_identity *own, const struct ns_master *master,
                        const uint8_t instance[16], const uint8_t session_id[16],
                        uint8_t out[NS_PACKET_BYTES_NEW])
{
    memcpy(s->id, session_id, sizeof s->id);
    memcpy(s->instance, instance, sizeof s->instance);
    ns_auth_session_keys(&s->keys, master, s->id, s->instance, s->version);

    struct ns_new p = { 0 };
    memcpy(p.session_id, s->id, sizeof p.session_id);
    memcpy(p.client_key, own->public_key, sizeof p.client_key);
    memcpy(p.instance8, instance, sizeof p.instance8);
    size_t n = ns_wire_put_new(out, &p);
    ns_auth_sign(out, n, s->keys.c2s, NULL);
    s->carrier.tx_header_bytes = (uint32_t)n;
    return n;
}

int ns_session_accept(struct ns_session *s, const struct ns_identity *own, const struct ns_master *master,
                      const uint8_t packet[NS_PACKET_BYTES_NEW])
{
    struct ns_new p;
    if (ns_wire_get_new(packet, NS_PACKET_BYTES_NEW, &p) <= 0)
        return -EBADMSG;
    if (memcmp(p.instance8, own->instance, sizeof p.instance8) != 0)
        return -EBADMSG;
    struct ns_session_keys keys;
    ns_auth_session_keys(&keys, master, p.session_id, own->instance, s->version);
    if (!ns_auth_verify(keys.c2s, NULL, packet, NS_PACKET_BYTES_NEW))
        return -EBADMSG;
    s->keys = keys;
    memcpy(s->id, p.session_id, sizeof s->id);
    memcpy(s->instance, own->instance, sizeof s->instance);
    s->carrier.rx_header_bytes = NS_PACKET_BYTES_NEW;
    return 0;
}

/* ---- the RESUME exchange ---- */

static void pin(struct ns_session *s)
{
    s->pins++;
}

void ns_exchange_end(struct ns_exchange *x)
{
    if (x->session && x->phase != NS_X_OVER)
        x->session->pins--;
    x->phase = NS_X_OVER;
}

size_t ns_exchange_begin(struct ns_exchange *x, struct ns_session *s, const uint8_t nonce[16],
                         uint64_t received, uint8_t out[NS_PACKET_BYTES_RESUME])
{
    *x = (struct ns_exchange){ .session = s, .epoch = ++s->epoch, .told_received = received,
                               .phase = NS_X_RESUME_SENT };
    memcpy(x->client_nonce, nonce, sizeof x->client_nonce);
    pin(s);

    struct ns_resume p = { .epoch = x->epoch, .receive_offset = received };
    memcpy(p.session_id, s->id, sizeof p.session_id);
    memcpy(p.nonce, nonce, sizeof p.nonce);
    size_t n = ns_wire_put_resume(out, &p);
    ns_auth_sign(out, n, s->keys.c2s, NULL);
    x->tx_bytes = (uint32_t)n;
    return n;
}

size_t ns_exchange_refuse(enum ns_refusal why, uint64_t epoch, const uint8_t own_instance[16],
                          uint8_t out[NS_PACKET_BYTES_RESUME_ACK])
{
    struct ns_resume_ack p = { .status = (uint8_t)why, .epoch = epoch };
    memcpy(p.nonce, own_instance, sizeof p.nonce);
    return ns_wire_put_resume_ack(out, &p);
}

/*
 * A receive offset that was never sent, or is no longer held, is never clamped.
 * But the kernel counts FIN as a byte, and on a socket that died the peer cannot
 * always tell: one past the end of an ended stream is its end. A peer that has
 * counted it so goes on from there, and may count the FIN of the next
 * connection too: one more each time.
 */
static int judge_offset(const struct ns_session *s, uint64_t *told)
{
    if (s->tx_ended && *told > s->ring.head && *told - s->ring.head <= s->fins_counted + 1)
        *told = s->ring.head;
    uint64_t offset = *told;
    if (offset > s->ring.head)
        return -EPROTO;
    return offset < s->ring.tail ? -ENODATA : 0;
}

/* The same for the offset that a new connection starts at. */
static int settle_offset(struct ns_session *s, uint64_t *told)
{
    uint64_t counted = *told;
    int err = judge_offset(s, told);
    if (err == 0)
        s->fins_counted = counted - *told;
    return err;
}

static enum ns_refusal judge_resume(const struct ns_session *s, struct ns_resume *p,
                                    const uint8_t *packet)
{
    /* A bad tag learns nothing that an unknown session would not. */
    if (s->role != NS_SERVER || !ns_session_protected(s) ||
        !ns_auth_verify(s->keys.c2s, NULL, packet, NS_PACKET_BYTES_RESUME))
        return NS_REFUSED_UNKNOWN;
    if (p->epoch <= s->epoch)
        return NS_REFUSED_EPOCH;
    /* On a path that still works the client's kernel may have acknowledged more
     * since: only its final offset, in CONFIRM, has to be held. */
    if (judge_offset(s, &p->receive_offset) == -EPROTO)
        return NS_REFUSED_GAP;
    return NS_GO_ON;
}

size_t ns_exchange_answer(struct ns_exchange *x, struct ns_session *s,
                          const uint8_t packet[NS_PACKET_BYTES_RESUME], const uint8_t nonce[16],
                          uint64_t received, const uint8_t own_instance[16], enum ns_refusal *refusal,
                          uint8_t out[NS_PACKET_BYTES_RESUME_ACK])
{
    struct ns_resume p;
    *x = (struct ns_exchange){ .session = s, .phase = NS_X_OVER };
    *refusal = NS_REFUSED_UNKNOWN;
    if (ns_wire_get_resume(packet, NS_PACKET_BYTES_RESUME, &p) > 0)
        *refusal = judge_resume(s, &p, packet);
    else
        p.epoch = 0;
    if (*refusal != NS_GO_ON)
        return ns_exchange_refuse(*refusal, p.epoch, own_instance, out);

    x->epoch = s->epoch = p.epoch;
    x->peer_received = p.receive_offset;
    x->phase = NS_X_ACKNOWLEDGED;
    memcpy(x->client_nonce, p.nonce, sizeof x->client_nonce);
    memcpy(x->server_nonce, nonce, sizeof x->server_nonce);
    pin(s);

    struct ns_resume_ack ack = { .status = NS_GO_ON,
                                 .epoch = p.epoch,
                                 .receive_offset = received,
                                 .send_offset = s->ring.head };
    memcpy(ack.nonce, nonce, sizeof ack.nonce);
    size_t n = ns_wire_put_resume_ack(out, &ack);
    ns_auth_sign(out, n, s->keys.s2c, x->client_nonce);
    x->rx_bytes = NS_PACKET_BYTES_RESUME;
    x->tx_bytes = (uint32_t)n;
    return n;
}

size_t ns_exchange_wants(const struct ns_exchange *x)
{
    switch (x->phase) {
    case NS_X_RESUME_SENT:
        return NS_PACKET_BYTES_RESUME_ACK;
    case NS_X_ACKNOWLEDGED:
        return x->session->role == NS_SERVER ? NS_PACKET_BYTES_CONFIRM : 0;
    case NS_X_CONFIRM_SENT:
        return NS_PACKET_BYTES_DONE;
    case NS_X_OVER:
        break;
    }
    return 0;
}

static enum ns_exchange_step input_resume_ack(struct ns_exchange *x, const uint8_t *packet)
{
    struct ns_resume_ack p;
    if (ns_wire_get_resume_ack(packet, NS_PACKET_BYTES_RESUME_ACK, &p) <= 0 || p.epoch != x->epoch)
        return NS_STEP_BROKEN;
    if (p.status != NS_GO_ON) {
        x->refusal = p.status;
        memcpy(x->refuser, p.nonce, sizeof x->refuser);
        return NS_STEP_REFUSED;
    }
    if (!ns_auth_verify(x->session->keys.s2c, x->client_nonce, packet, NS_PACKET_BYTES_RESUME_ACK))
        return NS_STEP_BROKEN;
    memcpy(x->server_nonce, p.nonce, sizeof x->server_nonce);
    x->peer_received = p.receive_offset;
    x->peer_sent = p.send_offset;
    x->phase = NS_X_ACKNOWLEDGED;
    return NS_STEP_PROVED;
}

static enum ns_exchange_step input_confirm(struct ns_exchange *x, const uint8_t *packet)
{
    struct ns_confirm p;
    if (ns_wire_get_confirm(packet, NS_PACKET_BYTES_CONFIRM, &p) <= 0 ||
        !ns_auth_verify(x->session->keys.c2s, x->server_nonce, packet, NS_PACKET_BYTES_CONFIRM))
        return NS_STEP_BROKEN;
    /* Another path was confirmed since: this one comes from before it. */
    if (x->epoch <= x->session->confirmed)
        return NS_STEP_BROKEN;
    x->session->confirmed = x->epoch;
    x->peer_received = p.receive_offset;
    x->peer_start = p.start_offset;
    return NS_STEP_CONFIRMED;
}

static enum ns_exchange_step input_done(struct ns_exchange *x, const uint8_t *packet)
{
    struct ns_done p;
    struct ns_session *s = x->session;
    if (ns_wire_get_done(packet, NS_PACKET_BYTES_DONE, &p) <= 0 ||
        !ns_auth_verify(s->keys.s2c, x->client_nonce, packet, NS_PACKET_BYTES_DONE))
        return NS_STEP_BROKEN;
    if (judge_offset(s, &p.receive_offset) < 0 || p.receive_offset < s->carrier.tx_start)
        return NS_STEP_BROKEN;
    x->peer_received = p.receive_offset;
    s->carrier.adopted = true;
    ns_exchange_end(x);
    return NS_STEP_ADOPTED;
}

enum ns_exchange_step ns_exchange_input(struct ns_exchange *x, const uint8_t *packet)
{
    x->rx_bytes += (uint32_t)ns_exchange_wants(x);
    switch (x->phase) {
    case NS_X_RESUME_SENT:
        return input_resume_ack(x, packet);
    case NS_X_ACKNOWLEDGED:
        return x->session->role == NS_SERVER ? input_confirm(x, packet) : NS_STEP_BROKEN;
    case NS_X_CONFIRM_SENT:
        return input_done(x, packet);
    case NS_X_OVER:
        break;
    }
    return NS_STEP_BROKEN;
}

int ns_exchange_confirm(struct ns_exchange *x, uint64_t received, uint8_t out[NS_PACKET_BYTES_CONFIRM])
{
    struct ns_session *s = x->session;
    int err = judge_offset(s, &x->peer_received);
    if (err)
        return err;

    struct ns_confirm p = { .receive_offset = received, .start_offset = x->peer_received };
    size_t n = ns_wire_put_confirm(out, &p);
    ns_auth_sign(out, n, s->keys.c2s, x->server_nonce);
    x->tx_bytes += (uint32_t)n;
    x->phase = NS_X_CONFIRM_SENT;
    s->carrier = (struct ns_carrier){ .tx_start = p.start_offset,
                                      .tx_position = p.start_offset,
                                      .rx_start = received,
                                      .rx_floor = received,
                                      .tx_header_bytes = x->tx_bytes,
                                      .rx_header_bytes = x->rx_bytes + NS_PACKET_BYTES_DONE,
                                      .opener = true };
    return (int)n;
}

int ns_exchange_done(struct ns_exchange *x, uint64_t received, uint8_t out[NS_PACKET_BYTES_DONE])
{
    struct ns_session *s = x->session;
    int err = settle_offset(s, &x->peer_received);
    if (err)
        return err;
    if (x->peer_start > received)
        return -EPROTO;

    struct ns_done p = { .receive_offset = received };
    size_t n = ns_wire_put_done(out, &p);
    ns_auth_sign(out, n, s->keys.s2c, x->client_nonce);
    x->tx_bytes += (uint32_t)n;
    s->carrier = (struct ns_carrier){ .tx_start = x->peer_received,
                                      .tx_position = x->peer_received,
                                      .rx_start = x->peer_start,
                                      .rx_floor = received,
                                      .tx_header_bytes = x->tx_bytes,
                                      .rx_header_bytes = x->rx_bytes,
                                      .adopted = true };
    ns_exchange_end(x);
    return (int)n;
}

/* ---- version 1 ---- */

uint64_t ns_v1_offset(uint32_t counter, uint64_t about)
{
    int32_t distance = (int32_t)(counter - (uint32_t)about);
    return about + (uint64_t)(int64_t)distance;
}
bool ns_session_holds_v1(const struct ns_session *s, uint32_t peer_counter)
{
    uint64_t start = ns_v1_offset(peer_counter, s->ring.head);
    return judge_offset(s, &start) == 0;
}


int ns_session_resume_v1(struct ns_session *s, uint32_t peer_counter, uint64_t received, uint32_t tx_header,
                         uint32_t rx_header)
{
    uint64_t start = ns_v1_offset(peer_counter, s->ring.head);
    int err = settle_offset(s, &start);
    if (err)
        return err;
    s->carrier = (struct ns_carrier){ .tx_start = start,
                                      .tx_position = start,
                                      .rx_start = received,
                                      .rx_floor = received,
                                      .tx_header_bytes = tx_header,
                                      .rx_header_bytes = rx_header,
                                      .opener = s->role == NS_CLIENT,
                                      .adopted = true };
    return 0;
}
