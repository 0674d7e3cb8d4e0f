/* New connections of the engine's own making. */
#ifndef NS_ENGINE_DIAL_H
#define NS_ENGINE_DIAL_H

#include "core/path.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Begins to connect from `pair->source` (any, when its family is 0) to
 * `pair->destination`, `port`. Returns an internal, non-blocking descriptor, or
 * a negative errno. `talks`: we are the one who speaks, and at once; then the
 * handshake's last acknowledgement is held back for the first bytes, so that
 * the peer's accept(2) sees both together.
 */
int ns_dial(const struct ns_pair *pair, uint16_t port, bool talks);

/*
 * Before such a connection is closed without having said anything: if it is
 * established already, it leaves as a HELLO whose answer nobody waits for, so
 * that the server's application does not see a client that came and left.
 */
void ns_dial_withdraw(int fd);

/*
 * Connects the application's socket to `host` (a name or a literal address):
 * tries all its addresses, in the order of RFC 6724, staggered as in RFC 8305,
 * and puts the winner under `fd`, a stream socket that is not connected. Blocks
 * as connect(2) does. Returns 0 or a negative errno: the last failure's, or
 * -EHOSTUNREACH, or -ENOENT when the name has no address. Any thread.
 */
int ns_connect_name(int fd, const char *host, uint16_t port);

#endif
