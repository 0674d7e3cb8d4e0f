/*
 * nsrun --gateway: a command whose connections are taken over (redirect.h), and
 * this process, which started it, takes them over and ends as it ends.
 *
 * It is two programs in turn. First nsrun, which starts the command with its
 * calls held, and then starts itself again under the shim in the same process,
 * so that the command stays its child.
 */
#ifndef NS_DAEMON_SUPERVISE_H
#define NS_DAEMON_SUPERVISE_H

#include "core/policy.h"

#include <stddef.h>

/*
 * Starts the command and this program again, with LD_PRELOAD for the latter
 * alone. Returns only when it cannot, before the command was started: a negative
 * errno, with one line in `error`. A command that cannot be run is exit status 126
 * or 127, as without --gateway.
 */
int ns_supervise_start(char **argv, char **command, const char *shim, char *error, size_t error_bytes);

/* In the second start: takes over until nothing is left to do, and exits. In any other: returns at once. */
void ns_supervise_resume(void);

#endif
