/* The server's side of a resume: src/engine/serve.c. */
#include "sim_host.h"

#include <errno.h>

#define MS          ((int64_t)1000000)
#define STRANGER_NS (2000 * MS)
#define PROVEN_NS   (10000 * MS)
#define PIECE       4096

void ns_sim_take(struct ns_sim_host *h, struct ns_sim_end *end)
{
    struct ns_sim_party *g = ns_sim_party_new(h, end, STRANGER_NS);

    if (!g) {
        ns_sim_close(h->net, end);
        return;
    }
    end->owner = h;
    g->stranger = true;
}

static void take_place(struct ns_sim_host *h, struct ns_sim_party *g)
{
    g->active = g->skipping = false;
    ns_sim_install(h, g->end);
}

static void skip_more(struct ns_sim_host *h, struct ns_sim_party *g)
{
    uint8_t gone[PIECE];

    while (g->skip > 0) {
        int64_t n =
            ns_sim_read(h->net, g->end, gone, g->skip < sizeof gone ? (size_t)g->skip : sizeof gone, false);
        if (n == -EAGAIN)
            return;
        if (n < 0) {
            ns_sim_party_end(h, g);
            return;
        }
        if (n == 0)
            break; /* what was counted as a byte was FIN */
        g->skip -= (uint64_t)n;
    }
    take_place(h, g);
}

static void got_resume_v1(struct ns_sim_host *h, struct ns_sim_party *g)
{
    uint8_t out[NS_V1_BYTES_RESUME_ACK];
    struct ns_v1_resume p;

    if (ns_wire_get_v1_resume(g->in, g->have, &p) <= 0 || !ns_session_protected(&h->session)) {
        ns_sim_party_end(h, g);
        return;
    }
    ns_sim_retire(h);
    if (ns_session_resume_v1(&h->session, p.received, h->received, sizeof out, NS_V1_BYTES_RESUME4) < 0) {
        ns_sim_fail(h, "server: version 1 counters");
        return;
    }
    if (ns_sim_write_whole(h, g, out, ns_wire_put_v1_resume_ack(out, ns_v1_counter(h->received))))
        take_place(h, g);
    else
        ns_sim_party_end(h, g);
}

static void got_resume(struct ns_sim_host *h, struct ns_sim_party *g)
{
    uint8_t out[NS_PACKET_BYTES_RESUME_ACK], n[16];
    enum ns_refusal refusal;

    ns_sim_nonce(h, n);
    size_t len = ns_exchange_answer(&g->exchange, &h->session, g->in, n, ns_sim_received(h),
                                    h->identity.instance, &refusal, out);
    bool sent = ns_sim_write_whole(h, g, out, len);
    if (refusal != NS_GO_ON && refusal != NS_REFUSED_EPOCH && ns_session_protected(&h->session))
        ns_sim_fail(h, "server: refused the client");
    if (refusal != NS_GO_ON) {
        ns_sim_close(h->net, g->end);
        g->active = false;
        return;
    }
    g->stranger = false;
    g->have = 0;
    g->until_ns = h->net->now_ns + PROVEN_NS;
    if (!sent)
        ns_sim_party_end(h, g);
}

static void got_confirm(struct ns_sim_host *h, struct ns_sim_party *g)
{
    uint8_t out[NS_PACKET_BYTES_DONE];

    if (ns_exchange_input(&g->exchange, g->in) != NS_STEP_CONFIRMED) {
        ns_sim_party_end(h, g);
        return;
    }
    for (unsigned i = 0; i < h->parties; i++)
        if (&h->party[i] != g && !h->party[i].stranger)
            ns_sim_party_end(h, &h->party[i]);
    ns_sim_retire(h);
    int n = ns_exchange_done(&g->exchange, h->received, out);
    if (n < 0) {
        ns_sim_fail(h, n == -ENODATA ? "server: the client lacks what is not held" : "server: never sent");
        return;
    }
    g->skip = h->session.carrier.rx_floor - h->session.carrier.rx_start;
    g->skipping = true;
    if (ns_sim_write_whole(h, g, out, (size_t)n))
        skip_more(h, g);
    else
        ns_sim_party_end(h, g);
}

void ns_sim_guest_ready(struct ns_sim_host *h, struct ns_sim_party *g)
{
    bool v1 = h->session.version == 1;
    size_t want = !g->stranger ? NS_PACKET_BYTES_CONFIRM : v1 ? NS_V1_BYTES_RESUME4 : NS_PACKET_BYTES_RESUME;

    if (g->skipping) {
        skip_more(h, g);
        return;
    }
    int r = ns_sim_fill(h, g, want);
    if (r < 0)
        ns_sim_party_end(h, g);
    else if (r > 0 && !g->stranger)
        got_confirm(h, g);
    else if (r > 0 && v1)
        got_resume_v1(h, g);
    else if (r > 0)
        got_resume(h, g);
}
