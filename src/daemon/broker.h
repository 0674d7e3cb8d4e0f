/*
 * The broker: passes connections and messages between the processes that are
 * connected to it, and tells nsctl what they hold (docs/architecture.md, "The
 * broker"). Whatever it knows, they told it, and tell it again to the next one.
 *
 * A user reaches only what is his; root reaches all. Who has sent a record, the
 * kernel says.
 */
#ifndef NS_DAEMON_BROKER_H
#define NS_DAEMON_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

struct ns_broker;

/* Listens at `address` (ns_message_address). A socket that a broker before left at
 * a path is replaced, one that is answered at is not. Returns a listening descriptor or a negative errno. */
int ns_broker_listen(const char *address);

/* Starts on the listening socket `fd`, which becomes its. `only`: take nobody but this user and root,
 * or (uid_t)-1 for everybody. `idle` (may be NULL) is called when the last member has gone. NULL: no memory;
 * `fd` is closed. */
struct ns_broker *ns_broker_new(uv_loop_t *loop, int fd, uid_t only, void (*idle)(void *arg), void *arg);

bool ns_broker_idle(const struct ns_broker *b);

/* Closes all that keeps the loop running; freed when the loop has seen it. */
void ns_broker_close(struct ns_broker *b);

#endif
