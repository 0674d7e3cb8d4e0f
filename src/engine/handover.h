/*
 * Handing sessions to a process of the broker's, by a connection between the two that the
 * broker has made. What it does with them: adopt.h.
 *
 *     this process        broker             adopter
 *        │ ADOPT, one end    │                  │
 *        │ of a socket pair  │ the end          │
 *        │ ────────────────► │ ───────────────► │ (started, if there is none)
 *        │ ◄──────────────────────────── READY  │
 *        │ a session: its state, its socket     │
 *        │ ───────────────────────────────────► │ has it from here on
 *        │ ◄──────────────────────────── TAKEN  │
 */
#ifndef NS_ENGINE_HANDOVER_H
#define NS_ENGINE_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is said on that connection. */
enum {
    NS_HANDOVER_READY = 'R',
    NS_HANDOVER_REMAINS = 'S', /* to be delivered (remains.h) */
    NS_HANDOVER_JOINT = 'J',   /* to be relayed (joint.h) */
    NS_HANDOVER_TAKEN = 'T',
    NS_HANDOVER_REFUSED = 'N', /* too much, or no sense in it: it stays where it is */
};

/* The descriptors beside a session: of the first kind two, of the other all. */
enum {
    NS_HANDOVER_STATE, /* a file (laid.h) */
    NS_HANDOVER_SOCKET,
    NS_HANDOVER_RELAYS_END,
    NS_HANDOVER_USERS_END,
    NS_HANDOVER_GATE,   /* gate.h */
    NS_HANDOVER_ESTATE, /* estate.h */
    NS_HANDOVER_FDS,
};

struct ns_handover {
    uint8_t what;
    uint32_t shares, share; /* JOINT: how many the estate has, and which it is */
};

/* So long each waits for the other. */
#define NS_HANDOVER_MS 2000

/* The connection to an adopter that is ready: an internal descriptor, or a negative errno.
 * Blocks for NS_HANDOVER_MS at most. */
int ns_handover_open(void);

/* Hands one over; the descriptors stay the caller's. Returns whether it is the adopter's: also
 * where that does not answer, since it may take it yet; then `to` is of no more use. */
bool ns_handover_send(int to, const struct ns_handover *h, const int *fds, size_t count);

#endif
