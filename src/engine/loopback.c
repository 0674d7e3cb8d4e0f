#include "engine/loopback.h"

#include "engine/internal.h"
#include "engine/sys.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>

#define CONNECT_MS 1000 /* at once, unless a stranger fills the queue */

struct end {
    struct sockaddr_in6 address; /* has room for IPv4's */
    socklen_t length;
};

static int listen_here(int family, struct end *out)
{
    *out = (struct end){ .length = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in) };
    out->address.sin6_family = (sa_family_t)family;
    if (family == AF_INET6)
        out->address.sin6_addr = in6addr_loopback;
    else
        ((struct sockaddr_in *)&out->address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = ns_internal(ns_sys_socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    int err = fd < 0 ? fd : ns_sys_bind(fd, (struct sockaddr *)&out->address, out->length);
    if (err == 0)
        err = ns_sys_listen(fd, 1);
    if (err == 0)
        err = ns_sys_getsockname(fd, (struct sockaddr *)&out->address, &out->length);
    if (err < 0 && fd >= 0)
        ns_internal_close(fd);
    return err < 0 ? err : fd;
}

static int connect_to(int family, const struct end *to)
{
    int fd = ns_internal(ns_sys_socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    int err = fd < 0 ? fd : ns_sys_connect(fd, (const struct sockaddr *)&to->address, to->length);
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    socklen_t len = sizeof err;
    if (err == -EINPROGRESS && ns_sys_ppoll(&p, 1, &(struct timespec){ CONNECT_MS / 1000, 0 }, NULL) == 1) {
        err = 0;
        ns_sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
        err = -err;
    }
    if (err < 0 && fd >= 0)
        ns_internal_close(fd);
    return err < 0 ? err : fd;
}

/* Whether what was accepted is the connection of `fd`. */
static bool met(int accepted, int fd)
{
    struct end its = { .length = sizeof its.address }, own = its;
    return ns_sys_getpeername(accepted, (struct sockaddr *)&its.address, &its.length) == 0 &&
           ns_sys_getsockname(fd, (struct sockaddr *)&own.address, &own.length) == 0 &&
           its.length == own.length && memcmp(&its.address, &own.address, own.length) == 0;
}

int ns_loopback_pair(int family, int ends[2])
{
    struct end at;
    int listening = listen_here(family, &at);
    if (listening < 0)
        return listening;
    int err = ends[0] = connect_to(family, &at);
    if (err >= 0)
        err = ends[1] = ns_internal(ns_sys_accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (err >= 0 && !met(ends[1], ends[0])) {
        ns_internal_close(ends[1]);
        err = -EADDRNOTAVAIL;
    }
    if (err < 0 && ends[0] >= 0)
        ns_internal_close(ends[0]);
    ns_internal_close(listening);
    return err < 0 ? err : 0;
}
