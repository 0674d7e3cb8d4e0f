/* Whether a port, or a socket, of ours is somebody else's too. */
#ifndef NS_ENGINE_SHARED_H
#define NS_ENGINE_SHARED_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Whether sockets that are not this process's listen on `port` beside one of
 * ours, which SO_REUSEPORT allows: a connection that follows our HELLO_ACK may
 * then be accepted by a process that knows nothing of it. Reads /proc/net/tcp
 * and tcp6 (proc(5)), and only if one of our listeners there has the option.
 */
bool ns_port_shared(uint16_t port);

/* Whether one of our listeners on `port` came or went by SCM_RIGHTS. */
bool ns_port_passed(uint16_t port);

/* Whether the socket did, before it had an object. Table held. */
bool ns_socket_passed(int fd);

#endif
