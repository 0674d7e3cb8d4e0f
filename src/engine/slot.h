/*
 * Who is inside a blocking call on what, and how to wake who waits for us.
 *
 * Every thread that touches an engine object has a slot. While a thread is
 * inside libc's recv() on a session, the slot names the session: whoever takes
 * the receive queue over waits until no slot does (a thread that is about to
 * enter the call would otherwise read from the middle of it), and an object is
 * freed only when no slot names it.
 *
 * Calls nest when a signal handler makes one on top of another, and never
 * return when the handler leaves by longjmp(): an entry is stale when its frame
 * lies deeper on the stack than the frame that looks.
 */
#ifndef NS_ENGINE_SLOT_H
#define NS_ENGINE_SLOT_H

#include "core/time.h"
#include "engine/lock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_SLOT_DEPTH 6

/* scratch.h */
struct ns_scratch {
    void *memory;
    size_t bytes;
};

struct ns_slot {
    const void *inside[NS_SLOT_DEPTH];        /* objects; read by others */
    uintptr_t frame[NS_SLOT_DEPTH];           /* the thread's own */
    uint32_t depth;                           /* the thread's own */
    struct ns_scratch scratch[NS_SLOT_DEPTH]; /* the thread's own */
    uint32_t claimed;                         /* the thread that has the slot, or 0 */
    uint32_t waiting;                         /* the thread is about to block, or blocks, on wait_fd */
    uint32_t signalled;                       /* wait_fd has been written to since it was last emptied */
    struct ns_lock wake;                      /* wait_fd is being written to, or given back */
    int wait_fd;                              /* an eventfd, made at the first wait; -1 before */
};

/* Once, before any other, in the main thread; `main_leaves` is called when that ends before the process
 * does. Returns 0 or -EAGAIN (no thread key). */
int ns_slots_init(void (*main_leaves)(void));
/* In a forked child: only the calling thread is left. */
void ns_slots_fork_child(void);

/* The calling thread's slot; NULL when there is no memory for one. */
struct ns_slot *ns_slot_self(void);

/* Enters the thread into `object`. Returns false when it nests too deep to be
 * tracked: the caller must not touch the object. */
bool ns_slot_enter(struct ns_slot *slot, const void *object);
/* The same, saying that the thread reads the kernel's receive queue. */
bool ns_slot_enter_reading(struct ns_slot *slot, const void *object);
/* It does not after all, or any more, but stays inside. */
void ns_slot_reading_over(struct ns_slot *slot);
void ns_slot_leave(struct ns_slot *slot);

/* Whether any thread, the caller's included, is inside `object`, or reads it. */
bool ns_slots_inside(const void *object);
bool ns_slots_reading(const void *object);
/* The threads that read it: as many as there is room for in `out`. Returns how many there are. */
size_t ns_slots_readers(const void *object, uint32_t *out, size_t room);

/*
 * Waiting for a session to change: _prepare returns a descriptor that becomes
 * readable at the next ns_slots_wake() after it, or a negative errno; then look
 * at the condition once more; block on the descriptor; _finish. The thread is
 * inside something meanwhile, or a wait on top of it would end it. A wait that is
 * left by longjmp or cancellation costs one needless wake, no more.
 *
 * Where there is no descriptor to be had, the thread sleeps NS_SLOT_BLIND_MS at most
 * and looks again: no socket call fails for want of one.
 */
#define NS_SLOT_BLIND_MS 10
int ns_slot_wait_prepare(struct ns_slot *slot);
void ns_slot_wait_finish(struct ns_slot *slot);
void ns_slots_wake(void);

/* Wakes the calling thread's own wait, from a signal handler. */
void ns_slot_poke(void);

#endif
