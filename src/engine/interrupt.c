#include "engine/interrupt.h"

#include "engine/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIGSETXID 33

/* As rt_sigaction(2) takes it. */
struct kernel_sigaction {
    void *handler;
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

static struct kernel_sigaction libcs;
static bool used; /* atomic */

static bool action(const struct kernel_sigaction *set, struct kernel_sigaction *get)
{
    return ns_syscall6(SYS_rt_sigaction, SIGSETXID, (long)set, (long)get, sizeof libcs.mask, 0, 0) == 0;
}

bool ns_interrupt_begin(void)
{
    if (!action(NULL, &libcs) || libcs.handler == SIG_DFL || libcs.handler == SIG_IGN)
        return false;
    struct kernel_sigaction ending = libcs;
    ending.flags &= ~(unsigned long)SA_RESTART;
    __atomic_store_n(&used, true, __ATOMIC_SEQ_CST);
    return action(&ending, NULL);
}

bool ns_interrupt_used(void)
{
    return __atomic_load_n(&used, __ATOMIC_SEQ_CST);
}

void ns_interrupt_end(void)
{
    action(&libcs, NULL);
}

/* A file about a thread, as text; false where there is none. */
static bool read_about(uint32_t thread, const char *file, char *text, size_t room)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/self/task/%u/%s", thread, file);
    int fd = ns_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    ssize_t n = fd < 0 ? fd : ns_sys_read(fd, text, room - 1);
    if (fd >= 0)
        ns_sys_close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

int ns_thread_reads(uint32_t thread)
{
    char text[256], *end;
    if (!read_about(thread, "syscall", text, sizeof text))
        return ns_syscall6(SYS_tgkill, ns_sys_getpid(), (long)thread, 0, 0, 0, 0) == -ESRCH ? NS_SLEEPS_ELSEWHERE
                                                                                              : NS_SLEEPS_UNSEEN;
    long call = strtol(text, &end, 10);
    if (end == text) /* "running" */
        return NS_SLEEPS_NOT;
    if (call != SYS_recvfrom && call != SYS_recvmsg)
        return NS_SLEEPS_ELSEWHERE;
    return (int)strtol(end, NULL, 16);
}

void ns_interrupt(uint32_t thread)
{
    siginfo_t info = { .si_signo = SIGSETXID, .si_code = SI_QUEUE };
    ns_syscall6(SYS_rt_tgsigqueueinfo, ns_sys_getpid(), (long)thread, SIGSETXID, (long)&info, 0, 0);
}

bool ns_interrupt_taken(uint32_t thread)
{
    char text[2048];
    if (!read_about(thread, "status", text, sizeof text))
        return ns_syscall6(SYS_tgkill, ns_sys_getpid(), (long)thread, 0, 0, 0, 0) == -ESRCH;
    const char *state = strstr(text, "State:\t"), *pending = strstr(text, "SigPnd:\t");
    if (state && (state[7] == 'T' || state[7] == 't')) /* a stop ends a call, too: it begins anew */
        return true;
    return pending && !(strtoull(pending + 8, NULL, 16) >> (SIGSETXID - 1) & 1);
}
