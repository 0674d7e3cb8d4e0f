#include "engine/lock.h"

#include "engine/sys.h"

__thread uint32_t ns_thread_id __attribute__((tls_model("initial-exec")));

uint32_t ns_thread_id_learn(void)
{
    return ns_thread_id = (uint32_t)ns_sys_gettid();
}

bool ns_lock_contended(struct ns_lock *l, uint32_t self)
{
    uint32_t word = __atomic_load_n(&l->word, __ATOMIC_RELAXED);
    for (;;) {
        if ((word & ~NS_LOCK_WAITERS) == self) {
            l->nested++;
            return false;
        }
        if (word == 0) {
            /* Whoever waited cannot know whether others do, so the bit stays on. */
            if (__atomic_compare_exchange_n(&l->word, &word, self | NS_LOCK_WAITERS, false, __ATOMIC_ACQUIRE,
                                            __ATOMIC_RELAXED))
                return true;
            continue;
        }
        if (!(word & NS_LOCK_WAITERS) &&
            !__atomic_compare_exchange_n(&l->word, &word, word | NS_LOCK_WAITERS, false, __ATOMIC_RELAXED,
                                         __ATOMIC_RELAXED))
            continue;
        ns_sys_futex_wait(&l->word, word | NS_LOCK_WAITERS, NULL);
        word = __atomic_load_n(&l->word, __ATOMIC_RELAXED);
    }
}

void ns_unlock_contended(struct ns_lock *l)
{
    ns_sys_futex_wake(&l->word, 1);
}

void ns_lock_quiet(struct ns_lock *l, sigset_t *saved)
{
    sigset_t all;
    if (!ns_signals_seen) {
        sigfillset(&all);
        ns_sys_sigmask(SIG_SETMASK, &all, saved);
    }
    ns_lock(l);
}

void ns_unlock_quiet(struct ns_lock *l, const sigset_t *saved)
{
    ns_unlock(l);
    if (!ns_signals_seen)
        ns_sys_sigmask(SIG_SETMASK, saved, NULL);
}
