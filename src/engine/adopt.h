/*
 * Seeing sessions of processes that have ended to their end (remains.h): a process of the
 * broker's that does nothing else. Nothing of theirs is read any more, nothing is written
 * to them but what their ring holds.
 */
#ifndef NS_ENGINE_ADOPT_H
#define NS_ENGINE_ADOPT_H

#include "core/time.h"

struct ns_sock;

/* So much is taken, of all together. */
#define NS_ADOPT_SESSIONS 1024
#define NS_ADOPT_BYTES    ((uint64_t)256 << 20)

/* Takes what the process at the other end of `pair` leaves; `pair` is closed. Any thread. */
void ns_adopt(int pair);

/* How many there are still. Any thread. */
unsigned ns_adopted(void);

/* On the helper: one was taken (NS_TODO_ADOPTED). */
void ns_adopt_go_on(struct ns_sock *s, struct ns_time now);

#endif
