/*
 * Waiting through the engine, for the calls of libc and for their bare
 * numbers alike. Each returns the count, a negative errno, or NS_NOT_OURS when
 * the plain call can do it (or has to refuse it). Arguments as for the
 * engine's functions in engine/socket.h.
 */
#ifndef NS_PRELOAD_WAIT_H
#define NS_PRELOAD_WAIT_H

#include <stdbool.h>

#include "engine/socket.h"

int ns_wait_poll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
int ns_wait_select(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
                   const sigset_t *mask);
int ns_wait_epoll(int epfd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask);

/* A moment `span` from now, on the monotonic clock; and what is left until it, zero once it is past. */
struct timespec ns_wait_end(struct timespec span);
struct timespec ns_wait_left(struct timespec end);

/* Whether the kernel accepts *t as a span of time; NULL is one. */
bool ns_wait_valid(const struct timespec *t);

#endif
