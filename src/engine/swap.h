/*
 * Giving up the connection under a session's descriptors, and putting another
 * one in its place. All on the helper.
 */
#ifndef NS_ENGINE_SWAP_H
#define NS_ENGINE_SWAP_H

#include "engine/sock.h"

/*
 * Gives the old connection up: stops its reception, waits until no thread reads
 * it, takes what it still holds into the inbox, notes the final receive offset
 * in s->received and aborts it. The session is NS_SUSPENDED afterwards. Returns
 * 0 (at once, when that was done before), or -EBUSY when a thread stays inside
 * a read, -ENOMEM, -EBADF: nothing was given up then, except that the
 * connection may have stopped receiving. -ESTALE: somebody wrote around the
 * ring, or it has ended meanwhile; nothing was touched, and the session must not
 * be resumed.
 */
int ns_swap_retire(struct ns_sock *s);

/* No segment reaches the socket from here on, so none is acknowledged. */
void ns_swap_stop_reception(int fd);
/* A socket whose connection is gone can be connected again. */
void ns_swap_start_reception(int fd);

/* Notes what getsockname(2) and getpeername(2) are to say from now on: the ends of
 * the session's first connection, which `fd` has; it may be dead. Table held. */
void ns_swap_learn_ends(struct ns_sock *s, int fd);

/* Ends a connection by RST. */
void ns_swap_abort(int fd);

/* The receive offset now: the kernel's count, or the final one after _retire.
 * Table held. */
uint64_t ns_swap_received(struct ns_sock *s);

/*
 * Puts `fd` (taken) under all descriptors of a retired session whose carrier
 * describes it, renews what was registered, and starts sending the ring again.
 * `pair` is the addresses in use.
 */
void ns_swap_install(struct ns_sock *s, int fd, const struct ns_pair *pair, struct ns_time now);

/* The two halves of that for who has no session to go on with (relayed.h): the application's
 * options and file flags, for a connection within the host; the numbers. Table held; `fd` stays
 * the caller's. */
void ns_swap_copy_settings_within(int from, int to);
void ns_swap_put_under(struct ns_sock *s, int fd);

/* Sends what is not sent yet of the ring, and then the end of the stream, if it has ended. The
 * connection has taken nothing meanwhile. */
void ns_swap_replay(struct ns_sock *s);

/* Stops a replay that is under way. */
void ns_swap_stop_replay(struct ns_sock *s);

#endif
