/*
 * A listener that several processes accept from, after a fork (prefork servers).
 *
 * Each of them has a helper that watches it, for the RESUME that waits while
 * all are busy (listener.h). What a helper has to accept on the way to it and is the
 * application's must not wait for that process: another may be free first. So it
 * goes into a socket that all have, where whoever accepts next takes it. Two
 * rules make that safe:
 *
 * - Nobody enters accept(2) while something is in that socket.
 * - No helper accepts while anybody, of whatever process, is inside accept(2).
 *
 * Both are looked at under one lock in memory that all share. It is robust, and so
 * is the count of who is inside: a process may be killed at any point.
 */
#ifndef NS_ENGINE_DOOR_H
#define NS_ENGINE_DOOR_H

#include "engine/listener.h"

/* In shared memory. */
struct ns_door;

/* Before a fork: the listener gets a door, unless it has one, where the processes
 * can reach each other. Table held. Returns whether it has. */
bool ns_door_open(struct ns_listener *l);

/* In the forked child: nobody of it is inside. */
void ns_door_inherit(struct ns_listener *l);

/* The process is about to wait for the listener: its helper has to be there. Any thread. */
void ns_door_attend(struct ns_listener *l);

/* Whether a connection waits in the socket. Any thread. */
bool ns_door_waits(const struct ns_listener *l);

/*
 * Called in front of accept(2), and after it. ns_door_enter returns a connection that
 * waited, under the lowest free number with `flags` as accept4 has them, and its peer; or
 * -EAGAIN: the thread is inside now, and ns_door_leave has to follow. The first call in a
 * process waits for its helper to have started.
 */
int ns_door_enter(struct ns_listener *l, struct ns_name *peer, int flags);
void ns_door_leave(struct ns_listener *l);

/* A program that knows nothing of us may accept from it from now on: nothing is taken over
 * any more, and nobody is promised anything, in any process. Table held. */
void ns_door_unlock(struct ns_listener *l);

/* The same for every listener that this process has, or had from its parent: a connection
 * of theirs goes to such a program. Table held. */
void ns_doors_unlock(void);

/* Whether this process may not promise what another process would have to keep, because it
 * has not reached the others for some time. Any thread. */
bool ns_door_cut_off(void);

/* ---- on the helper, table held ---- */

/* This process watches the listener, too; and not any more. */
void ns_door_join(struct ns_listener *l);
void ns_door_part(struct ns_listener *l);

/* Whether nobody has accepted since ns_door_look, nor is about to. Then the lock is held,
 * and the caller accepts, passes on what is the application's, and ends by ns_door_done. */
void ns_door_look(struct ns_listener *l);
bool ns_door_begin(struct ns_listener *l);
/* Puts a connection where the next accept finds it; it is closed here then. False: no room. */
bool ns_door_put(struct ns_listener *l, int fd, const struct ns_name *peer);
void ns_door_done(struct ns_listener *l);
/* Hands to the helper what has spoken since, and is its; the lock is held. */
void ns_door_sift(struct ns_listener *l, bool (*of_helper)(int fd));
/* Whether there is no room for more. */
bool ns_door_full(const struct ns_listener *l);

#endif
