/*
 * A lock that knows its owner. Futex underneath, nothing that a signal handler
 * may not do.
 *
 * While a thread holds one, the application's signal handlers are put off
 * (signals.h), so that none can leave it taken by siglongjmp or find what it
 * guards half done. A handler that we have not seen being installed, or that
 * calls the library, may run all the same: then ns_lock says that the caller is
 * on top of the holder, and the lock stays the holder's.
 *
 * Lock order: table, then a session's rx, then its tx, then the start of the
 * helper, then the leaves. No thread sleeps in the kernel with any of them held.
 * What the leaves are, and the exceptions: docs/architecture.md, "Lock order".
 */
#ifndef NS_ENGINE_LOCK_H
#define NS_ENGINE_LOCK_H

#include "engine/signals.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct ns_lock {
    uint32_t word;   /* 0, or the owner's thread id; the top bit: somebody waits */
    uint32_t nested; /* how often the owner took it on top of itself; the owner's */
};

#define NS_LOCK_WAITERS 0x80000000u

extern __thread uint32_t ns_thread_id __attribute__((tls_model("initial-exec")));

uint32_t ns_thread_id_learn(void);

static inline uint32_t ns_self(void)
{
    return __builtin_expect(ns_thread_id != 0, 1) ? ns_thread_id : ns_thread_id_learn();
}

bool ns_lock_contended(struct ns_lock *l, uint32_t self);
void ns_unlock_contended(struct ns_lock *l);

/* False when this thread already holds it: the caller may be a signal handler on
 * top of the holder. Either way ns_unlock has to follow. */
static inline bool ns_lock(struct ns_lock *l)
{
    uint32_t free = 0, self = ns_self();
    ns_signals_put_off();
    if (__builtin_expect(__atomic_compare_exchange_n(&l->word, &free, self, false, __ATOMIC_ACQUIRE,
                                                     __ATOMIC_RELAXED),
                         1))
        return true;
    return ns_lock_contended(l, self);
}

/* Whether this thread holds it. */
static inline bool ns_lock_mine(const struct ns_lock *l)
{
    return (__atomic_load_n(&l->word, __ATOMIC_RELAXED) & ~NS_LOCK_WAITERS) == ns_self();
}

static inline void ns_unlock(struct ns_lock *l)
{
    if (__builtin_expect(l->nested > 0, 0))
        l->nested--;
    else if (__builtin_expect(__atomic_exchange_n(&l->word, 0, __ATOMIC_RELEASE) & NS_LOCK_WAITERS, 0))
        ns_unlock_contended(l);
    ns_signals_let_in();
}

/* In a forked child, where the owner may be gone. A page that is not written is not copied. */
static inline void ns_lock_reset(struct ns_lock *l)
{
    if (l->word || l->nested)
        *l = (struct ns_lock){ 0 };
}

/* The same for what takes longer, or is not built to be interrupted by a handler
 * that siglongjmps: where nobody stands in front of handlers (ns_signals_seen) all
 * signals are blocked. `saved` receives the mask to restore. */
void ns_lock_quiet(struct ns_lock *l, sigset_t *saved);
void ns_unlock_quiet(struct ns_lock *l, const sigset_t *saved);

#endif
