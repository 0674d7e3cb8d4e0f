/*
 * A gateway: listens on one address and relays each connection to another. Run
 * under the shim it is what stands in for a program that the shim cannot get
 * into: in front of a client it makes the sessions, in front of a server it
 * accepts them.
 *
 * Everything here belongs to the loop's thread.
 */
#ifndef NS_DAEMON_GATEWAY_H
#define NS_DAEMON_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

/* LISTEN:HOST:PORT, taken apart. LISTEN is a port, or an address and a port. */
struct ns_gateway_route {
    char listen_host[256], listen_port[32]; /* host "" is every address */
    char host[256], port[32];
};

/*
 * Takes `text` apart; an IPv6 address stands in brackets. A port is a number
 * from 1 to 65535. Returns 0, or -EINVAL with one line about it in `error`.
 */
int ns_gateway_parse(const char *text, struct ns_gateway_route *out, char *error, size_t error_bytes);

struct ns_gateway;

/*
 * Listens and relays on `loop`; the route is copied. `say` gets a line for each
 * connection that could not be made. Returns NULL with `error` filled in when
 * the address cannot be listened on.
 */
struct ns_gateway *ns_gateway_open(uv_loop_t *loop, const struct ns_gateway_route *route,
                                   void (*say)(const char *line), char *error, size_t error_bytes);

/* Listens no more. Connections that are relayed go on until they end, and only then `loop` has nothing of it
 * left. */
void ns_gateway_close(struct ns_gateway *gateway);

#endif
