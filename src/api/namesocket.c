/*
 * The thesis's nine functions (table 4.1, 5.1.1) over the engine. A descriptor
 * that the engine knows nothing about is plain TCP and gets libc's own call.
 */
#include "namesocket.h"

#include "api/api.h"
#include "engine/dial.h"
#include "engine/engine.h"
#include "engine/libc.h"
#include "engine/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

/* Family of a TCP socket, or a negative errno. */
static int family_of(int fd)
{
    int family = 0, type = 0;
    socklen_t family_len = sizeof(family), type_len = sizeof(type);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &family_len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0)
        return -errno;
    if (type != SOCK_STREAM || (family != AF_INET && family != AF_INET6))
        return -EPROTOTYPE;
    return family;
}

/* The flags that nsocket() was given, as fcntl(2) has changed them since. */
static int flags_of(int fd)
{
    int descriptor = fcntl(fd, F_GETFD);
    int status = fcntl(fd, F_GETFL);

    return (descriptor > 0 && (descriptor & FD_CLOEXEC) ? SOCK_CLOEXEC : 0) |
           (status > 0 && (status & O_NONBLOCK) ? SOCK_NONBLOCK : 0);
}

int nsocket(int flags)
{
    int off = 0;
    int fd;

    if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
        return (int)ns_api_result(-EINVAL);
    ns_api_start();
    fd = socket(AF_INET6, SOCK_STREAM | flags, IPPROTO_TCP);
    if (fd < 0 && errno == EAFNOSUPPORT)
        fd = socket(AF_INET, SOCK_STREAM | flags, IPPROTO_TCP);
    else if (fd >= 0)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (fd >= 0 && ns_api_started())
        ns_fd_born(fd);
    return fd;
}

static int bind_everywhere(int fd, int family, uint16_t port)
{
    struct sockaddr_in6 any6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    struct sockaddr_in any4 = { .sin_family = AF_INET, .sin_port = htons(port) };
    int on = 1, r;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        return -errno;
    if (family == AF_INET6)
        r = bind(fd, (struct sockaddr *)&any6, sizeof(any6));
    else
        r = bind(fd, (struct sockaddr *)&any4, sizeof(any4));
    return r < 0 ? -errno : 0;
}

int nlisten(int nsd, const char *service, int backlog)
{
    uint16_t port;
    int family = family_of(nsd);
    int r;

    if (family < 0)
        return (int)ns_api_result(family);
    r = ns_api_port(service, &port);
    if (r < 0)
        return (int)ns_api_result(r);
    ns_debug("Binding socket to port %u", port);
    r = bind_everywhere(nsd, family, port);
    if (r < 0)
        return (int)ns_api_result(r);
    r = ns_api_start() ? ns_listen(nsd, backlog) : NS_NOT_OURS;
    if (r == NS_NOT_OURS)
        return listen(nsd, backlog);
    return (int)ns_api_result(r);
}

int naccept(int nsd)
{
    int flags = flags_of(nsd);
    int fd = ns_ours(nsd) ? ns_accept(nsd, NULL, NULL, flags) : NS_NOT_OURS;

    if (fd == NS_NOT_OURS) {
        fd = accept4(nsd, NULL, NULL, flags);
        if (fd >= 0 && ns_api_started())
            ns_fd_born(fd);
    } else {
        fd = (int)ns_api_result(fd);
    }
    if (fd >= 0)
        ns_debug("naccept(%d) returning new nsd %d", nsd, fd);
    return fd;
}

int nselect(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, struct timeval *timeout)
{
    struct timespec span, *limit = NULL;
    int r;

    /* select(2) takes microseconds beyond a second, pselect(2) refuses them. */
    if (timeout) {
        if (timeout->tv_sec < 0 || timeout->tv_usec < 0)
            return (int)ns_api_result(-EINVAL);
        span.tv_sec = timeout->tv_sec + timeout->tv_usec / 1000000;
        span.tv_nsec = timeout->tv_usec % 1000000 * 1000;
        limit = &span;
    }
    r = ns_api_started() ? ns_pselect(nfds, readfds, writefds, exceptfds, limit, NULL) : NS_NOT_OURS;
    if (r == NS_NOT_OURS)
        return pselect(nfds, readfds, writefds, exceptfds, limit, NULL);
    return (int)ns_api_result(r);
}

/*
 * Connecting puts another socket under the number, which must not be done to one
 * that is in use. Returns 0 or a negative errno.
 */
static int unconnected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    int listening = 0;
    socklen_t listening_len = sizeof(listening);
    int family = family_of(fd);

    if (family < 0)
        return family;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &listening_len) == 0 && listening)
        return -EINVAL;
    if (ns_ours(fd) || getpeername(fd, (struct sockaddr *)&peer, &len) == 0)
        return -EISCONN;
    return 0;
}

int nconnect(int nsd, const char *host, const char *service)
{
    uint16_t port = 0;
    int r = unconnected(nsd);

    if (r == 0)
        r = ns_api_port(service, &port);
    if (r == 0 && (!port || !host || !*host))
        r = -EINVAL;
    if (r < 0)
        return (int)ns_api_result(r);
    r = ns_api_start() ? ns_connect_name(nsd, host, port) : NS_NOT_OURS;
    if (r == NS_NOT_OURS)
        r = ns_api_connect_plain(nsd, host, port);
    return (int)ns_api_result(r);
}

ssize_t nsend(int nsd, const void *msg, size_t len, int flags)
{
    ssize_t n = ns_ours(nsd) ? ns_send(nsd, msg, len, flags) : NS_NOT_OURS;

    if (n == NS_NOT_OURS)
        return send(nsd, msg, len, flags);
    return ns_api_result(n);
}

ssize_t nrecv(int nsd, void *buf, size_t len, int flags)
{
    ssize_t n = ns_ours(nsd) ? ns_recv(nsd, buf, len, flags) : NS_NOT_OURS;

    if (n == NS_NOT_OURS)
        n = recv(nsd, buf, len, flags);
    else
        n = ns_api_result(n);
    if (ns_log_wanted(&ns_engine.log, NS_LOG_DEBUG))
        ns_debug("nrecv: got %zd bytes", n);
    return n;
}

int nclose(int nsd)
{
    if (ns_ours(nsd))
        ns_fd_closing(nsd);
    return close(nsd);
}

int nshutdown(int nsd, int how)
{
    int r = ns_ours(nsd) ? ns_shutdown(nsd, how) : NS_NOT_OURS;

    if (r == NS_NOT_OURS)
        return shutdown(nsd, how);
    return (int)ns_api_result(r);
}
