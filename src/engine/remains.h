/*
 * What a process leaves behind that ends with bytes undelivered: each such session goes,
 * with its state (laid.h) and its socket, to a process of the broker's (handover.h) that
 * sees it to its end (adopt.h).
 */
#ifndef NS_ENGINE_REMAINS_H
#define NS_ENGINE_REMAINS_H

#include "core/time.h"

#include <stdbool.h>

/*
 * The process ends, or becomes another program (`by_exec`: then it is about what that does not
 * inherit; if the exec fails after all, what was handed over is gone here, EPIPE). Waits a moment
 * for acknowledgements, then hands over what is undelivered still, if there is somebody who takes
 * it. No lock held.
 */
void ns_remains_leave(bool by_exec);

/* Whether a session here, not handed over, would lose something by the end of the process. */
bool ns_remains_left(void);

/* On the helper: hands over, if that is asked for. */
void ns_remains_look(struct ns_time now);

/* In a forked child. */
void ns_remains_fork_child(void);

#endif
