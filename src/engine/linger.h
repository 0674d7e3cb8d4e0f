/*
 * A session that its application has closed with bytes undelivered: it lives on,
 * on a duplicate, until the peer's kernel has them. On the helper.
 *
 * So does a server's connection that awaits its first bytes, where a NEW may be
 * under way: on a closed socket the kernel answers it with a reset and throws away
 * what it has not delivered (RFC 9293, 3.10.7.4), which the client would lose.
 */
#ifndef NS_ENGINE_LINGER_H
#define NS_ENGINE_LINGER_H

#include "engine/sock.h"

/* Its last descriptor is closed (NS_TODO_CLOSED): delivers what is left, then
 * frees it. */
void ns_linger_closed(struct ns_sock *s, struct ns_time now);

/* How long a NEW is waited for: a client sends it with its answer or its first read. */
#define NS_LINGER_NEW_MS 1000

/* So many connections at most wait for one: each takes a descriptor. */
#define NS_LINGER_NEW_MAX 64

/* `s` is about to be closed and would wait for a NEW. False if too many do. Any thread. */
bool ns_linger_for_new(struct ns_sock *s);

/* In a forked child: nobody waits there. */
void ns_linger_fork_child(void);

/* It has a connection again: goes on delivering. */
void ns_linger_look(struct ns_sock *s, struct ns_time now);

#endif
