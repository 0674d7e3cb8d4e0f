/*
 * A relay: two TCP connections, each getting what the other one sends, with the
 * ends of both streams kept apart (half-close) and a failure of one passed on as
 * a reset of the other.
 *
 * Everything here belongs to the loop's thread. No call blocks.
 */
#ifndef NS_DAEMON_RELAY_H
#define NS_DAEMON_RELAY_H

#include <uv.h>

struct ns_relay; /* good until it has ended */

/* Told when a relay is over and its handles are freed; `arg` is as it was given. */
typedef void ns_relay_ended_fn(void *arg);

/*
 * Relays between two connected handles, from malloc and without data of their
 * own: they are the relay's now, which closes and frees them. `ended` may be NULL. It ends by itself:
 * in order when both streams have ended, by reset of both when one fails (or at
 * once, when there is no memory for it).
 */
void ns_relay_start(uv_tcp_t *a, uv_tcp_t *b, ns_relay_ended_fn *ended, void *arg);

/*
 * The same, but that nothing is read from `b` yet: somebody else still does. ns_relay_let_read
 * ends that; whoever is to call it has to, or the relay may never end.
 */
struct ns_relay *ns_relay_start_held(uv_tcp_t *a, uv_tcp_t *b, ns_relay_ended_fn *ended, void *arg);
void ns_relay_let_read(struct ns_relay *relay);

/* Ends it, by reset, if nobody is at the other end of `a` any more, though it had ended its stream before. */
void ns_relay_look(struct ns_relay *relay);

/* Closes a connected handle from malloc by reset (where libuv can), and frees it. */
void ns_relay_reset(uv_tcp_t *tcp);

/* Closes a handle from malloc, and frees it. */
void ns_relay_discard(uv_tcp_t *tcp);

#endif
