/*
 * A network in virtual time for tests: paths that delay, lose and swallow
 * packets, and on them connections as two kernels keep them. Only what a session
 * can see of TCP is modelled: order, acknowledgements and what they count
 * (engine/ledger.h), windows, retransmission (RFC 6298, roughly), FIN and RST.
 */
#ifndef NS_TESTS_SIM_NET_H
#define NS_TESTS_SIM_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_SIM_PATHS 3

/* A path; direction 0 is from the client's host to the server's. */
struct ns_sim_path {
    int64_t latency_ns;
    int64_t byte_ns; /* how long one byte occupies it */
    unsigned loss;   /* packets of 1024 that are lost */
    bool up[2];
    int64_t busy_until[2];
};

enum ns_sim_tcp {
    NS_SIM_CLOSED, /* the server's end before SYN */
    NS_SIM_SYN_SENT,
    NS_SIM_OPEN,
    NS_SIM_DEAD,
};

/* One end of a connection, as its kernel keeps it. Sequence numbers count from
 * 0 at the first byte; FIN has one. What was received is still in the peer's
 * `out`: packets carry numbers only. */
struct ns_sim_end {
    struct ns_sim_conn *conn;
    int side; /* 0: the client's host */
    enum ns_sim_tcp state;
    int error;   /* negative errno that killed it */
    bool owned;  /* a descriptor stands for it */
    bool filter; /* everything that arrives is dropped unseen */
    void *owner; /* the user's */

    uint8_t *out;
    size_t out_room;
    uint64_t written, acknowledged, next, window_end;
    bool fin_queued;
    unsigned retries, timer; /* timer: events with another number are stale */

    uint64_t received, read; /* received: FIN included */
    bool fin_received;
};

struct ns_sim_conn {
    struct ns_sim_conn *previous;
    struct ns_sim_path *path;
    struct ns_sim_end end[2];
};

struct ns_sim_event {
    int64_t at_ns;
    uint64_t order; /* first come, first served */
    int kind;       /* net's own below NS_SIM_USER_EVENT */
    struct ns_sim_end *end;
    unsigned timer, flags;
    uint64_t from, to, acknowledged, window_end;
};

#define NS_SIM_USER_EVENT 16

struct ns_sim_net {
    int64_t now_ns;
    uint64_t random, order;
    struct ns_sim_path paths[NS_SIM_PATHS];
    struct ns_sim_conn *conns; /* newest first; all of them, until the end */
    struct ns_sim_event *events;
    size_t count, room;
    uint64_t send_buffer, receive_buffer; /* bytes */
    /* Something has changed at an end that is owned: readable, writable,
     * connected, dead. For a connection's first SYN at the server's host too. */
    void (*changed)(struct ns_sim_net *net, struct ns_sim_end *end);
};

void ns_sim_net_free(struct ns_sim_net *net);

/* A number below `below`, by the seed in net->random. */
uint64_t ns_sim_random(struct ns_sim_net *net, uint64_t below);

void ns_sim_schedule(struct ns_sim_net *net, struct ns_sim_event e);

/* Takes the next event and moves the time there. True when it is the user's, in
 * *out; false when it was the network's own, or there is none (out->kind < 0). */
bool ns_sim_next(struct ns_sim_net *net, struct ns_sim_event *out);

/* ---- system calls; bytes, or negative errno ---- */

struct ns_sim_end *ns_sim_connect(struct ns_sim_net *net, struct ns_sim_path *path);
int64_t ns_sim_write(struct ns_sim_net *net, struct ns_sim_end *e, const void *bytes, size_t len);
int64_t ns_sim_read(struct ns_sim_net *net, struct ns_sim_end *e, void *bytes, size_t len, bool peek);
void ns_sim_shutdown(struct ns_sim_net *net, struct ns_sim_end *e);
/* RST, and what was not read is lost. */
void ns_sim_abort(struct ns_sim_net *net, struct ns_sim_end *e);
/* FIN, or RST when something was not read. */
void ns_sim_close(struct ns_sim_net *net, struct ns_sim_end *e);
/* An empty acknowledgement, as keepalive sends. */
void ns_sim_keepalive(struct ns_sim_net *net, struct ns_sim_end *e);
/* It dies of `error`, and nobody tells the peer. */
void ns_sim_kill(struct ns_sim_net *net, struct ns_sim_end *e, int error);

/* ---- the ledger ---- */

uint64_t ns_sim_bytes_acknowledged(const struct ns_sim_end *e); /* tcpi_bytes_acked */
uint64_t ns_sim_unacknowledged(const struct ns_sim_end *e);     /* SIOCOUTQ */
bool ns_sim_knows_fin(const struct ns_sim_end *e);              /* by the state: not on a dead one */

#endif
