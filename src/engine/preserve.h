/*
 * The kernel half (kernel/README.md): a kernel that has it moves connections
 * to other addresses by itself, below what any program sees.
 */
#ifndef NS_ENGINE_PRESERVE_H
#define NS_ENGINE_PRESERVE_H

#include "core/path.h"

#include <stdbool.h>

/* Whether both ends of the connection know alternatives; which of our
 * addresses segments leave from now goes to `local`. A system call; any
 * thread. False from a kernel that does not know of it. */
bool ns_preserve_local(int fd, struct ns_address *local);

#endif
