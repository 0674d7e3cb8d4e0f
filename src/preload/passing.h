/*
 * Descriptors inside messages (unix(7), SCM_RIGHTS).
 */
#ifndef NS_PRELOAD_PASSING_H
#define NS_PRELOAD_PASSING_H

#include <sys/socket.h>

/* Before sendmsg: sessions that leave with `msg` become plain TCP. Borrows. Returns
 * 0, or the error with which the call fails: a session that has ended. */
int ns_passing_sent(const struct msghdr *msg);

/* After a successful recvmsg: numbers that came with `msg` are newly born. */
void ns_passing_received(const struct msghdr *msg);

#endif
