/*
 * Calls that install signal handlers: sigaction, signal and its kin, sigset.
 *
 * The kernel gets one function for all handlers, `arrived`, which puts off those
 * that come at a bad moment (engine/signals.h) and calls the application's own.
 * Whoever asks is told of the latter. Flags and masks are the application's,
 * but for two: SA_SIGINFO is always set, and SA_RESETHAND never, since the
 * kernel would reset the handler when we put it off.
 *
 * siginterrupt, sigignore and what libc does inside (system, abort) change the
 * kernel's entry without looking at our function, or put it back as it was: they
 * need no part here. A handler that is installed by a bare system call is not
 * seen.
 */
#include "engine/large.h"
#include "engine/lock.h"
#include "preload/interpose.h"

#define OWN_FLAGS (SA_SIGINFO | (int)SA_RESETHAND)

/* What the application installed last. It stays when the disposition changes to
 * SIG_DFL or SIG_IGN, for a thread that is on its way to it. */
static struct installed {
    void (*handler)(int, siginfo_t *, void *); /* atomic */
    int flags;                                 /* OWN_FLAGS; atomic */
} installed[_NSIG] NS_LARGE;

static struct ns_lock lock; /* over changes */

static void arrived(int sig, siginfo_t *info, void *context);

static bool handles(const struct sigaction *a)
{
    return a->sa_handler != SIG_DFL && a->sa_handler != SIG_IGN && a->sa_handler != SIG_ERR;
}

/* SA_RESETHAND: only one delivery has it. Another meets SIG_DFL, as in the kernel. */
static bool claim(int sig, void (*handler)(int, siginfo_t *, void *))
{
    sigset_t saved;
    ns_lock_quiet(&lock, &saved);
    bool ours = installed[sig].handler == handler && ns_signal_reset(sig, arrived, installed[sig].flags & SA_SIGINFO);
    ns_unlock_quiet(&lock, &saved);
    return ours;
}

/* In a sandbox (quiet.h) not even the mask may be set. */
static void hold(sigset_t *saved)
{
    if (ns_is_quiet())
        ns_lock(&lock);
    else
        ns_lock_quiet(&lock, saved);
}

static void unhold(const sigset_t *saved)
{
    if (ns_is_quiet())
        ns_unlock(&lock);
    else
        ns_unlock_quiet(&lock, saved);
}

static void arrived(int sig, siginfo_t *info, void *context)
{
    if (ns_is_quiet()) {
        __atomic_load_n(&installed[sig].handler, __ATOMIC_ACQUIRE)(sig, info, context);
        return;
    }
    if (ns_signal_put_off(info, context))
        return;
    void (*handler)(int, siginfo_t *, void *) = __atomic_load_n(&installed[sig].handler, __ATOMIC_ACQUIRE);
    if ((__atomic_load_n(&installed[sig].flags, __ATOMIC_RELAXED) & (int)SA_RESETHAND) && !claim(sig, handler)) {
        ns_signal_again(info);
        return;
    }
    ns_signal_handling(sig);
    handler(sig, info, context);
}

/* Notes the handler and makes `a` what the kernel gets; lock held. */
static void stand_in_front(int sig, struct sigaction *a)
{
    /* Ours comes back from who read it by a bare system call. */
    if (a->sa_sigaction != arrived) {
        __atomic_store_n(&installed[sig].flags, a->sa_flags & OWN_FLAGS, __ATOMIC_RELAXED);
        __atomic_store_n(&installed[sig].handler, a->sa_sigaction, __ATOMIC_RELEASE);
    }
    a->sa_sigaction = arrived;
    a->sa_flags = (a->sa_flags & ~(int)SA_RESETHAND) | SA_SIGINFO;
}

NS_EXPORT int sigaction(int sig, const struct sigaction *restrict act, struct sigaction *restrict old)
{
    struct sigaction set, was;
    sigset_t saved;

    if (sig <= 0 || sig >= _NSIG)
        return ns_real.sigaction(sig, act, old);
    if (act)
        set = *act;
    hold(&saved);
    struct installed before = installed[sig];
    if (act && handles(&set))
        stand_in_front(sig, &set);
    int r = ns_real.sigaction(sig, act ? &set : NULL, &was);
    if (r < 0)
        installed[sig] = before;
    unhold(&saved);
    if (r == 0 && was.sa_sigaction == arrived) {
        was.sa_sigaction = before.handler;
        was.sa_flags = (was.sa_flags & ~SA_SIGINFO) | before.flags;
    }
    if (r == 0 && old)
        *old = was;
    return r;
}

NS_TWIN(__sigaction, sigaction);

/*
 * libc's own function knows which flags its handlers get. What it has installed
 * is taken over after it, since it may unblock the signal on the way.
 */
static sighandler_t by_name(sighandler_t (*install)(int, sighandler_t), int sig, sighandler_t handler)
{
    struct sigaction a;
    union {
        void (*with_info)(int, siginfo_t *, void *);
        sighandler_t plain;
    } before = { NULL }, ours = { arrived };

    if (sig > 0 && sig < _NSIG)
        before.with_info = __atomic_load_n(&installed[sig].handler, __ATOMIC_ACQUIRE);
    sighandler_t old = install(sig, handler);
    if (old == SIG_ERR)
        return old;
    if (ns_real.sigaction(sig, NULL, &a) == 0 && handles(&a) && a.sa_sigaction != arrived)
        sigaction(sig, &a, NULL);
    return old == ours.plain ? before.plain : old;
}

NS_EXPORT sighandler_t signal(int sig, sighandler_t handler)
{
    return by_name(ns_real.signal, sig, handler);
}

NS_TWIN(ssignal, signal);
NS_TWIN(bsd_signal, signal);

NS_EXPORT sighandler_t __sysv_signal(int sig, sighandler_t handler)
{
    return by_name(ns_real.__sysv_signal, sig, handler);
}

NS_TWIN(sysv_signal, __sysv_signal);

NS_EXPORT sighandler_t sigset(int sig, sighandler_t handler)
{
    return by_name(ns_real.sigset, sig, handler);
}
