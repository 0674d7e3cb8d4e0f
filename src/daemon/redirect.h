/*
 * Takes over the connections that a held program makes (notify.h): the program's
 * own socket is connected to us over loopback (crossing.h), and relayed from there
 * to where it meant to go, by a connection that this process makes. Under the shim
 * that is a session.
 *
 * It is the program's socket and stays so: its options, its copies, what waits on
 * it. getpeername and getsockname answer as if nothing stood in between.
 *
 * Everything here belongs to the loop's thread.
 */
#ifndef NS_DAEMON_REDIRECT_H
#define NS_DAEMON_REDIRECT_H

#include "core/policy.h"

#include <uv.h>

/*
 * Begins on `loop`, which it keeps alive while a held process lives or a
 * connection is relayed. Connections that the policy leaves plain, and those to
 * this host's loopback, are not touched. The policy and the descriptor are
 * borrowed for as long as the loop runs. Returns 0 or a negative errno.
 */
int ns_redirect_start(uv_loop_t *loop, int notify, const struct ns_policy *policy);

#endif
