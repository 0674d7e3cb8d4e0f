/* How an application thread waits for a session inside a call that blocks. */
#ifndef NS_ENGINE_BLOCK_H
#define NS_ENGINE_BLOCK_H

#include "engine/sock.h"

/* Whether a call on `fd` with these MSG_ flags must not block. */
bool ns_nonblocking(int fd, int flags);

/* When a blocking call that starts now is to end with EAGAIN: `name` is
 * SO_RCVTIMEO or SO_SNDTIMEO. */
struct ns_time ns_timeout_at(int fd, int name);

/* What a call waits for, and what it waits with. */
struct ns_wait {
    int fd;
    short events; /* of fd; 0: none asked */
    struct ns_time deadline;
    bool timed; /* `deadline` is SO_RCVTIMEO or SO_SNDTIMEO */
    bool done;  /* part of what was asked for is done */
    const struct ns_handled *since; /* as it was when the call began */
    /* Looked at after the thread can be woken: false ends the wait at once. */
    bool (*still)(const struct ns_sock *s);
};

/*
 * Waits until the session changes, for an event or the deadline; may return for
 * nothing. A cancellation point. Returns 0, -EAGAIN at the deadline, or -EINTR
 * when a signal has ended the call: since it began, not only since it waits. No
 * lock held; the thread is inside `s`.
 */
int ns_block(struct ns_sock *s, struct ns_slot *slot, const struct ns_wait *w);

#endif
