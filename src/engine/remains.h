/*
 * What a process leaves behind that ends with bytes undelivered: each such session goes,
 * with its state (laid.h) and its socket, to a process of the broker's that sees it to
 * its end (adopt.h), by a connection between the two that the broker has made.
 *
 *     leaving             broker             adopter
 *        │ ADOPT, one end    │                  │
 *        │ of a socket pair  │ the end          │
 *        │ ────────────────► │ ───────────────► │ (started, if there is none)
 *        │ ◄──────────────────────────── READY  │
 *        │ a session: its state, its socket     │
 *        │ ───────────────────────────────────► │ has it from here on
 *        │ ◄──────────────────────────── TAKEN  │
 *        ▼ ends                                 ▼ delivers
 */
#ifndef NS_ENGINE_REMAINS_H
#define NS_ENGINE_REMAINS_H

#include "core/time.h"

#include <stdbool.h>

/* What is said on that connection, a byte each. */
enum {
    NS_REMAINS_READY = 'R',
    NS_REMAINS_SESSION = 'S', /* with two descriptors: the state's file, the socket */
    NS_REMAINS_TAKEN = 'T',
    NS_REMAINS_REFUSED = 'N', /* too much, or no sense in it: it stays where it is */
};

/* So long each waits for the other. */
#define NS_REMAINS_MS 2000

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
