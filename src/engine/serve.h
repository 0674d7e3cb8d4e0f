/* The server's side of RESUME, on connections that the application never sees.
 * On the helper. */
#ifndef NS_ENGINE_SERVE_H
#define NS_ENGINE_SERVE_H

#include "core/time.h"

/* Takes an accepted connection that begins with HELLO or RESUME. */
void ns_serve_take(int fd, struct ns_time now);

/* The session ends: so do exchanges about it. */
struct ns_sock;
void ns_serve_forget(struct ns_sock *s);

#endif
