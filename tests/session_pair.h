/* A client's and a server's session that have met, for tests. */
#ifndef NS_TESTS_SESSION_PAIR_H
#define NS_TESTS_SESSION_PAIR_H

#include "core/session.h"

#include <stdbool.h>
#include <stdint.h>

/* More than a test's ring ever holds. */
#define NS_PAIR_RING_BYTES ((size_t)1 << 20)

struct ns_pair_of_sessions {
    struct ns_identity client_identity, server_identity;
    struct ns_master master; /* the same on both sides */
    struct ns_session client, server;
};

/* Two identities and their agreement, both sessions as ns_session_init leaves
 * them. End it with ns_pair_part. */
void ns_pair_make(struct ns_pair_of_sessions *p, uint8_t version);

/* NEW, offered and accepted: both sessions are NS_CONNECTED. */
void ns_pair_meet(struct ns_pair_of_sessions *p);

void ns_pair_part(struct ns_pair_of_sessions *p);

/* Puts `bytes` bytes into the ring as written to the session's connection. */
void ns_pair_write(struct ns_session *s, size_t bytes);

/* Forgets all below offset `to`, as an acknowledgement does. */
void ns_pair_forget(struct ns_session *s, uint64_t to);

/* 16 bytes that no other call with another `n` gives. */
void ns_pair_nonce(uint8_t out[16], uint8_t n);

#endif
