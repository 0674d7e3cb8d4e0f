/*
 * Connections that have been accepted and are the application's, in a socket that several
 * processes have (after a fork, or exec): whoever accepts next takes one. They are the
 * kernel's to keep: a process that dies takes none with it, and two cannot take the same.
 */
#ifndef NS_ENGINE_BACKLOG_H
#define NS_ENGINE_BACKLOG_H

#include "engine/sock.h"

struct ns_backlog {
    bool open;
    int out, in; /* internal, and a forked child's, too */
};

/* Returns whether it is open now; no descriptors: it is not. */
bool ns_backlog_open(struct ns_backlog *b);
/* Of the program before: `b` has its numbers. Returns whether they are still there. */
bool ns_backlog_adopt(struct ns_backlog *b);
void ns_backlog_close(struct ns_backlog *b);

/* Whether something is in it. Any thread, no lock. */
bool ns_backlog_waits(const struct ns_backlog *b);

/* `fd` stays the caller's. False: no room. */
bool ns_backlog_put(const struct ns_backlog *b, int fd, const struct ns_name *peer);

/* Returns the oldest, under the lowest free number with `flags` as accept4 has them; -EAGAIN:
 * there is none; or a negative errno of accept4's. Then it is there still, unless another thread has
 * taken the last number in this very moment. */
int ns_backlog_take(const struct ns_backlog *b, struct ns_name *peer, int flags);

#endif
