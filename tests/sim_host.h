/*
 * One end of a session in the simulation: what src/engine does with a session
 * (send.c, swap.c, resume.c, serve.c), in the same order, over sim_net's kernel
 * in place of sockets. The application above it is simulation.c's.
 */
#ifndef NS_TESTS_SIM_HOST_H
#define NS_TESTS_SIM_HOST_H

#include "core/session.h"
#include "sim_net.h"

#define NS_SIM_ATTEMPTS 4
#define NS_SIM_GUESTS   16
#define NS_SIM_RING     ((size_t)1 << 20)

enum ns_sim_urgency {
    NS_SIM_HEDGE,
    NS_SIM_LOST,
    NS_SIM_GONE,
};

/* A client's attempt or a server's guest. */
struct ns_sim_party {
    bool active, connected, skipping, stranger;
    struct ns_sim_end *end;
    struct ns_exchange exchange;
    int64_t until_ns; /* then it is given up */
    uint64_t skip;
    size_t have;
    uint8_t in[NS_PACKET_BYTES_MAX];
};

struct ns_sim_host {
    struct ns_sim_net *net;
    struct ns_session session;
    struct ns_identity identity;
    struct ns_master master;
    struct ns_sim_end *end; /* under the application's descriptor */
    struct ns_ring inbox;
    uint64_t received; /* once retired */
    bool retired, tx_open, rx_ended, replaying;
    uint8_t offer[NS_PACKET_BYTES_NEW];
    size_t offer_bytes;

    /* the helper thread */
    int64_t busy_until_ns; /* it is doing something else */
    bool woken;
    bool timers_first;
    struct ns_sim_party party[NS_SIM_GUESTS];
    unsigned parties; /* how many there may be at once */

    /* client */
    bool recovering;
    enum ns_sim_urgency urgency;
    struct ns_sim_party *committed;
    int next_path;
    int64_t stagger_ns, round_ns, round_length_ns; /* 0: not set */
    uint64_t began_acknowledged, began_received;
    uint64_t seen_acknowledged;
    int64_t progress_ns, hedged_ns;

    unsigned resumes;
    const char *failure; /* the session was given up */
};

void ns_sim_host_init(struct ns_sim_host *h, struct ns_sim_net *net, enum ns_role role, uint8_t version);
void ns_sim_host_free(struct ns_sim_host *h);

/* ---- the application's calls; bytes or negative errno ---- */

int64_t ns_sim_send(struct ns_sim_host *h, const uint8_t *bytes, size_t len);
int64_t ns_sim_receive(struct ns_sim_host *h, uint8_t *bytes, size_t len);
void ns_sim_end_stream(struct ns_sim_host *h);

/* ---- the helper ---- */

/* One turn: timers that are due, and whoever is ready. */
void ns_sim_turn(struct ns_sim_host *h);

/* When the next timer is due, or 0. */
int64_t ns_sim_due(const struct ns_sim_host *h);

/* A connection was accepted for the server's helper. */
void ns_sim_take(struct ns_sim_host *h, struct ns_sim_end *end);

/* Client: tries other paths. */
void ns_sim_try(struct ns_sim_host *h, enum ns_sim_urgency urgency);

/* Gives the connection up, as a server does whose address is gone. */
void ns_sim_retire(struct ns_sim_host *h);

/* The receive offset now. */
uint64_t ns_sim_received(const struct ns_sim_host *h);

/* What the peer may count on being here, whatever connection it came on. */
uint64_t ns_sim_safe(const struct ns_sim_host *h);

/* ---- between sim_host.c, sim_client.c and sim_server.c ---- */

/* The session is given up: `why` is what the simulation fails with. */
void ns_sim_fail(struct ns_sim_host *h, const char *why);

void ns_sim_nonce(struct ns_sim_host *h, uint8_t out[16]);

/* The connection becomes the session's, and the ring is sent again on it. */
void ns_sim_install(struct ns_sim_host *h, struct ns_sim_end *end);

/* NULL when there are too many. */
struct ns_sim_party *ns_sim_party_new(struct ns_sim_host *h, struct ns_sim_end *end, int64_t for_ns);

/* Gives the connection up by RST: FIN could be taken for the end of the stream,
 * once the peer has adopted the connection. */
void ns_sim_party_end(struct ns_sim_host *h, struct ns_sim_party *p);

/* Reads until `want` bytes are here: 1, 0 for not yet, -1 when it is over. */
int ns_sim_fill(struct ns_sim_host *h, struct ns_sim_party *p, size_t want);

bool ns_sim_write_whole(struct ns_sim_host *h, struct ns_sim_party *p, const uint8_t *packet, size_t len);

/* Client: the stagger or the round is over; something happened to an attempt;
 * its time is over. */
void ns_sim_start_next(struct ns_sim_host *h);
void ns_sim_new_round(struct ns_sim_host *h);
void ns_sim_attempt_ready(struct ns_sim_host *h, struct ns_sim_party *a);
void ns_sim_attempt_expired(struct ns_sim_host *h, struct ns_sim_party *a);

/* Server: something happened to a guest. */
void ns_sim_guest_ready(struct ns_sim_host *h, struct ns_sim_party *g);

#endif
