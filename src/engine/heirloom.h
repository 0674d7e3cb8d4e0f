/*
 * Sessions that go on in another program (exec). The process is the same, so it is
 * still the one that has them; what the next shim has to know goes with the
 * descriptors, in a memory file whose number is in the environment:
 *
 *     head | item, state | item, state | ...
 *
 * A state is written as for another process (laid.h). Where other processes hold the
 * session, too, the estate that they share (estate.h) is inherited as well.
 *
 * With a listener goes what connections wait for its next accept (backlog.h).
 *
 * A session is asleep between that and the exec. Who wakes it then (a signal handler,
 * another thread, or this one because the exec has failed) spoils its item first: what
 * the file says is no longer true, and the next program, if there is one after all,
 * goes on with plain TCP.
 */
#ifndef NS_ENGINE_HEIRLOOM_H
#define NS_ENGINE_HEIRLOOM_H

#include "engine/listener.h"

/* The environment variable that has the number of that file. */
#define NS_HEIRLOOM_VARIABLE "NAMESOCKET_HEIRLOOM"

/* ---- before exec; table held ---- */

/* False when there can be none: nothing may be added. */
bool ns_heirloom_begin(void);
/* Puts it to sleep, and its state there. It stays as it was where that cannot be. */
void ns_heirloom_add(struct ns_sock *s);
/* One that a relay has (relayed.h): whose connection it is. */
void ns_heirloom_add_relayed(struct ns_sock *s);
/* Connections wait for it in its backlog, which goes along: the kernel gives them to nobody. */
void ns_heirloom_add_listener(struct ns_listener *l);
/* Returns the file, or -1 where nothing was added. */
int ns_heirloom_end(void);
/* At last: it, and the estates, are open after exec. What another thread starts meanwhile
 * would have them, too, and the keys that are in them. Table not held. */
void ns_heirloom_pass_on(void);

/* It is about to be used here after all. */
void ns_heirloom_spoil(struct ns_sock *s);

/* The exec has failed: there is no such file. Table not held. */
void ns_heirloom_undo(void);

void ns_heirloom_fork_child(void);

/* ---- at the start of the new program ---- */

/* What the program before has left is dormant here. Returns whether there was one; then what that
 * has read of the system (the ephemeral ports) holds here, too. */
bool ns_heirloom_take(void);
/* The engine cannot be here: those connections are reset, and the files closed. */
void ns_heirloom_refuse(void);

#endif
