/*
 * A socket that another program owns is made to connect, and stays connecting
 * for as long as we like: poll(2), SO_ERROR and a waiting connect(2) say of it
 * what they would say of a connection that is being made far away.
 *
 * Its SYN goes to a port of ours on loopback that is deaf: nothing answers. When
 * the connection may stand, we send a SYN from that port in turn, and the two
 * meet: simultaneous open (RFC 9293, 3.5), which takes no time. When it has
 * failed, the port is closed, and the kernel's next SYN is refused.
 *
 * No function blocks. They make bare system calls, because the shim, under which
 * this runs, is to have no part in these connections.
 */
#ifndef NS_DAEMON_CROSSING_H
#define NS_DAEMON_CROSSING_H

#include <stdbool.h>
#include <sys/socket.h>

struct ns_crossing {
    int deaf;                            /* -1: closed */
    struct sockaddr_storage here, there; /* the deaf port; the socket's own end */
};

/*
 * Lets the TCP socket `fd`, which is unconnected, connect; its mode stays as it
 * was. `meant` is where it would go: the loopback of the same family is what it
 * gets. Returns 0 or a negative errno, the socket's own (it may be bound to where
 * there is no loopback).
 */
int ns_crossing_begin(struct ns_crossing *c, int fd, const struct sockaddr_storage *meant);

/*
 * The connection stands: returns our end of it, non-blocking and close-on-exec,
 * or a negative errno when the socket no longer waits for it. Ends the crossing.
 */
int ns_crossing_meet(struct ns_crossing *c, int fd);

/* The connection has failed: ECONNREFUSED for the socket when it sends its SYN again. Ends the crossing. */
void ns_crossing_refuse(struct ns_crossing *c);

/* For a non-blocking socket that has begun: what its connect returns now, 0 or -EINPROGRESS. */
int ns_crossing_look(int fd);

/* Whether a socket that has begun has failed. */
bool ns_crossing_gone(int fd);

/* Makes one that has failed as it was before. */
void ns_crossing_dissolve(int fd);

#endif
