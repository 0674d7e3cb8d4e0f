/*
 * HELLO from the client's side, and what is remembered of the answers
 * (docs/protocol.md, "HELLO: is the peer one of us?").
 */
#ifndef NS_ENGINE_ASK_H
#define NS_ENGINE_ASK_H

#include "engine/sock.h"

/*
 * The connection of a new session is established. Settles at once what is
 * remembered of its destination: NS_OFFERING or NS_PLAIN. Otherwise the session
 * is NS_ASKING and the helper is told. `trusted` (version 1): offers without
 * asking. Any thread; tx not held.
 */
void ns_ask_begin(struct ns_sock *s, int fd, bool trusted);

/* On the helper: sends HELLO for a session in NS_ASKING, unless one is out. */
void ns_ask_for(struct ns_sock *s, struct ns_time now);

/*
 * Whether the yes that a session in NS_OFFERING goes by still stands: an application
 * may write long after it has connected, and a server that cannot keep its promise
 * (it is about to execute another program, say) ends the lease. Any thread; tx held.
 */
bool ns_ask_promised(const struct ns_sock *s);

void ns_ask_fork_child(void);

#endif
