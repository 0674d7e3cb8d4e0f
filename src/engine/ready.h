/* Whether what the kernel says of a session's socket is for the application. */
#ifndef NS_ENGINE_READY_H
#define NS_ENGINE_READY_H

#include "engine/sock.h"

#include <poll.h>

/* Asks for, or tells, what can be written. poll's and epoll's bits have the same values
 * (include/uapi/linux/eventpoll.h). */
#define NS_WRITING (POLLOUT | POLLWRNORM | POLLWRBAND)

enum ns_readiness {
    NS_READY_AS_TOLD, /* pass it on */
    NS_READY_NOT,     /* the application must not see it */
    NS_READY_ASK,     /* what was said is out of date: ask the kernel again */
};

/* `revents` as poll(2) gave them. May suspend the session or settle its first
 * bytes. The table lock may be held, no other. */
enum ns_readiness ns_ready_judge(struct ns_sock *s, int fd, short revents);

/* Whether the session is readable whatever its socket says. */
bool ns_ready_anyway(struct ns_sock *s, int fd);

extern uint32_t ns_count_listeners; /* listeners of the process */

#endif
