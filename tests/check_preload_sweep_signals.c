/* The sweep's part about signal handlers: whoever asks is told what was installed, and it is what runs. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_preload_sweep.h"

extern sighandler_t bsd_signal(int, sighandler_t);
extern sighandler_t ssignal(int, sighandler_t);
extern sighandler_t sysv_signal(int, sighandler_t);
extern sighandler_t __sysv_signal(int, sighandler_t);
extern int __sigaction(int, const struct sigaction *, struct sigaction *);

static volatile sig_atomic_t plains, infos, value, code, blocked, other_blocked, has_context;

static void plain(int sig)
{
    sigset_t now;

    sigprocmask(SIG_BLOCK, NULL, &now);
    blocked = sigismember(&now, sig);
    other_blocked = sigismember(&now, SIGUSR2);
    plains++;
    errno = EDOM;
}

static void with_info(int sig, siginfo_t *info, void *context)
{
    plain(sig);
    infos++;
    code = info->si_code;
    value = info->si_value.sival_int;
    has_context = context != NULL;
}

/* What SIGUSR1's entry tells: handler, flags (libc's SA_RESTORER is among them either way), mask. */
static void show_entry(void)
{
    struct sigaction a = { 0 };

    SHOW(sigaction(SIGUSR1, NULL, &a));
    SHOW(a.sa_handler == plain), SHOW(a.sa_sigaction == with_info);
    SHOW(a.sa_handler == SIG_DFL), SHOW(a.sa_handler == SIG_IGN);
    SHOW(a.sa_flags), SHOW(sigismember(&a.sa_mask, SIGUSR1)), SHOW(sigismember(&a.sa_mask, SIGUSR2));
}

static void show_delivery(void)
{
    union sigval v = { .sival_int = 4711 };

    SHOW(raise(SIGUSR1));
    SHOW(plains), SHOW(infos), SHOW(code), SHOW(blocked), SHOW(other_blocked);
    SHOW(sigqueue(getpid(), SIGUSR1, v));
    SHOW(plains), SHOW(infos), SHOW(value), SHOW(code), SHOW(has_context);
}

static void by_sigaction(void)
{
    static const int flags[] = { 0, SA_RESTART, SA_NODEFER, SA_ONSTACK, (int)SA_RESETHAND };
    struct sigaction a = { 0 }, old;
    static char stack[65536];
    stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };

    sweep_kind = "sigaction";
    sigaltstack(&alternate, NULL);
    sigaddset(&a.sa_mask, SIGUSR2);
    for (int i = 0; i < 5; i++) {
        a.sa_flags = flags[i];
        a.sa_handler = plain;
        SHOW(sigaction(SIGUSR1, &a, &old)), SHOW(old.sa_handler == plain), SHOW(old.sa_flags);
        show_entry();
        SHOW(raise(SIGUSR1)), SHOW(plains), SHOW(blocked), SHOW(other_blocked);
        show_entry();
        a.sa_sigaction = with_info;
        a.sa_flags |= SA_SIGINFO;
        SHOW(__sigaction(SIGUSR1, &a, &old)), SHOW(old.sa_handler == plain), SHOW(old.sa_flags);
        show_entry();
        if (!(a.sa_flags & (int)SA_RESETHAND))
            show_delivery();
        SHOW(siginterrupt(SIGUSR1, 1));
        show_entry();
        SHOW(system("true"));
        SHOW(sigaction(SIGUSR1, &old, &a)), SHOW(a.sa_sigaction == with_info);
        a.sa_sigaction = NULL;
    }
    SHOW(sigaction(SIGUSR1, &a, NULL));
    show_entry();
}

static void refused(void)
{
    static const int bad[] = { -1, 0, SIGKILL, SIGSTOP, 32, 33, 65, 1000 };
    struct sigaction a = { .sa_handler = plain }, old;

    sweep_kind = "refused";
    for (int i = 0; i < 8; i++) {
        SHOW(sigaction(bad[i], &a, &old)), SHOW(sigaction(bad[i], NULL, &old)), SHOW(signal(bad[i], plain) == SIG_ERR);
        SHOW(sigset(bad[i], plain) == SIG_ERR);
    }
    SHOW(signal(SIGUSR1, SIG_ERR) == SIG_ERR);
    SHOW(sigaction(SIGRTMAX, &a, NULL)), SHOW(raise(SIGRTMAX)), SHOW(plains);
}

static void by_name(void)
{
    static sighandler_t (*const ways[])(int, sighandler_t) = { signal,        ssignal,     bsd_signal,
                                                               __sysv_signal, sysv_signal, sigset };

    sweep_kind = "signal";
    for (int i = 0; i < 6; i++) {
        SHOW(ways[i](SIGUSR1, plain) == SIG_DFL);
        show_entry();
        SHOW(ways[i](SIGUSR1, plain) == plain);
        SHOW(raise(SIGUSR1)), SHOW(plains), SHOW(blocked);
        show_entry();
        SHOW(ways[i](SIGUSR1, SIG_IGN) == plain), SHOW(raise(SIGUSR1)), SHOW(plains);
        show_entry();
        SHOW(ways[i](SIGUSR1, SIG_DFL) == SIG_IGN);
        show_entry();
    }
    SHOW(sigset(SIGUSR1, SIG_HOLD) == SIG_DFL), SHOW(raise(SIGUSR1)), SHOW(plains);
    SHOW(sigset(SIGUSR1, plain) == SIG_HOLD), SHOW(plains);
    SHOW(signal(SIGUSR1, SIG_DFL) == plain);
}

static void in_a_child(void)
{
    int status = 0;

    sweep_kind = "child";
    SHOW(signal(SIGUSR1, plain) == SIG_DFL);
    pid_t pid = fork();
    if (pid == 0) {
        int before = plains;
        raise(SIGUSR1);
        _exit(plains == before + 1 ? 7 : 8);
    }
    SHOW(waitpid(pid, &status, 0) == pid), SHOW(status);
    SHOW(signal(SIGUSR1, SIG_DFL) == plain);
}

void sweep_signals(void)
{
    by_sigaction();
    refused();
    by_name();
    in_a_child();
}
