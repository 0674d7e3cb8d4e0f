/* How an application thread waits for a session inside a call that blocks. */
#ifndef NS_ENGINE_BLOCK_H
#define NS_ENGINE_BLOCK_H

#include "engine/sock.h"

/* Whether a call on `fd` with these MSG_ flags must not block. */
bool ns_nonblocking(int fd, int flags);

/* When a blocking call that starts now is to end with EAGAIN: `name` is
 * SO_RCVTIMEO or SO_SNDTIMEO. */
struct ns_time ns_timeout_at(int fd, int name);

/* Whether every handler that the process has installed asks for SA_RESTART, so
 * that an interrupted wait that the kernel would not restart is restarted. */
bool ns_signals_restart(void);

/*
 * Waits until the session changes, `fd` has one of `events` (0: none asked), or
 * `deadline`. `still` is looked at after the thread can be woken: false ends
 * the wait at once. A cancellation point. Returns 0, -EINTR, or -EAGAIN at the
 * deadline. No lock held; the thread is inside `s`.
 */
int ns_block(struct ns_sock *s, struct ns_slot *slot, int fd, short events, struct ns_time deadline,
             bool (*still)(const struct ns_sock *s));

#endif
