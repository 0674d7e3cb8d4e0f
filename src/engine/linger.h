/*
 * A session that its application has closed with bytes undelivered: it lives on,
 * on a duplicate, until the peer's kernel has them. On the helper.
 */
#ifndef NS_ENGINE_LINGER_H
#define NS_ENGINE_LINGER_H

#include "engine/sock.h"

/* Its last descriptor is closed (NS_TODO_CLOSED): delivers what is left, then
 * frees it. */
void ns_linger_closed(struct ns_sock *s, struct ns_time now);

/* It has a connection again: goes on delivering. */
void ns_linger_look(struct ns_sock *s, struct ns_time now);

#endif
