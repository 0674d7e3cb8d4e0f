#include "transport.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/mptcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef NS_WITH_LIBRARY
#include <namesocket.h>
#endif

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef SOL_MPTCP
#define SOL_MPTCP 284
#endif

/* More than the connections of one batch (drive.c), so that no SYN is ever
 * dropped for a full queue: its retransmission would take a whole second. */
#define NS_BACKLOG 1024

const char *const ns_variant_names[NS_VARIANTS] = { "plain", "shim", "library", "mptcp", "unprotected" };

static socklen_t address_of(const char *address, int port, struct sockaddr_storage *to)
{
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)to;
    struct sockaddr_in *four = (struct sockaddr_in *)to;

    memset(to, 0, sizeof(*to));
    if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        return sizeof(*six);
    }
    if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        return sizeof(*four);
    }
    errno = EINVAL;
    return 0;
}

static int fail_closed(int fd)
{
    int err = errno;

    close(fd);
    errno = err;
    return -1;
}

static int listen_with(const char *address, int port, int protocol)
{
    struct sockaddr_storage to;
    socklen_t len = address_of(address, port, &to);
    int one = 1, fd;

    fd = len ? socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, protocol) : -1;
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&to, len) < 0 || listen(fd, NS_BACKLOG) < 0)
        return fail_closed(fd);
    return fd;
}

static int connect_with(const char *address, int port, int protocol)
{
    struct sockaddr_storage to;
    socklen_t len = address_of(address, port, &to);
    int fd;

    fd = len ? socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, protocol) : -1;
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&to, len) < 0)
        return fail_closed(fd);
    return fd;
}

static int plain_listen(const char *address, int port)
{
    return listen_with(address, port, 0);
}

static int plain_accept(int fd)
{
    return accept(fd, NULL, NULL);
}

static int plain_connect(const char *address, int port)
{
    return connect_with(address, port, 0);
}

/* The shim's answer for a descriptor; NULL when there is no shim in this process. */
static int (*shim_state)(int fd);

bool ns_transport_fits(enum ns_variant variant)
{
    bool wanted = variant == NS_SHIM || variant == NS_UNPROTECTED;

    *(void **)&shim_state = dlsym(RTLD_DEFAULT, "namesocket_shim_state");
    if (!shim_state == !wanted)
        return true;
    fprintf(stderr, "tcpbench: %s needs a process %s\n", ns_variant_names[variant],
            wanted ? "under the shim, and this one is not" : "without the shim, and this one is under it");
    return false;
}

static enum ns_protection plain_state(int fd)
{
    return shim_state ? (enum ns_protection)shim_state(fd) : NS_STATE_PLAIN;
}

static int mptcp_listen(const char *address, int port)
{
    return listen_with(address, port, IPPROTO_MPTCP);
}

static int mptcp_connect(const char *address, int port)
{
    return connect_with(address, port, IPPROTO_MPTCP);
}

/* A connection that fell back to plain TCP protects nobody. */
static enum ns_protection mptcp_state(int fd)
{
    struct mptcp_info info = { 0 };
    socklen_t len = sizeof(info);

    if (getsockopt(fd, SOL_MPTCP, MPTCP_INFO, &info, &len) < 0)
        return NS_STATE_PLAIN;
    return info.mptcpi_flags & MPTCP_INFO_FLAG_FALLBACK ? NS_STATE_PLAIN : NS_STATE_PROTECTED;
}

static const struct ns_transport plain = {
    plain_listen, plain_accept, plain_connect, send, recv, shutdown, close, plain_state,
};

static const struct ns_transport mptcp = {
    mptcp_listen, plain_accept, mptcp_connect, send, recv, shutdown, close, mptcp_state,
};

#ifdef NS_WITH_LIBRARY
static int library_listen(const char *address __attribute__((unused)), int port)
{
    char service[8];
    int nsd = nsocket(SOCK_CLOEXEC);

    if (nsd < 0)
        return -1;
    snprintf(service, sizeof(service), "%d", port);
    if (nlisten(nsd, service, NS_BACKLOG) < 0) {
        int err = errno;

        nclose(nsd);
        errno = err;
        return -1;
    }
    return nsd;
}

static int library_connect(const char *address, int port)
{
    char service[8];
    int nsd = nsocket(SOCK_CLOEXEC);

    if (nsd < 0)
        return -1;
    snprintf(service, sizeof(service), "%d", port);
    if (nconnect(nsd, address, service) < 0) {
        int err = errno;

        nclose(nsd);
        errno = err;
        return -1;
    }
    return nsd;
}

static enum ns_protection library_state(int nsd)
{
    struct namesocket_status status = { .size = sizeof(status) };

    return nstatus(nsd, &status) == 0 ? (enum ns_protection)status.state : NS_STATE_PLAIN;
}

static const struct ns_transport library = {
    library_listen, naccept, library_connect, nsend, nrecv, nshutdown, nclose, library_state,
};
#endif

const struct ns_transport *ns_transport(enum ns_variant variant)
{
    switch (variant) {
    case NS_MPTCP:
        return &mptcp;
    case NS_LIBRARY:
#ifdef NS_WITH_LIBRARY
        return &library;
#else
        return NULL;
#endif
    default:
        return &plain;
    }
}

bool ns_mptcp_available(void)
{
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);

    if (fd < 0)
        return false;
    close(fd);
    return true;
}

enum ns_protection ns_expected_state(enum ns_variant variant)
{
    return variant == NS_PLAIN || variant == NS_UNPROTECTED ? NS_STATE_PLAIN : NS_STATE_PROTECTED;
}

int ns_send_all(const struct ns_transport *t, int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len) {
        ssize_t n = t->send(fd, at, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int ns_recv_all(const struct ns_transport *t, int fd, void *data, size_t len)
{
    char *at = data;

    while (len) {
        ssize_t n = t->recv(fd, at, len, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = ECONNRESET;
        if (n <= 0)
            return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}
