/* The client's side of a resume: src/engine/resume.c. */
#include "sim_host.h"

#include <errno.h>

#define MS         ((int64_t)1000000)
#define STAGGER_NS (25 * MS)
#define ATTEMPT_NS (4000 * MS)
#define ROUND_MIN  (100 * MS)
#define ROUND_MAX  (4000 * MS)

static bool can_start(const struct ns_sim_host *h)
{
    for (unsigned i = 0; i < h->parties; i++)
        if (!h->party[i].active)
            return true;
    return false;
}

static bool any_active(const struct ns_sim_host *h)
{
    for (unsigned i = 0; i < h->parties; i++)
        if (h->party[i].active)
            return true;
    return false;
}

static void finish(struct ns_sim_host *h)
{
    for (unsigned i = 0; i < h->parties; i++)
        ns_sim_party_end(h, &h->party[i]);
    h->recovering = false;
    h->stagger_ns = h->round_ns = 0;
}

void ns_sim_start_next(struct ns_sim_host *h)
{
    h->round_ns = 0;
    if (h->next_path < NS_SIM_PATHS && can_start(h)) {
        struct ns_sim_end *end = ns_sim_connect(h->net, &h->net->paths[h->next_path++]);
        end->owner = h;
        ns_sim_party_new(h, end, ATTEMPT_NS);
        h->stagger_ns = h->net->now_ns + STAGGER_NS;
        return;
    }
    if (any_active(h))
        return;
    if (h->urgency == NS_SIM_HEDGE) {
        finish(h);
        return;
    }
    h->round_ns = h->net->now_ns + h->round_length_ns;
    h->round_length_ns = h->round_length_ns * 2 < ROUND_MAX ? h->round_length_ns * 2 : ROUND_MAX;
}

void ns_sim_new_round(struct ns_sim_host *h)
{
    h->next_path = 0;
    ns_sim_start_next(h);
}

void ns_sim_try(struct ns_sim_host *h, enum ns_sim_urgency urgency)
{
    if (h->session.role != NS_CLIENT || !ns_session_protected(&h->session))
        return;
    if (h->recovering && urgency <= h->urgency)
        return;
    bool going = h->recovering;
    h->recovering = true;
    h->urgency = urgency;
    if (going) {
        if (h->round_ns || !any_active(h))
            ns_sim_new_round(h);
        return;
    }
    h->round_length_ns = ROUND_MIN;
    h->began_acknowledged = h->end->acknowledged;
    h->began_received = h->end->received;
    ns_sim_new_round(h);
}

static void attempt_failed(struct ns_sim_host *h, struct ns_sim_party *a)
{
    ns_sim_party_end(h, a);
    if (!h->committed)
        ns_sim_start_next(h);
}

static void send_resume(struct ns_sim_host *h, struct ns_sim_party *a)
{
    uint8_t out[NS_PACKET_BYTES_RESUME], n[16];
    size_t len;

    a->connected = true;
    if (h->session.version == 1) {
        ns_sim_retire(h);
        len = ns_wire_put_v1_resume(out, &(struct ns_v1_resume){ .received = ns_v1_counter(h->received) });
    } else {
        ns_sim_nonce(h, n);
        len = ns_exchange_begin(&a->exchange, &h->session, n, ns_sim_received(h), out);
    }
    if (!ns_sim_write_whole(h, a, out, len))
        attempt_failed(h, a);
}

static bool still_wanted(const struct ns_sim_host *h, const struct ns_sim_party *a)
{
    if (h->urgency != NS_SIM_HEDGE || h->retired)
        return true;
    bool waiting = h->end->state == NS_SIM_OPEN && ns_sim_unacknowledged(h->end) > 0;
    bool mute = waiting && h->end->acknowledged == h->began_acknowledged;
    bool deaf = h->end->received == h->began_received && a->exchange.peer_sent > a->exchange.told_received;
    return mute || deaf;
}

static void commit(struct ns_sim_host *h, struct ns_sim_party *a)
{
    uint8_t out[NS_PACKET_BYTES_CONFIRM];

    if (!still_wanted(h, a)) {
        finish(h);
        return;
    }
    for (unsigned i = 0; i < h->parties; i++)
        if (&h->party[i] != a)
            ns_sim_party_end(h, &h->party[i]);
    h->stagger_ns = 0;
    ns_sim_retire(h);
    h->urgency = NS_SIM_GONE;
    int n = ns_exchange_confirm(&a->exchange, h->received, out);
    if (n < 0) {
        ns_sim_fail(h, n == -ENODATA ? "client: the server lacks what is not held" : "client: never sent");
        return;
    }
    h->committed = a;
    a->have = 0;
    if (!ns_sim_write_whole(h, a, out, (size_t)n))
        attempt_failed(h, a);
}

static void move_in(struct ns_sim_host *h, struct ns_sim_party *a)
{
    struct ns_sim_end *end = a->end;

    ns_exchange_end(&a->exchange);
    a->active = false;
    h->committed = NULL;
    finish(h);
    ns_sim_install(h, end);
}

static void got_ack_v1(struct ns_sim_host *h, struct ns_sim_party *a)
{
    uint32_t counter;

    if (ns_wire_get_v1_resume_ack(a->in, a->have, &counter) <= 0)
        attempt_failed(h, a);
    else if (ns_session_resume_v1(&h->session, counter, h->received, NS_V1_BYTES_RESUME4,
                                  NS_V1_BYTES_RESUME_ACK) < 0)
        ns_sim_fail(h, "client: version 1 counters");
    else
        move_in(h, a);
}

static void read_answer(struct ns_sim_host *h, struct ns_sim_party *a)
{
    bool v1 = h->session.version == 1;
    int r = ns_sim_fill(h, a, v1 ? NS_V1_BYTES_RESUME_ACK : ns_exchange_wants(&a->exchange));

    if (r == 0)
        return;
    if (r < 0) {
        attempt_failed(h, a);
        return;
    }
    if (v1) {
        got_ack_v1(h, a);
        return;
    }
    switch (ns_exchange_input(&a->exchange, a->in)) {
    case NS_STEP_PROVED:
        commit(h, a);
        break;
    case NS_STEP_ADOPTED:
        move_in(h, a);
        break;
    case NS_STEP_REFUSED:
        attempt_failed(h, a);
        break;
    default:
        ns_sim_fail(h, "client: a packet did not verify");
    }
}

void ns_sim_attempt_ready(struct ns_sim_host *h, struct ns_sim_party *a)
{
    if (a->end->state == NS_SIM_SYN_SENT)
        return;
    if (a->connected)
        read_answer(h, a);
    else if (a->end->state == NS_SIM_DEAD)
        attempt_failed(h, a);
    else
        send_resume(h, a);
}

/* What has come since must be looked at first: once DONE is here, the server
 * may have forgotten what this kernel has acknowledged after it. */
void ns_sim_attempt_expired(struct ns_sim_host *h, struct ns_sim_party *a)
{
    if (a == h->committed || (h->session.version == 1 && a->connected)) {
        a->end->filter = true;
        read_answer(h, a);
        if (!a->active || h->failure)
            return;
    }
    attempt_failed(h, a);
}
