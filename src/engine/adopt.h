/*
 * The other end of handover.h: a process of the broker's that does nothing else. It sees
 * sessions of processes that have ended to their end (remains.h): nothing of theirs is read any
 * more, nothing is written to them but what their ring holds. And it is the relay of those that
 * two processes use at once (joint.h).
 */
#ifndef NS_ENGINE_ADOPT_H
#define NS_ENGINE_ADOPT_H

#include "core/time.h"

#include <stdbool.h>

struct ns_sock;

/* So much is taken, of all together. */
#define NS_ADOPT_SESSIONS 1024
#define NS_ADOPT_BYTES    ((uint64_t)256 << 20)

/* One is to be relayed: `session` is a descriptor of it, as an application has one, `end` a
 * connection to those who use it. `session` may be written to; it must not be read before
 * `gate` has come to its end. All three are the relay's. */
typedef void ns_relay_begin(int session, int end, int gate);

/* Before one is taken: whether it could begin then, on this thread. */
typedef bool ns_relay_reserve(void);

/* Takes what the process at the other end of `pair` hands over; `pair` is closed. Any thread;
 * blocks as long as that one goes on. */
void ns_adopt(int pair, ns_relay_reserve *reserve, ns_relay_begin *relay);

/* How many there are still. Any thread. */
unsigned ns_adopted(void);

/* On the helper: one was taken (NS_TODO_ADOPTED). */
void ns_adopt_go_on(struct ns_sock *s, struct ns_time now);

#endif
