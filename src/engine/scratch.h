/*
 * Memory for the length of one call, too large for the stack. A call that is left
 * by longjmp or cancellation gives nothing back: so the slot knows what its
 * thread holds at each depth, and the next call there, or the thread's end,
 * finds it.
 */
#ifndef NS_ENGINE_SCRATCH_H
#define NS_ENGINE_SCRATCH_H

#include "engine/slot.h"

/* At least `bytes`, for a thread that is inside something until _drop: one at a
 * time for each entry. NULL without memory. Async-signal-safe. */
void *ns_scratch(struct ns_slot *slot, size_t bytes);
void ns_scratch_drop(struct ns_slot *slot);

/* What the thread has left behind; on the thread, at its end. */
void ns_scratch_release(struct ns_slot *slot);

#endif
