/*
 * A lock that knows its owner. A signal handler may call send() on the very
 * session whose lock the interrupted code holds: that must be seen, not
 * deadlock. Futex underneath, nothing that a signal handler may not do.
 *
 * Lock order: table, then a socket's rx, then its tx, then peers or log. A
 * thread never blocks in the kernel with any of them held.
 */
#ifndef NS_ENGINE_LOCK_H
#define NS_ENGINE_LOCK_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct ns_lock {
    uint32_t word; /* 0, or the owner's thread id; the top bit: somebody waits */
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

/* False when this thread already holds it: the caller is a signal handler on
 * top of the holder. */
static inline bool ns_lock(struct ns_lock *l)
{
    uint32_t free = 0, self = ns_self();
    if (__builtin_expect(__atomic_compare_exchange_n(&l->word, &free, self, false, __ATOMIC_ACQUIRE,
                                                     __ATOMIC_RELAXED),
                         1))
        return true;
    return ns_lock_contended(l, self);
}

static inline void ns_unlock(struct ns_lock *l)
{
    if (__builtin_expect(__atomic_exchange_n(&l->word, 0, __ATOMIC_RELEASE) & NS_LOCK_WAITERS, 0))
        ns_unlock_contended(l);
}

/* The same with all signals blocked, for what takes longer or is not built to
 * be interrupted. `saved` receives the mask to restore. */
void ns_lock_quiet(struct ns_lock *l, sigset_t *saved);
void ns_unlock_quiet(struct ns_lock *l, const sigset_t *saved);

#endif
