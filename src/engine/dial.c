#include "engine/dial.h"

#include "engine/connect.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/libc.h"
#include "engine/link.h"
#include "engine/resolve.h"
#include "engine/sys.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#define ADDRESSES_MAX 32
#define LOCALS_MAX    64
#define STAGGER_MS    250 /* RFC 8305, 5: Connection Attempt Delay */

int ns_dial(const struct ns_pair *pair, uint16_t port, bool talks)
{
    struct sockaddr_storage to, from;
    int off = 0, on = 1;
    socklen_t len = ns_address_to_sockaddr(&pair->destination, port, false, &to);
    int fd = ns_internal(ns_sys_socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
    if (fd < 0)
        return fd;
    if (talks)
        ns_sys_setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
    int err = 0;
    if (pair->source.family) {
        socklen_t n = ns_address_to_sockaddr(&pair->source, 0, false, &from);
        ns_sys_setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        err = ns_sys_bind(fd, (struct sockaddr *)&from, n);
    }
    if (err == 0)
        err = ns_sys_connect(fd, (struct sockaddr *)&to, len);
    if (err < 0 && err != -EINPROGRESS) {
        ns_internal_close(fd);
        return err;
    }
    return fd;
}

void ns_dial_withdraw(int fd)
{
    /* Fails, and says nothing, while there is no SYN ACK. */
    ns_sys_send(fd, "N", 1, MSG_OOB | MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- all addresses of a name, for the library's connect ---- */

struct found {
    int error;
    size_t n;
    struct ns_address list[ADDRESSES_MAX];
    bool done;
};

static void found(void *ctx, int error, const struct ns_address *list, size_t n)
{
    struct found *f = ctx;
    f->done = true;
    f->error = error;
    for (size_t i = 0; i < n && f->n < ADDRESSES_MAX; i++)
        f->list[f->n++] = list[i];
}

static int until_ms(struct ns_time deadline)
{
    int64_t ns = deadline.ns - ns_now().ns;
    return ns <= 0 ? 0 : ns > 10000000000 ? 10000 : (int)((ns + 999999) / 1000000);
}

static int lookup(const char *host, struct found *f)
{
    struct pollfd p[NS_RESOLVE_FDS_MAX];
    struct ns_resolve *r = ns_resolve_start(host, found, f);
    if (!r)
        return -ENOMEM;
    while (!f->done) {
        size_t n = ns_resolve_fds(r, p, NS_RESOLVE_FDS_MAX);
        int ms = until_ms(ns_resolve_deadline(r, ns_now()));
        struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };
        int k = ns_sys_ppoll(p, n, &ts, NULL);
        ns_resolve_process(r, ns_now(), k > 0 ? p : NULL, k > 0 ? n : 0);
    }
    ns_resolve_cancel(r);
    return f->error ? f->error : f->n == 0 ? -ENOENT : 0;
}

struct race {
    const struct ns_pair *pairs;
    size_t n, next;
    uint16_t port;
    struct pollfd running[ADDRESSES_MAX];
    size_t pair_of[ADDRESSES_MAX];
    size_t count;
    int error;
};

static void start_one(struct race *r)
{
    while (r->next < r->n && r->count < ADDRESSES_MAX) {
        size_t pair = r->next++;
        int fd = ns_dial(&r->pairs[pair], r->port, false);
        if (fd >= 0) {
            r->running[r->count] = (struct pollfd){ .fd = fd, .events = POLLOUT };
            r->pair_of[r->count++] = pair;
            return;
        }
        r->error = fd;
    }
}

static void drop_runner(struct race *r, size_t i)
{
    ns_internal_close(r->running[i].fd);
    r->count--;
    r->running[i] = r->running[r->count];
    r->pair_of[i] = r->pair_of[r->count];
}

/* Returns the winner's index, or -1. A failure makes room for the next pair at once. */
static int look_at_runners(struct race *r)
{
    for (size_t i = 0; i < r->count; i++) {
        int err = 0;
        socklen_t len = sizeof err;
        if (!r->running[i].revents)
            continue;
        ns_sys_getsockopt(r->running[i].fd, SOL_SOCKET, SO_ERROR, &err, &len);
        if (!err)
            return (int)i;
        r->error = -err;
        drop_runner(r, i--);
        start_one(r);
    }
    return -1;
}

/* Waits for one to win. Returns its index, or the error that ends the race. */
static int race(struct race *r)
{
    start_one(r);
    while (r->count > 0) {
        struct timespec stagger = { 0, STAGGER_MS * 1000000L };
        int k = ns_libc.ppoll(r->running, r->count, r->next < r->n ? &stagger : NULL, NULL);
        if (k < 0)
            return -errno;
        if (k == 0)
            start_one(r);
        int winner = k > 0 ? look_at_runners(r) : -1;
        if (winner >= 0)
            return winner;
    }
    return r->error ? r->error : -EHOSTUNREACH;
}

/* Puts the winner under the application's number, as blocking as that was. */
static int put_under(int fd, int winner)
{
    int flags = ns_sys_fcntl(fd, F_GETFL, 0), keep = ns_sys_fcntl(fd, F_GETFD, 0);
    if (flags < 0)
        return flags;
    ns_sys_fcntl(winner, F_SETFL, flags & O_NONBLOCK);
    int err = ns_sys_dup3(winner, fd, keep & FD_CLOEXEC ? O_CLOEXEC : 0);
    return err < 0 ? err : 0;
}

static int wait_connected(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    int error = 0;
    socklen_t len = sizeof error;
    if (ns_libc.ppoll(&p, 1, NULL, NULL) < 0)
        return -errno;
    int err = ns_sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return err < 0 ? err : -error;
}

/* One address needs no race, and no choice of a source: the application's own
 * socket connects, and blocks whether it is a blocking one or not (thesis 5.1.1). */
static int connect_only(int fd, const struct ns_address *to, const char *host, uint16_t port)
{
    struct sockaddr_storage ss;
    int domain = 0;
    socklen_t len = sizeof domain;
    int err = ns_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
    if (err < 0)
        return err;
    len = ns_address_to_sockaddr(to, port, domain == AF_INET6, &ss);
    int saved = errno;
    err = ns_libc.connect(fd, (struct sockaddr *)&ss, len) < 0 ? -errno : 0;
    if (err == -EINPROGRESS)
        err = wait_connected(fd);
    errno = saved;
    if (err == 0)
        ns_client_begin(fd, to, port, host, 0);
    return err;
}

int ns_connect_name(int fd, const char *host, uint16_t port)
{
    struct found f = { 0 };
    struct ns_local locals[LOCALS_MAX];
    struct ns_pair pairs[ADDRESSES_MAX];
    int saved = errno;
    int err = lookup(host, &f);
    if (err < 0)
        return err;
    if (f.n == 1)
        return connect_only(fd, &f.list[0], host, port);
    ssize_t n = ns_link_addresses(locals, LOCALS_MAX);
    struct race r = { .pairs = pairs, .port = port };
    r.n = ns_path_pairs(locals, n > 0 ? (size_t)n : 0, f.list, f.n, NULL, pairs, ADDRESSES_MAX);
    int winner = race(&r);
    errno = saved;
    if (winner >= 0) {
        const struct ns_pair *pair = &pairs[r.pair_of[winner]];
        err = put_under(fd, r.running[winner].fd);
        if (err == 0)
            ns_client_begin(fd, &pair->destination, port, host, 0);
    } else {
        err = winner;
    }
    while (r.count > 0)
        drop_runner(&r, 0);
    return err;
}
