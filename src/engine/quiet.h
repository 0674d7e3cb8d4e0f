/*
 * A process that puts itself into a sandbox (seccomp(2)): from then on every system
 * call that it does not expect may kill it. So before that its sessions become
 * plain TCP, the helper ends, and the engine makes no call any more.
 */
#ifndef NS_ENGINE_QUIET_H
#define NS_ENGINE_QUIET_H

#include "engine/socket.h"

/* The engine has nothing to do with any descriptor, for good; atomic (socket.h). */

static inline bool ns_is_quiet(void)
{
    return __builtin_expect(__atomic_load_n(&ns_quiet, __ATOMIC_RELAXED), 0);
}

#endif
