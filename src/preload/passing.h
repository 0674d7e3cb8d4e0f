/*
 * Descriptors inside messages (unix(7), SCM_RIGHTS).
 */
#ifndef NS_PRELOAD_PASSING_H
#define NS_PRELOAD_PASSING_H

#include <stdbool.h>
#include <sys/socket.h>

/* Whether the control part of `msg`, which can be read, has room for a descriptor. */
static inline bool ns_passing(const struct msghdr *msg)
{
    return __builtin_expect(msg->msg_controllen >= CMSG_LEN(sizeof(int)), 0);
}

/* Before sendmsg: sessions that leave with `msg` become plain TCP. Borrows. Returns
 * 0, or the error with which the call fails: a session that has ended. */
int ns_passing_sent(const struct msghdr *msg);

/* After a successful recvmsg: numbers that came with `msg` are newly born. */
void ns_passing_received(const struct msghdr *msg);

#endif
