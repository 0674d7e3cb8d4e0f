/*
 * Reads that began before a session went to a relay (joint.h). A thread in one is next in order
 * for what comes; so it is made to leave it (interrupt.h), and to call again, which then is on
 * the connection to the relay. The relay reads once the *gate* is open, a socket pair of
 * which the other process closes its end when none of its threads is in such a read any more.
 * If that process ends, it is closed as well.
 */
#ifndef NS_ENGINE_GATE_H
#define NS_ENGINE_GATE_H

#include "engine/sock.h"

/* ---- in the process that had the session ---- */

/* Returns the relay's end, an internal descriptor, or a negative errno. Table and rx held. */
int ns_gate_make(struct ns_sock *s);
/* Opens it, if nobody reads any more. Any thread; inside the session. */
void ns_gate_try(struct ns_sock *s);
/* The session stays here after all. */
void ns_gate_drop(struct ns_sock *s);
/* On the helper: those who read are made to leave. */
void ns_gate_clear(struct ns_time now);
/* In a forked child: that is the parent's business. */
void ns_gate_fork_child(void);

/* ---- in the relay ---- */

/* `end` becomes the session's. */
void ns_gate_take(struct ns_sock *s, int end);
/* Whether nobody else reads the connection (any more). */
bool ns_gate_open(struct ns_sock *s);

#endif
