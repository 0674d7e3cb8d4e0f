/*
 * The libc functions that the engine calls as the application would.
 *
 * Where an application thread may block, it must block inside libc's own
 * function: that keeps it a cancellation point and lets other interposers see
 * the call. Everything else in the engine is a raw system call (sys.h), which
 * no interposed symbol and no cancellation can divert.
 *
 * The shim fills the table from dlsym(RTLD_NEXT, ...) before main; the library
 * is linked with the functions themselves.
 */
#ifndef NS_ENGINE_LIBC_H
#define NS_ENGINE_LIBC_H

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>

struct ns_libc {
    ssize_t (*recv)(int, void *, size_t, int);
    ssize_t (*recvmsg)(int, struct msghdr *, int);
    ssize_t (*read)(int, void *, size_t);
    int (*accept4)(int, struct sockaddr *, socklen_t *, int);
    int (*connect)(int, const struct sockaddr *, socklen_t);
    int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
    int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
};

extern struct ns_libc ns_libc;

#endif
