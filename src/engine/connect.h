/* The client's side until the session stands. */
#ifndef NS_ENGINE_CONNECT_H
#define NS_ENGINE_CONNECT_H

#include "engine/sock.h"

/*
 * Looks whether a connect(2) that returned EINPROGRESS has finished; if so the
 * session goes on to ask or to offer. Returns whether it has. Any thread.
 */
bool ns_client_established(struct ns_sock *s, int fd);

/*
 * `fd` was connected to `to`, `port`, a host known as `name` (may be empty):
 * `result` is what connect(2) returned, 0, -EINPROGRESS or -EINTR. Makes it a
 * session if policy says so. Any thread.
 */
void ns_client_begin(int fd, const struct ns_address *to, uint16_t port, const char *name, int result);

/* Sends NEW alone, if the session owes one. Returns 0 or a negative errno. */
int ns_offer_now(struct ns_sock *s, int fd);

/* The same for every session of the process that owes one: before a wait. */
void ns_offer_all(void);

/* For ns_block: writes can go on. */
bool ns_sock_writable_state(const struct ns_sock *s);


#endif
