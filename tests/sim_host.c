#include "sim_host.h"

#include <errno.h>
#include <string.h>

#define MS       ((int64_t)1000000)
#define PROBE_NS (150 * MS)
#define HEDGE_NS (500 * MS)
#define PIECE    4096

void ns_sim_fail(struct ns_sim_host *h, const char *why)
{
    if (!h->failure)
        h->failure = why;
    ns_session_event(&h->session, NS_EVENT_GAVE_UP);
}

void ns_sim_nonce(struct ns_sim_host *h, uint8_t out[16])
{
    for (int i = 0; i < 16; i++)
        out[i] = (uint8_t)ns_sim_random(h->net, 256);
}

void ns_sim_host_init(struct ns_sim_host *h, struct ns_sim_net *net, enum ns_role role, uint8_t version)
{
    memset(h, 0, sizeof *h);
    h->net = net;
    ns_session_init(&h->session, role, version);
    ns_ring_init(&h->inbox, 0);
    h->tx_open = true;
    /* Version 1 has no epochs: two attempts at once could not be told apart. */
    h->parties = role == NS_SERVER ? NS_SIM_GUESTS : version == 1 ? 1 : NS_SIM_ATTEMPTS;
}

void ns_sim_host_free(struct ns_sim_host *h)
{
    ns_session_destroy(&h->session);
    ns_ring_destroy(&h->inbox);
}

static bool connected(const struct ns_sim_host *h)
{
    return h->session.state == NS_CONNECTED;
}

/* ns_sock_lost() */
static void lost(struct ns_sim_host *h)
{
    if (!connected(h) || h->retired)
        return;
    ns_session_event(&h->session, NS_EVENT_LOST);
    h->tx_open = h->replaying = false;
    if (h->session.role == NS_CLIENT)
        ns_sim_try(h, NS_SIM_GONE);
}

/* ---- the application's calls ---- */

static int64_t send_offer(struct ns_sim_host *h)
{
    int64_t n = ns_sim_write(h->net, h->end, h->offer, h->offer_bytes);

    if (n == (int64_t)h->offer_bytes)
        ns_session_event(&h->session, NS_EVENT_NEW);
    return n;
}

int64_t ns_sim_send(struct ns_sim_host *h, const uint8_t *bytes, size_t len)
{
    struct ns_session *s = &h->session;

    if (s->state == NS_OFFERING && send_offer(h) < 0)
        return -EAGAIN;
    if (!h->tx_open || (!connected(h) && s->state != NS_AWAITING))
        return -EAGAIN;
    ns_session_trim(s, ns_sim_unacknowledged(h->end)); /* the engine: only for want of room */
    if (ns_ring_reserve(&s->ring, len, NS_SIM_RING) < 0)
        return -EAGAIN;
    int64_t n = ns_sim_write(h->net, h->end, bytes, len);
    if (n > 0) {
        ns_ring_put(&s->ring, bytes, (size_t)n);
        s->carrier.tx_position = s->ring.head;
    } else if (n != -EAGAIN) {
        lost(h);
        n = -EAGAIN;
    }
    return n;
}

void ns_sim_end_stream(struct ns_sim_host *h)
{
    if ((connected(h) || h->session.state == NS_AWAITING) && h->tx_open)
        ns_sim_shutdown(h->net, h->end);
    h->session.tx_ended = true;
}

/* ns_first_bytes(): NEW comes before the application's bytes. */
static void first_bytes(struct ns_sim_host *h)
{
    struct ns_session *s = &h->session;
    uint8_t packet[NS_PACKET_BYTES_NEW];
    int64_t want = s->version == 1 ? NS_V1_BYTES_NEW : NS_PACKET_BYTES_NEW;

    if (ns_sim_read(h->net, h->end, packet, (size_t)want, true) != want)
        return;
    if (s->version == 1) {
        s->carrier.rx_header_bytes = NS_V1_BYTES_NEW;
    } else if (ns_session_accept(s, &h->identity, &h->master, packet) < 0) {
        ns_sim_fail(h, "NEW was not accepted");
        return;
    }
    ns_sim_read(h->net, h->end, packet, (size_t)want, false);
    ns_session_event(s, NS_EVENT_NEW);
}

int64_t ns_sim_receive(struct ns_sim_host *h, uint8_t *bytes, size_t len)
{
    struct iovec iov[2];

    if (h->session.state == NS_OFFERING)
        send_offer(h);
    if (h->session.state == NS_AWAITING)
        first_bytes(h);
    if (!ns_session_protected(&h->session))
        return -EAGAIN;
    if (ns_ring_get(&h->inbox, h->inbox.tail, iov) > 0) {
        len = len < iov[0].iov_len ? len : iov[0].iov_len;
        memcpy(bytes, iov[0].iov_base, len);
        ns_ring_trim(&h->inbox, h->inbox.tail + len);
        return (int64_t)len;
    }
    if (h->retired)
        return -EAGAIN;
    int64_t n = ns_sim_read(h->net, h->end, bytes, len, false);
    if (n > 0)
        return n;
    if (!connected(h) || n == -EAGAIN)
        return -EAGAIN; /* suspended: what the dead connection still held is read */
    if (n == 0) {
        h->rx_ended = true;
        return 0;
    }
    lost(h);
    return -EAGAIN;
}

/* ---- giving a connection up, and putting another in its place: swap.c ---- */

uint64_t ns_sim_received(const struct ns_sim_host *h)
{
    if (h->retired)
        return h->received;
    return ns_carrier_received(&h->session.carrier, h->end->received,
                               h->rx_ended || ns_sim_knows_fin(h->end));
}

uint64_t ns_sim_safe(const struct ns_sim_host *h)
{
    uint64_t safe = ns_sim_received(h);

    for (unsigned i = 0; i < h->parties; i++) {
        const struct ns_sim_party *p = &h->party[i];

        /* The session's carrier describes this one already. */
        if (p->active && (p == h->committed || p->skipping)) {
            uint64_t here = ns_carrier_received(&h->session.carrier, p->end->received, false);
            safe = here > safe ? here : safe;
        }
    }
    return safe;
}

static void drain(struct ns_sim_host *h)
{
    uint8_t some[PIECE];
    int64_t n;

    while ((n = ns_sim_read(h->net, h->end, some, sizeof some, false)) > 0) {
        if (ns_ring_reserve(&h->inbox, (size_t)n, NS_SIM_RING) < 0) {
            ns_sim_fail(h, "the inbox is full");
            return;
        }
        ns_ring_put(&h->inbox, some, (size_t)n);
    }
}

void ns_sim_retire(struct ns_sim_host *h)
{
    if (h->retired)
        return;
    ns_session_event(&h->session, NS_EVENT_LOST);
    h->tx_open = h->replaying = false;
    h->end->filter = true;
    drain(h);
    h->rx_ended |= ns_sim_knows_fin(h->end);
    h->received = ns_carrier_received(&h->session.carrier, h->end->received, h->rx_ended);
    h->retired = true;
    ns_sim_abort(h->net, h->end);
}

static void replay(struct ns_sim_host *h)
{
    struct ns_session *s = &h->session;
    struct iovec iov[2];
    int64_t n;

    while (ns_ring_get(&s->ring, s->carrier.tx_position, iov) > 0) {
        n = ns_sim_write(h->net, h->end, iov[0].iov_base, iov[0].iov_len);
        if (n == -EAGAIN)
            return;
        if (n < 0) {
            h->replaying = false;
            lost(h);
            return;
        }
        s->carrier.tx_position += (uint64_t)n;
    }
    if (s->tx_ended)
        ns_sim_shutdown(h->net, h->end);
    h->replaying = false;
    h->tx_open = true;
}

void ns_sim_install(struct ns_sim_host *h, struct ns_sim_end *end)
{
    ns_sim_close(h->net, h->end);
    h->end = end;
    end->owner = h;
    h->replaying = true;
    h->tx_open = false;
    h->retired = false;
    h->resumes++;
    ns_session_event(&h->session, NS_EVENT_RESUMED);
    h->progress_ns = h->net->now_ns;
    replay(h);
}

/* ---- either side's parties ---- */

void ns_sim_party_end(struct ns_sim_host *h, struct ns_sim_party *p)
{
    if (!p->active)
        return;
    ns_exchange_end(&p->exchange);
    ns_sim_abort(h->net, p->end);
    ns_sim_close(h->net, p->end);
    p->active = false;
    if (h->committed == p)
        h->committed = NULL;
}

struct ns_sim_party *ns_sim_party_new(struct ns_sim_host *h, struct ns_sim_end *end, int64_t for_ns)
{
    for (unsigned i = 0; i < h->parties; i++)
        if (!h->party[i].active) {
            h->party[i] = (struct ns_sim_party){
                .active = true, .end = end, .exchange.phase = NS_X_OVER, .until_ns = h->net->now_ns + for_ns
            };
            return &h->party[i];
        }
    return NULL;
}

int ns_sim_fill(struct ns_sim_host *h, struct ns_sim_party *p, size_t want)
{
    while (p->have < want) {
        int64_t n = ns_sim_read(h->net, p->end, p->in + p->have, want - p->have, false);
        if (n == -EAGAIN)
            return 0;
        if (n <= 0)
            return -1;
        p->have += (size_t)n;
    }
    return 1;
}

bool ns_sim_write_whole(struct ns_sim_host *h, struct ns_sim_party *p, const uint8_t *packet, size_t len)
{
    return ns_sim_write(h->net, p->end, packet, len) == (int64_t)len;
}

/* ---- the helper's turn ---- */

/* detect.c: nothing is acknowledged though something is outstanding. */
static void look(struct ns_sim_host *h)
{
    int64_t now = h->net->now_ns;

    if (!connected(h) || h->retired)
        return;
    if (h->end->state == NS_SIM_DEAD) {
        lost(h);
        return;
    }
    if (h->end->acknowledged != h->seen_acknowledged || ns_sim_unacknowledged(h->end) == 0) {
        h->seen_acknowledged = h->end->acknowledged;
        h->progress_ns = now;
    }
    if (h->tx_open)
        ns_session_trim(&h->session, ns_sim_unacknowledged(h->end));
    if (h->session.role != NS_CLIENT || h->recovering || h->session.version == 1)
        return;
    if (now - h->progress_ns > PROBE_NS && now - h->hedged_ns > HEDGE_NS) {
        h->hedged_ns = now;
        ns_sim_try(h, NS_SIM_HEDGE);
    }
}

static void timers(struct ns_sim_host *h)
{
    int64_t now = h->net->now_ns;

    for (unsigned i = 0; i < h->parties && !h->failure; i++) {
        struct ns_sim_party *p = &h->party[i];

        if (!p->active || now < p->until_ns)
            continue;
        if (h->session.role == NS_CLIENT)
            ns_sim_attempt_expired(h, p);
        else
            ns_sim_party_end(h, p);
    }
    if (h->stagger_ns && now >= h->stagger_ns) {
        h->stagger_ns = 0;
        if (!h->committed && h->next_path < NS_SIM_PATHS)
            ns_sim_start_next(h);
    }
    if (h->round_ns && now >= h->round_ns)
        ns_sim_new_round(h);
}

static void sources(struct ns_sim_host *h)
{
    for (unsigned i = 0; i < h->parties && !h->failure; i++) {
        if (!h->party[i].active)
            continue;
        if (h->session.role == NS_CLIENT)
            ns_sim_attempt_ready(h, &h->party[i]);
        else
            ns_sim_guest_ready(h, &h->party[i]);
    }
    if (h->replaying && !h->retired)
        replay(h);
    look(h);
}

void ns_sim_turn(struct ns_sim_host *h)
{
    if (h->failure)
        return;
    if (h->timers_first)
        timers(h);
    sources(h);
    if (!h->timers_first)
        timers(h);
}

int64_t ns_sim_due(const struct ns_sim_host *h)
{
    int64_t due = h->stagger_ns;

    if (h->round_ns && (!due || h->round_ns < due))
        due = h->round_ns;
    for (unsigned i = 0; i < h->parties; i++)
        if (h->party[i].active && (!due || h->party[i].until_ns < due))
            due = h->party[i].until_ns;
    return due;
}
