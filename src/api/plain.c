/*
 * Connecting by name where there is no engine: under the shim, which protects
 * what libc's functions are called for, or for want of memory.
 */
#include "api/api.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

static int resolve_error(int code)
{
    switch (code) {
    case EAI_SYSTEM:
        return errno ? -errno : -EIO;
    case EAI_MEMORY:
        return -ENOMEM;
    case EAI_AGAIN:
        return -EAGAIN;
    default:
        return -ENOENT;
    }
}

/* A non-blocking socket answers EINPROGRESS; nconnect blocks all the same. */
static int connect_and_wait(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct pollfd wait = { .fd = fd, .events = POLLOUT };
    socklen_t error_len = sizeof(int);
    int error = 0;

    if (connect(fd, addr, len) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    if (poll(&wait, 1, -1) < 0)
        return -errno;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) < 0)
        return -errno;
    return -error;
}

int ns_api_connect_plain(int fd, const char *host, uint16_t port)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *list, *a;
    socklen_t len = sizeof(hints.ai_family);
    char service[8];
    int r;

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &hints.ai_family, &len) < 0)
        return -errno;
    /* One socket serves both families: IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
    if (hints.ai_family == AF_INET6)
        hints.ai_flags |= AI_V4MAPPED | AI_ALL;
    snprintf(service, sizeof(service), "%u", port);
    errno = 0;
    r = getaddrinfo(host, service, &hints, &list);
    if (r != 0)
        return resolve_error(r);
    r = -ENOENT;
    for (a = list; a; a = a->ai_next) {
        r = connect_and_wait(fd, a->ai_addr, a->ai_addrlen);
        if (r == 0 || r == -EINTR)
            break;
    }
    /* An interrupted connect goes on by itself: call it off, so that it can be called again. */
    if (r == -EINTR)
        connect(fd, &(struct sockaddr){ .sa_family = AF_UNSPEC }, sizeof(struct sockaddr));
    freeaddrinfo(list);
    return r;
}
