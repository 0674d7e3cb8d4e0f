/*
 * The session: which bytes of the two streams are where, who may resume, and
 * the two halves of the RESUME exchange (docs/protocol.md). Pure: packets and
 * kernel counters come in as arguments, packets go out into the caller's
 * buffer. Thesis 4.2.2, its state diagram (figure 4.2) widened by what version
 * 2 needs.
 *
 * Nothing here locks. The engine serialises calls for one session.
 */
#ifndef NS_CORE_SESSION_H
#define NS_CORE_SESSION_H

#include "core/auth.h"
#include "core/ring.h"
#include "core/wire.h"

#include <stdbool.h>
#include <stdint.h>

enum ns_role {
    NS_CLIENT,
    NS_SERVER,
};

enum ns_state {
    NS_CONNECTING, /* client: connect(2) has not finished */
    NS_ASKING,     /* client: HELLO is out, nothing has been written */
    NS_OFFERING,   /* client: the peer is one of us, NEW goes before the first byte */
    NS_AWAITING,   /* server: the client's first bytes are not here yet */
    NS_CONNECTED,  /* protected, on a working connection */
    NS_SUSPENDED,  /* protected, between connections */
    NS_PLAIN,      /* plain TCP from here on; final */
    NS_FAILED,     /* given up: the application gets the kernel's error; final */
    NS_STATES,
};

enum ns_event {
    NS_EVENT_ESTABLISHED, /* the kernel has finished connecting */
    NS_EVENT_ANSWER_YES,  /* HELLO was answered */
    NS_EVENT_ANSWER_NO,   /* HELLO was not answered, or in time */
    NS_EVENT_NEW,         /* NEW was sent, or received and verified */
    NS_EVENT_NOT_NEW,     /* the stream begins with something else */
    NS_EVENT_LOST,        /* the connection is dead, or is being given up */
    NS_EVENT_RESUMED,     /* a new connection is in place */
    NS_EVENT_DEMOTED,     /* protection cannot be kept */
    NS_EVENT_GAVE_UP,     /* no path in time, or refused everywhere */
    NS_EVENTS,
};

/* How one TCP connection carries the two streams. */
struct ns_carrier {
    uint64_t tx_start;    /* stream offset of the first application byte sent on it */
    uint64_t tx_position; /* stream offset of the next byte to be written to it */
    uint64_t rx_start;    /* stream offset of the peer's first application byte on it */
    uint64_t rx_floor;    /* the peer's bytes below this offset were already here: duplicates */
    uint32_t tx_header_bytes, rx_header_bytes; /* packets in front of the streams */
    bool opener;                               /* we sent the SYN: the kernel counts it as acknowledged */
    bool adopted; /* the peer has taken it over: its kernel's acknowledgements count */
};

struct ns_session {
    enum ns_role role;
    enum ns_state state;
    uint8_t version;
    uint8_t id[16];
    uint8_t instance[16]; /* the server's */
    struct ns_session_keys keys;
    uint64_t epoch;      /* client: last sent; server: highest accepted */
    uint64_t confirmed;  /* server: highest confirmed: an older exchange comes too late */
    struct ns_ring ring; /* tail: oldest byte held; head: bytes the application has written */
    struct ns_carrier carrier;
    unsigned pins; /* exchanges under way: while any, nothing is forgotten */
    bool tx_ended; /* the application has ended its stream at ring.head */
    uint64_t fins_counted; /* by how much the peer's count exceeds ring.head: FINs taken for bytes */
};

const char *ns_state_name(enum ns_state state);
const char *ns_event_name(enum ns_event event);

/* Sets up a session whose streams are at offset 0, on the connection it has. */
void ns_session_init(struct ns_session *s, enum ns_role role, uint8_t version);

/* Frees the ring and wipes the keys. */
void ns_session_destroy(struct ns_session *s);

/*
 * The one function that sets the state. Returns true when `event` means
 * something in this state; otherwise changes nothing.
 */
bool ns_session_event(struct ns_session *s, enum ns_event event);

/* Whether the session has an identity that a RESUME can name. */
static inline bool ns_session_protected(const struct ns_session *s)
{
    /* Once: it may change from one to the other meanwhile. */
    enum ns_state state = __atomic_load_n(&s->state, __ATOMIC_SEQ_CST);
    return state == NS_CONNECTED || state == NS_SUSPENDED;
}

/* ---- offsets ---- */

/* Own stream: the offset up to which the peer's kernel has acknowledged, when
 * `unacknowledged` bytes (SIOCOUTQ, FIN included when `fin_queued`) are in the
 * send queue. */
uint64_t ns_carrier_acknowledged(const struct ns_carrier *c, uint64_t unacknowledged, bool fin_queued);

/* Peer's stream: the receive offset, when the kernel has counted `received`
 * bytes (tcpi_bytes_received) of which one is FIN when `fin_received`. */
uint64_t ns_carrier_received(const struct ns_carrier *c, uint64_t received, bool fin_received);

/*
 * Whether exactly what the ring saw was written to the connection:
 * `acknowledged` is tcpi_bytes_acked, `unacknowledged` SIOCOUTQ, read while the
 * connection stands still. False means that somebody wrote around us.
 */
bool ns_carrier_faithful(const struct ns_carrier *c, uint64_t acknowledged, uint64_t unacknowledged,
                         bool fin_queued);

/* Forgets what the peer's kernel has acknowledged, unless pinned. */
void ns_session_trim(struct ns_session *s, uint64_t unacknowledged);

/*
 * Somebody else has written to the connection up to offset `position` of the stream. What
 * the peer lacks of it is not held: until its kernel has acknowledged all, it cannot
 * resume. False when less was written than is known to have been: changes nothing.
 */
bool ns_session_catch_up(struct ns_session *s, uint64_t position);

/* The offset that `acknowledged` and `unacknowledged` (ns_carrier_faithful) come to,
 * whoever has written; no FIN among it. */
uint64_t ns_carrier_written(const struct ns_carrier *c, uint64_t acknowledged, uint64_t unacknowledged);

/* ---- NEW ---- */

/*
 * Client: makes the session's keys and writes NEW to `out`. `session_id` is 16
 * random bytes. Returns the packet's length.
 */
size_t ns_session_offer(struct ns_session *s, const struct ns_identity *own, const struct ns_master *master,
                        const uint8_t instance[16], const uint8_t session_id[16],
                        uint8_t out[NS_PACKET_BYTES_NEW]);

/*
 * Server: verifies a received NEW with the master key that belongs to its
 * client key. Returns 0 and sets the keys, or -EBADMSG: application bytes that
 * look like NEW, or a NEW for another instance.
 */
int ns_session_accept(struct ns_session *s, const struct ns_identity *own, const struct ns_master *master,
                      const uint8_t packet[NS_PACKET_BYTES_NEW]);

/* ---- the RESUME exchange ---- */

enum ns_exchange_step {
    NS_STEP_WAIT,    /* more bytes are needed */
    NS_STEP_PROVED,  /* client: RESUME_ACK verified. Give the old connection up, then _confirm */
    NS_STEP_CONFIRMED, /* server: CONFIRM verified. Give the old connection up, then _done */
    NS_STEP_ADOPTED, /* client: DONE verified; the kernel's acknowledgements count */
    NS_STEP_REFUSED, /* client: x->refusal and x->nonce (the refuser's instance) say why */
    NS_STEP_BROKEN,  /* no packet of ours, or a bad tag: close, change nothing */
};

/* One attempt, on one new connection. */
struct ns_exchange {
    struct ns_session *session;
    uint64_t epoch;
    uint64_t peer_received; /* the peer's receive offset, as last told */
    uint64_t peer_sent;     /* client: the server's send offset in RESUME_ACK */
    uint64_t told_received; /* client: the receive offset in RESUME */
    uint64_t peer_start;    /* server: where the client's stream starts on this connection */
    uint8_t client_nonce[16], server_nonce[16];
    uint8_t refusal, refuser[16];
    uint32_t rx_bytes, tx_bytes; /* packets so far, for the carrier's header counts */
    enum { NS_X_RESUME_SENT, NS_X_ACKNOWLEDGED, NS_X_CONFIRM_SENT, NS_X_OVER } phase;
};

/* Client: a new attempt with the next epoch, pinning the session. `received` is
 * the receive offset now. Writes RESUME to `out`, returns its length. */
size_t ns_exchange_begin(struct ns_exchange *x, struct ns_session *s, const uint8_t nonce[16],
                         uint64_t received, uint8_t out[NS_PACKET_BYTES_RESUME]);

/*
 * Server: answers a RESUME whose session was found by its id. Writes RESUME_ACK
 * to `out` and returns its length; pins the session and waits for CONFIRM when
 * *refusal is NS_GO_ON. Otherwise the packet is the refusal, and x is over.
 */
size_t ns_exchange_answer(struct ns_exchange *x, struct ns_session *s, const uint8_t packet[NS_PACKET_BYTES_RESUME],
                          const uint8_t nonce[16], uint64_t received, const uint8_t own_instance[16],
                          enum ns_refusal *refusal, uint8_t out[NS_PACKET_BYTES_RESUME_ACK]);

/* A refusal for a RESUME that names no session of ours. Returns its length. */
size_t ns_exchange_refuse(enum ns_refusal why, uint64_t epoch, const uint8_t own_instance[16],
                          uint8_t out[NS_PACKET_BYTES_RESUME_ACK]);

/* The length of the packet that this side waits for; 0 when it waits for none. */
size_t ns_exchange_wants(const struct ns_exchange *x);

/* Takes exactly ns_exchange_wants() bytes. */
enum ns_exchange_step ns_exchange_input(struct ns_exchange *x, const uint8_t *packet);

/*
 * Client, after NS_STEP_PROVED and with the old connection given up: makes the
 * new connection the session's carrier and writes CONFIRM. `received` is final.
 * The stream follows at s->carrier.tx_position. Returns the length, or -EPROTO
 * when the server has a byte that was never sent, -ENODATA when it lacks one
 * that is no longer held: the session must end.
 */
int ns_exchange_confirm(struct ns_exchange *x, uint64_t received, uint8_t out[NS_PACKET_BYTES_CONFIRM]);

/* Server, after NS_STEP_CONFIRMED: the same, with DONE. */
int ns_exchange_done(struct ns_exchange *x, uint64_t received, uint8_t out[NS_PACKET_BYTES_DONE]);

/* Ends the attempt, unpinning the session. Safe to call twice. */
void ns_exchange_end(struct ns_exchange *x);

/* ---- version 1 (thesis 4.2.3): both counters are final when they are told ---- */

/* The 32-bit counter for an offset, and the offset near `about` that a counter
 * stands for (RFC 9293, 3.4: modulo comparison). */
static inline uint32_t ns_v1_counter(uint64_t offset)
{
    return (uint32_t)offset;
}
uint64_t ns_v1_offset(uint32_t counter, uint64_t about);

/* Whether what the peer lacks, by its counter, is still held. */
bool ns_session_holds_v1(const struct ns_session *s, uint32_t peer_counter);

/*
 * Both sides, with the old connection given up: makes a connection on which
 * `rx_header` and `tx_header` bytes of packets were exchanged the carrier. The
 * peer has told `peer_counter`; we have told ns_v1_counter(received). Returns 0,
 * -EPROTO or -ENODATA as ns_exchange_confirm.
 */
int ns_session_resume_v1(struct ns_session *s, uint32_t peer_counter, uint64_t received, uint32_t tx_header,
                         uint32_t rx_header);

#endif
