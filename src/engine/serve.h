/* The server's side of HELLO and RESUME, on connections that the application
 * never sees. On the helper. */
#ifndef NS_ENGINE_SERVE_H
#define NS_ENGINE_SERVE_H

#include "core/time.h"

#include <stdbool.h>

/* Takes an accepted connection. */
void ns_serve_take(int fd, struct ns_time now);

/*
 * A listener of the process goes: whoever connects to its port from now on may
 * meet somebody else. Every cached yes ends, before the port is free. Any thread.
 */
void ns_serve_end_leases(void);

/*
 * Answers no HELLO from now on: the process hands connections to where a NEW
 * would be taken for data. Returns whether one was answered within the last
 * second. Any thread.
 */
bool ns_serve_mute(void);

/* The session ends: so do exchanges about it. */
struct ns_sock;
void ns_serve_forget(struct ns_sock *s);

void ns_serve_fork_child(void);

#endif
