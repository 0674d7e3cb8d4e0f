/*
 * A process makes others, or ends. (fork: bind.c; exec: exec.c; system: command.c.)
 *
 * vfork is fork here. Its child would share our memory, and what it does to
 * its descriptors would happen to the parent's sessions.
 */
#include <stdlib.h>

#include "engine/large.h"
#include "preload/interpose.h"

NS_EXPORT pid_t vfork(void)
{
    return ns_real.fork();
}

NS_TWIN(__vfork, vfork);

/* fork(3) without the handlers of pthread_atfork: ours are needed all the same. */
NS_EXPORT pid_t _Fork(void)
{
    int saved;
    pid_t pid;

    if (!ns_ready()) {
        pid = ns_real._Fork();
        if (pid == 0 && ns_table)
            ns_quiet_fork_child();
        return pid;
    }
    ns_fork_prepare();
    pid = ns_real._Fork();
    saved = errno;
    if (pid == 0)
        ns_fork_child();
    else
        ns_fork_parent();
    errno = saved;
    return pid;
}

/* ---- posix_spawn ---- */

/*
 * Numbers that were ever named in a file action's dup2: such a child may get what
 * is close-on-exec. For all file actions, since they can be copied; one bit each.
 */
static uint64_t given[NS_FD_MAX / 64] NS_LARGE;

static bool may_be_given(int fd)
{
    return __atomic_load_n(&given[fd / 64], __ATOMIC_RELAXED) >> (fd % 64) & 1;
}

NS_EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int newfd)
{
    if ((unsigned)fd < NS_FD_MAX)
        __atomic_fetch_or(&given[fd / 64], (uint64_t)1 << (fd % 64), __ATOMIC_RELAXED);
    return ns_real.posix_spawn_file_actions_adddup2(actions, fd, newfd);
}

/*
 * To the engine a spawn is a fork whose child never comes back to us: libc
 * makes it without running the handlers of pthread_atfork. Until it is another
 * program, nothing of ours runs in it.
 */
NS_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                          const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
    int r;

    if (!ns_ready())
        return ns_real.posix_spawn(pid, path, actions, attr, argv, envp);
    ns_spawn_prepare(actions ? may_be_given : NULL);
    r = ns_real.posix_spawn(pid, path, actions, attr, argv, envp);
    ns_spawn_parent(actions ? may_be_given : NULL);
    return r;
}

NS_EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                           const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
    int r;

    if (!ns_ready())
        return ns_real.posix_spawnp(pid, file, actions, attr, argv, envp);
    ns_spawn_prepare(actions ? may_be_given : NULL);
    r = ns_real.posix_spawnp(pid, file, actions, attr, argv, envp);
    ns_spawn_parent(actions ? may_be_given : NULL);
    return r;
}

/* exit runs the shim's destructor; these end the process without. */

static void ending(void)
{
    if (ns_ready())
        ns_process_exiting();
}

NS_EXPORT void _exit(int status)
{
    ending();
    ns_real._exit(status);
    __builtin_unreachable();
}

NS_TWIN(_Exit, _exit);

NS_EXPORT void quick_exit(int status)
{
    ending();
    ns_real.quick_exit(status);
    __builtin_unreachable();
}
