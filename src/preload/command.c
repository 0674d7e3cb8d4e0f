/*
 * Commands: libc spawns a shell, inside.
 *
 * Nothing of ours runs between that spawn and the shell, so what the shell inherits is made
 * plain TCP before. Where a process has sessions and no listener, as a client has, `system`
 * forks and executes the shell itself: then the sessions are dormant in the shell, and stay
 * the caller's as long as no command uses them (engine/heirloom.h). Listeners would lose by a
 * fork what they do not lose by a spawn.
 */
/* pthread_cleanup_push is to go without the compiler's unwinder: every program would load libgcc_s
 * for this one call. (GCC and clang define this with -fexceptions; <pthread.h> looks at it.) */
#undef __EXCEPTIONS

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "engine/large.h"
#include "preload/interpose.h"

/*
 * Before, and not around the call: the table cannot be held for as long as a command
 * runs. What another thread opens meanwhile the command cannot have been written for.
 */
static void command(void)
{
    if (!ns_ready())
        return;
    ns_spawn_prepare(NULL);
    ns_spawn_parent(NULL);
}

/* ---- system ---- */

/* While a command runs, in whichever thread, its caller ignores what the terminal sends. */
static struct {
    pthread_mutex_t lock;
    unsigned commands;
    struct sigaction interrupt, quit; /* the program's own */
} ignoring NS_LARGE = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void ignore_begin(void)
{
    static const struct sigaction ignore = { .sa_handler = SIG_IGN };

    pthread_mutex_lock(&ignoring.lock);
    if (ignoring.commands++ == 0) {
        ns_real.sigaction(SIGINT, &ignore, &ignoring.interrupt);
        ns_real.sigaction(SIGQUIT, &ignore, &ignoring.quit);
    }
    pthread_mutex_unlock(&ignoring.lock);
}

static void ignore_end(void)
{
    pthread_mutex_lock(&ignoring.lock);
    if (--ignoring.commands == 0) {
        ns_real.sigaction(SIGINT, &ignoring.interrupt, NULL);
        ns_real.sigaction(SIGQUIT, &ignoring.quit, NULL);
    }
    pthread_mutex_unlock(&ignoring.lock);
}

/* In the child, all signals blocked: no handler of the program's is to run here. */
static void become_shell(const char *line, const sigset_t *mask)
{
    static const struct sigaction usual = { .sa_handler = SIG_DFL };
    const char *const argv[] = { "sh", "-c", line, NULL };

    ns_real.sigaction(SIGINT, &ignoring.interrupt, NULL);
    ns_real.sigaction(SIGQUIT, &ignoring.quit, NULL);
    for (int sig = 1; sig < NSIG; sig++) {
        struct sigaction is;

        if (ns_real.sigaction(sig, NULL, &is) == 0 && is.sa_handler != SIG_IGN && is.sa_handler != SIG_DFL)
            ns_real.sigaction(sig, &usual, NULL);
    }
    sigprocmask(SIG_SETMASK, mask, NULL);
    execve("/bin/sh", (char *const *)argv, environ);
    _exit(127);
}

static void wait_for_shell(pid_t pid, int *status)
{
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
}

struct cancelled {
    pid_t pid;
    sigset_t *mask;
};

static void cancelled(void *arg)
{
    const struct cancelled *c = arg;
    int status;

    kill(c->pid, SIGKILL);
    wait_for_shell(c->pid, &status);
    ignore_end();
    sigprocmask(SIG_SETMASK, c->mask, NULL);
}

/* As system(3), by a fork. False: that cannot be made. */
static bool run_shell(const char *line, int *status)
{
    sigset_t all, waiting, saved;
    pid_t pid;
    struct cancelled c = { .mask = &saved };

    sigfillset(&all);
    ignore_begin();
    sigprocmask(SIG_BLOCK, &all, &saved);
    pid = _Fork();
    if (pid == 0)
        become_shell(line, &saved);
    waiting = saved;
    sigaddset(&waiting, SIGCHLD);
    if (pid > 0) {
        c.pid = pid;
        *status = -1;
        pthread_cleanup_push(cancelled, &c);
        sigprocmask(SIG_SETMASK, &waiting, NULL);
        wait_for_shell(pid, status);
        pthread_cleanup_pop(0);
    }
    ignore_end();
    sigprocmask(SIG_SETMASK, &saved, NULL);
    return pid > 0;
}

/* With NULL it only asks whether there is a shell. */
NS_EXPORT int system(const char *line)
{
    int status;

    if (line && ns_ready() && ns_spawn_concerned() && ns_exec_followed("/bin/sh", environ) &&
        run_shell(line, &status))
        return status;
    if (line)
        command();
    return ns_real.system(line);
}

/* ---- what only libc can do ---- */

NS_EXPORT FILE *popen(const char *line, const char *mode)
{
    FILE *f;

    command();
    f = ns_real.popen(line, mode);
    if (f)
        ns_newborn(fileno(f));
    return f;
}

NS_TWIN(_IO_popen, popen);

/* Only what is to be replaced by a command's output makes a child. */
NS_EXPORT int wordexp(const char *words, wordexp_t *p, int flags)
{
    if (!(flags & WRDE_NOCMD) && (strchr(words, '`') || strstr(words, "$(")))
        command();
    return ns_real.wordexp(words, p, flags);
}
