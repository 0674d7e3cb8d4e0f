/*
 * The application's signal handlers, as they meet the engine.
 *
 * A handler may do anything to the code that it interrupts: call send() on the
 * session whose lock that code holds, or leave by siglongjmp(). So the shim
 * stands in front of every handler (preload/signal.c), and one that arrives
 * while its thread holds a lock is put off until the lock is free: its siginfo
 * is kept, all signals are blocked in the context that the handler returns to,
 * and when the last lock is let go the signal is queued again to the thread and
 * the mask put back. This costs nothing while no signal comes. The library does
 * not see handlers being installed; its functions are not async-signal-safe.
 *
 * And a wait has to know what came while it was not in the kernel, which ends a
 * call by other rules than those of the call that we wait in (signal(7)).
 */
#ifndef NS_ENGINE_SIGNALS_H
#define NS_ENGINE_SIGNALS_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct ns_put_off {
    uint32_t depth;   /* locks held */
    uint32_t waiting; /* a signal was put off */
};

extern __thread struct ns_put_off ns_put_off __attribute__((tls_model("initial-exec")));

void ns_signals_let_in_now(void);

/* Nest. A handler sees either nothing of a change here or all of it. */
static inline void ns_signals_put_off(void)
{
    ns_put_off.depth++;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void ns_signals_let_in(void)
{
    atomic_signal_fence(memory_order_seq_cst);
    uint32_t depth = --ns_put_off.depth;
    atomic_signal_fence(memory_order_seq_cst);
    if (__builtin_expect(depth == 0 && ns_put_off.waiting, 0))
        ns_signals_let_in_now();
}

/* Somebody stands in front of every handler, so that putting off is enough. Set
 * once, before there is a thread; false in the library. */
extern bool ns_signals_seen;

/* Handlers that have run on this thread: all, and those without SA_RESTART. */
struct ns_handled {
    uint32_t all, ending;
};

extern __thread struct ns_handled ns_handled __attribute__((tls_model("initial-exec")));

/*
 * Whether a call that began at `since` has to end now, should it have to wait:
 * with what it has done, when `done`; with EINTR otherwise. `timed`: it waits no
 * longer than SO_RCVTIMEO or SO_SNDTIMEO, and so is never restarted.
 */
static inline bool ns_interrupted(const struct ns_handled *since, bool done, bool timed)
{
    return ns_handled.ending != since->ending || ((done || timed) && ns_handled.all != since->all);
}

/* ---- for the one that stands in front of a handler; async-signal-safe ---- */

/* The first thing to call, with what the kernel gave. True: return at once. */
bool ns_signal_put_off(const siginfo_t *info, void *context);
/* Just before the application's handler is called. */
void ns_signal_handling(int sig);
/* The signal is to be delivered to this thread once more. */
void ns_signal_again(const siginfo_t *info);

/* If the disposition is `handler`, it becomes SIG_DFL, with SA_RESETHAND and, if
 * `info`, SA_SIGINFO among its flags. Returns whether it was. */
bool ns_signal_reset(int sig, void (*handler)(int, siginfo_t *, void *), bool info);

/* Whether every handler that the process has installed asks for SA_RESTART: the
 * rule where a handler ran that nobody stood in front of. */
bool ns_signals_restart(void);

/* In a forked child: what was put off is the parent's. */
void ns_signals_fork_child(void);

#endif
