/*
 * What every file of interposed functions shares.
 *
 * The pattern of each function:
 *
 *     if (ns_ours(fd)) {
 *         r = ns_call(fd, ...);
 *         if (r != NS_NOT_OURS)
 *             return ns_result(r);
 *     }
 *     return ns_real.call(fd, ...);
 *
 * A plain descriptor costs one look into the engine's table, and the
 * application's thread waits in libc's own function, which stays a
 * cancellation point.
 */
#ifndef NS_PRELOAD_INTERPOSE_H
#define NS_PRELOAD_INTERPOSE_H

#include <stdint.h>

#include "engine/quiet.h"
#include "engine/sys.h"
#include "preload/real.h"

#define NS_EXPORT __attribute__((visibility("default")))

/* Another exported name of a function: libc's aliases and LFS names. */
#define NS_TWIN(name, original)                                                                            \
    extern __typeof__(original) name __attribute__((alias(#original), visibility("default"), copy(original)))

/* glibc's own report of an overrun buffer; ends the process. */
extern void __chk_fail(void) __attribute__((noreturn));

/* The one place where the engine's negative errno becomes the application's. */
static inline ssize_t ns_result(ssize_t r)
{
    if (r >= 0)
        return r;
    errno = (int)-r;
    return -1;
}

/*
 * The same for a call that writes: where the kernel would have raised SIGPIPE
 * beside EPIPE (send(2)), it is raised here, in this thread, since the engine
 * never does. Before errno is set, which the signal's handler may spoil.
 */
static inline ssize_t ns_sent(ssize_t r, int flags)
{
    if (r == -EPIPE && !(flags & MSG_NOSIGNAL))
        ns_syscall6(SYS_tgkill, ns_sys_getpid(), ns_sys_gettid(), SIGPIPE, 0, 0, 0);
    return ns_result(r);
}

/* The file that the shim was loaded from; by which exec.c sees whether it will be again. */
void ns_exec_learn(const char *path);

/* Whether it will be in the program `path`, executed with the environment `envp`, for certain. */
bool ns_exec_followed(const char *path, char *const envp[]);

/* Whether ns_engine_init has been called and can protect anything, and the process
 * has not gone into a sandbox. */
static inline bool ns_ready(void)
{
    return ns_table != NULL && !ns_is_quiet();
}

/* A call has made `fd`, or failed: passes its result on. */
static inline int ns_newborn(int fd)
{
    if (fd >= 0 && ns_ours(fd))
        ns_fd_born(fd);
    return fd;
}

/*
 * False for a pointer that no mapping of the process can contain: the kernel
 * then answers EFAULT, where reading it here would be a fault.
 */
static inline bool ns_plausible(const void *p)
{
    return (uintptr_t)p >= 4096 && (intptr_t)p > 0;
}

#endif
