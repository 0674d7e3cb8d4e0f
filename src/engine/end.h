/*
 * The ends of a session. There are two: its memory goes, or its connection
 * becomes the application's own.
 *
 *     any state on a working connection            SUSPENDED, CONNECTED
 *        |                  |                        |            |
 *      demote            the state machine        give_up      abandon: a replay
 *        |               said PLAIN                  |         would be wrong
 *        v                  v                        v            |
 *      PLAIN ------------ forget                  FAILED <--------+--> demote
 *                           |                        |    suspended    working
 *                           |    the last descriptor |
 *      close(2), nothing    |    is closed, or was   |
 *      undelivered          |    before              |
 *         |                 v                        |
 *         +------------> let_go --- the helper knows it: NS_TODO_CLOSED
 *                           |                        |
 *      close(2), bytes      | it does not            v
 *      undelivered          |             linger.h -> bury
 *         |                 |               ^        |
 *         +-----------------+---------------+        | a note is still under
 *                           v                        | way: exhume
 *                         freed <--------------------+
 *
 * connect(2) with AF_UNSPEC makes any state PLAIN or FAILED, and forgets it at once.
 *
 * Otherwise, with FAILED the descriptors stay in the table until they are closed: only the
 * table knows the error that the application is to get.
 */
#ifndef NS_ENGINE_END_H
#define NS_ENGINE_END_H

#include "engine/sock.h"

/* Makes it plain TCP, if it is on a working connection that has all of the stream;
 * with a line in the log. The table entries go. Returns whether that was so. No
 * lock held but the table's. */
bool ns_sock_demote(struct ns_sock *s, const char *why);

/* The application dissolves the connection by connect(2) with AF_UNSPEC: nothing
 * is delivered or read any more. The caller does the real call. No lock held. */
void ns_sock_disconnect(struct ns_sock *s);

/* A plain connection lives as long as plain TCP lets it: what the application has set, or
 * not, is so on `fd`. */
void ns_sock_restore_keepalive(const struct ns_sock *s, int fd);

/* After it became NS_PLAIN: the table entries go, so that the next call is a
 * plain one; but they stay until the inbox is read. No lock held. */
void ns_sock_forget(struct ns_sock *s);

/* Whether closing it now would lose what the application has written, or the end of its
 * stream, if the path died: then it is seen through. `fd` is its socket; tx held. */
bool ns_sock_undelivered(struct ns_sock *s, int fd);

/* Its last descriptor is gone and nothing is left to deliver: frees it, or has
 * the helper do it. Table held. */
void ns_sock_let_go(struct ns_sock *s);

/* ---- on the helper ---- */

/* Ends with an error for the application (negative errno). */
void ns_sock_give_up(struct ns_sock *s, int error, struct ns_time now);

/* It cannot be replayed: plain TCP from here on, or, on a dead connection, the
 * end. */
void ns_sock_abandon(struct ns_sock *s, struct ns_time now);

/* Takes everything away that the helper has of it, and frees it. */
void ns_sock_bury(struct ns_sock *s, struct ns_time now);

/* Frees a session that was buried while a note about it was under way. */
void ns_sock_exhume(struct ns_sock *s);

#endif
