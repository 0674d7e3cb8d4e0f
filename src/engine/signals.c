#include "engine/signals.h"

#include "engine/large.h"
#include "engine/lock.h"
#include "engine/slot.h"
#include "engine/sys.h"

#include <string.h>
#include <ucontext.h>

__thread struct ns_put_off ns_put_off __attribute__((tls_model("initial-exec")));
__thread struct ns_handled ns_handled __attribute__((tls_model("initial-exec")));

bool ns_signals_seen;

/* The one that was put off, and the mask that it found. One is enough: then all
 * others wait in the kernel. */
static __thread siginfo_t put_off_info __attribute__((tls_model("initial-exec")));
static __thread uint64_t put_off_mask __attribute__((tls_model("initial-exec")));

/* The kernel's own struct sigaction, as rt_sigaction(2) takes it. */
struct kernel_sigaction {
    void *handler;
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

static bool action(int sig, const struct kernel_sigaction *set, struct kernel_sigaction *get)
{
    return ns_syscall6(SYS_rt_sigaction, sig, (long)set, (long)get, sizeof get->mask, 0, 0) == 0;
}

static void set_mask(uint64_t mask)
{
    ns_syscall6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, sizeof mask, 0, 0);
}

/* What the kernel raises for an instruction cannot wait: it would be raised
 * again, and blocked it ends the process. */
#define OF_AN_INSTRUCTION                                                                                          \
    (1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1) | 1ull << (SIGFPE - 1) | 1ull << (SIGILL - 1) |                  \
     1ull << (SIGTRAP - 1) | 1ull << (SIGSYS - 1))

static bool of_an_instruction(const siginfo_t *info)
{
    return info->si_code > 0 && (OF_AN_INSTRUCTION >> (info->si_signo - 1) & 1);
}

bool ns_signal_put_off(const siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;
    uint64_t blocked = ~OF_AN_INSTRUCTION;
    if (ns_put_off.depth == 0 || ns_put_off.waiting || of_an_instruction(info))
        return false;
    put_off_info = *info;
    memcpy(&put_off_mask, &interrupted->uc_sigmask, sizeof put_off_mask);
    memcpy(&interrupted->uc_sigmask, &blocked, sizeof blocked);
    ns_put_off.waiting = 1;
    return true;
}

/* The kernel lets a thread queue to itself whatever it likes. A queue that is
 * full (RLIMIT_SIGPENDING) costs the siginfo, as kill(2) does there. */
void ns_signal_again(const siginfo_t *info)
{
    pid_t process = ns_sys_getpid(), thread = ns_sys_gettid();
    if (ns_syscall6(SYS_rt_tgsigqueueinfo, process, thread, info->si_signo, (long)info, 0, 0) < 0)
        ns_syscall6(SYS_tgkill, process, thread, info->si_signo, 0, 0, 0);
}

#define BEHIND 16 /* of one number, that came while one was put off */

/* Real-time signals of one number keep their order (signal(7)): those behind it
 * are taken out and queued again after it. All are blocked here. */
static void queue_in_order(const siginfo_t *first)
{
    siginfo_t behind[BEHIND];
    uint64_t set = 1ull << (first->si_signo - 1);
    int n = 0;
    while (first->si_signo >= SIGRTMIN && n < BEHIND &&
           ns_syscall6(SYS_rt_sigtimedwait, (long)&set, (long)&behind[n], (long)&(struct timespec){ 0 }, sizeof set, 0,
                       0) > 0)
        n++;
    ns_signal_again(first);
    for (int i = 0; i < n; i++)
        ns_signal_again(&behind[i]);
}

void ns_signals_let_in_now(void)
{
    siginfo_t info = put_off_info;
    uint64_t mask = put_off_mask;
    ns_put_off.waiting = 0;
    queue_in_order(&info);
    set_mask(mask); /* the handler runs before this returns, or jumps away */
}

void ns_signal_handling(int sig)
{
    struct kernel_sigaction a;
    ns_handled.all++;
    if (!action(sig, NULL, &a) || !(a.flags & SA_RESTART))
        ns_handled.ending++;
    /* What is about to wait has looked already. */
    ns_slot_poke();
}

bool ns_signal_reset(int sig, void (*handler)(int, siginfo_t *, void *), bool info)
{
    struct kernel_sigaction a;
    if (!action(sig, NULL, &a) || a.handler != (void *)handler)
        return false;
    a.handler = SIG_DFL;
    a.flags = (a.flags & ~(unsigned long)SA_SIGINFO) | (unsigned)SA_RESETHAND | (info ? SA_SIGINFO : 0);
    return action(sig, &a, NULL);
}

bool ns_signals_restart(void)
{
    for (int sig = 1; sig < _NSIG; sig++) {
        struct kernel_sigaction a;
        if (action(sig, NULL, &a) && a.handler != SIG_DFL && a.handler != SIG_IGN && !(a.flags & SA_RESTART))
            return false;
    }
    return true;
}

NS_EACH_FORK void ns_signals_fork_child(void)
{
    if (ns_put_off.waiting)
        set_mask(put_off_mask);
    ns_put_off = (struct ns_put_off){ 0 };
}
