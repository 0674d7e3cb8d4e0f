/* HELLO from the server's side (docs/protocol.md, "HELLO: is the peer one of us?"). */
#ifndef NS_ENGINE_HELLO_H
#define NS_ENGINE_HELLO_H

#include "core/time.h"

#include <stdbool.h>

struct ns_guest;

/* On the helper: a stranger has said HELLO. It gets its answer and becomes a lease, or goes. */
void ns_hello_answer(struct ns_guest *g, struct ns_time now);

/*
 * Answers no HELLO from now on: the process hands connections to where a NEW
 * would be taken for data. Returns whether one was answered within the last
 * second. Any thread.
 */
bool ns_hello_mute(void);

/* Whether HELLO is answered, so that a client may send NEW. Any thread. */
bool ns_hello_open(void);

/* On the helper: what is told of may have changed. */
void ns_hello_addresses_changed(void);

#endif
