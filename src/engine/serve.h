/* The server's side of RESUME, on connections that the application never sees.
 * On the helper. */
#ifndef NS_ENGINE_SERVE_H
#define NS_ENGINE_SERVE_H

#include "core/time.h"
#include "core/wire.h"

/* Takes an accepted connection that begins with HELLO or RESUME. */
void ns_serve_take(int fd, struct ns_time now);

/* Whether this process has the session: NS_GO_ON, NS_REFUSED_UNKNOWN or NS_REFUSED_LATER. */
enum ns_refusal ns_serve_holds(const uint8_t id[16]);

/* Takes a connection that another process has accepted, and of which it has `read`
 * the RESUME, `bytes` bytes; from the broker, or from a process of the family. */
void ns_serve_take_passed(int fd, const uint8_t *read, size_t bytes, bool by_family, struct ns_time now);

void ns_serve_fork_child(void);

struct ns_sock;

/* Ends exchanges that only ask, where they have made the session keep much more than it would
 * have to. `unacknowledged`: the kernel's count of the connection in use. Table held. */
void ns_serve_relieve(struct ns_sock *s, uint64_t unacknowledged);

/* The session ends: so do exchanges about it. */
void ns_serve_forget(struct ns_sock *s);

#endif
