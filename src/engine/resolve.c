#include "engine/resolve.h"

#include <arpa/nameser.h>
#include <ares.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/uio.h>

#include "engine/hosts.h"
#include "engine/internal.h"
#include "engine/sys.h"

#define HOSTS_PATH "/etc/hosts"

/* Rounds through all servers. The doubling makes four of them longer than NS_RESOLVE_LIMIT_MS. */
#define ROUNDS 4

/* Records of one answer that are looked at. */
#define RECORDS_MAX (NS_RESOLVE_ADDRESSES_MAX / 2)

/* One of the two questions, A and AAAA. */
struct resolve_question {
    struct ns_resolve *resolve;
    int family;
    bool pending;
    int error; /* of its answer: 0 or a negative errno */
};

struct ns_resolve {
    void (*done)(void *ctx, int error, const struct ns_address *list, size_t n);
    void *ctx;

    ares_channel channel; /* NULL when c-ares has nothing to do (any more) */
    struct ares_options config;
    int config_mask;
    const char *lookup; /* the rest of config.lookups: 'f' /etc/hosts, 'b' DNS */
    int candidate;      /* number of the next name to ask for; see candidate_name */
    struct resolve_question question[2];

    struct ns_time limit;
    struct ns_time other_family_limit;
    bool finished;  /* error and list are final */
    bool delivered; /* done was called */
    int error;      /* the answer so far */
    size_t n;
    struct ns_address list[NS_RESOLVE_ADDRESSES_MAX];
    char name[];
};

/* ---- c-ares' sockets, past libc: see sys.h ---- */

static int as_libc(long result)
{
    if (result >= 0)
        return (int)result;
    errno = (int)-result;
    return -1;
}

static ares_socket_t open_socket(int family, int type, int protocol, void *ctx)
{
    return as_libc(ns_internal(ns_sys_socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol)));
}

static int close_socket(ares_socket_t fd, void *ctx)
{
    ns_internal_close(fd);
    return 0;
}

static int connect_socket(ares_socket_t fd, const struct sockaddr *addr, ares_socklen_t len, void *ctx)
{
    return as_libc(ns_sys_connect(fd, addr, len));
}

static ares_ssize_t receive(ares_socket_t fd, void *buf, size_t len, int flags, struct sockaddr *from,
                            ares_socklen_t *from_len, void *ctx)
{
    return as_libc(ns_sys_recvfrom(fd, buf, len, flags, from, from_len));
}

static ares_ssize_t send_vector(ares_socket_t fd, const struct iovec *iov, int n, void *ctx)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };

    /* A server may close its TCP connection at any time; the process must not get SIGPIPE for it. */
    return as_libc(ns_sys_sendmsg(fd, &msg, MSG_NOSIGNAL));
}

static const struct ares_socket_functions socket_functions = {
    .asocket = open_socket,
    .aclose = close_socket,
    .aconnect = connect_socket,
    .arecvfrom = receive,
    .asendv = send_vector,
};

/* ---- results ---- */

static int error_of_status(int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
        return -ENOENT;
    case ARES_EBADNAME:
        return -EINVAL;
    case ARES_ENOMEM:
        return -ENOMEM;
    case ARES_ETIMEOUT:
        return -ETIMEDOUT;
    default:
        return -EAGAIN;
    }
}

static void add_address(void *ctx, const struct ns_address *a)
{
    struct ns_resolve *r = ctx;

    if (r->n == NS_RESOLVE_ADDRESSES_MAX || ns_address_wildcard(a))
        return;
    for (size_t i = 0; i < r->n; i++) {
        if (ns_address_equal(&r->list[i], a))
            return;
    }
    r->list[r->n++] = *a;
}

static void add_record(struct ns_resolve *r, const struct sockaddr *addr, socklen_t len)
{
    struct ns_address a;

    /* Turns ::ffff:a.b.c.d in an AAAA record into what it is. */
    if (ns_address_from_sockaddr(&a, NULL, addr, len) == 0)
        add_address(r, &a);
}

static int read_a(struct ns_resolve *r, const unsigned char *answer, int len)
{
    struct ares_addrttl records[RECORDS_MAX];
    int n = RECORDS_MAX;
    int status = ares_parse_a_reply(answer, len, NULL, records, &n);

    for (int i = 0; status == ARES_SUCCESS && i < n; i++) {
        struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = records[i].ipaddr };

        add_record(r, (struct sockaddr *)&addr, sizeof(addr));
    }
    return error_of_status(status);
}

static int read_aaaa(struct ns_resolve *r, const unsigned char *answer, int len)
{
    struct ares_addr6ttl records[RECORDS_MAX];
    int n = RECORDS_MAX;
    int status = ares_parse_aaaa_reply(answer, len, NULL, records, &n);

    for (int i = 0; status == ARES_SUCCESS && i < n; i++) {
        struct sockaddr_in6 addr = { .sin6_family = AF_INET6 };

        memcpy(&addr.sin6_addr, &records[i].ip6addr, sizeof(addr.sin6_addr));
        add_record(r, (struct sockaddr *)&addr, sizeof(addr));
    }
    return error_of_status(status);
}

/* May come from inside ares_query, ares_process_fd and ares_destroy, so it only takes notes. */
static void on_answer(void *ctx, int status, int timeouts, unsigned char *answer, int len)
{
    struct resolve_question *q = ctx;

    if (q->resolve->finished)
        return;
    q->pending = false;
    q->error = error_of_status(status);
    if (status == ARES_SUCCESS && q->family == AF_INET)
        q->error = read_a(q->resolve, answer, len);
    else if (status == ARES_SUCCESS)
        q->error = read_aaaa(q->resolve, answer, len);
}

static void finish(struct ns_resolve *r, int error)
{
    r->finished = true;
    r->error = r->n ? 0 : error;
    if (r->channel)
        ares_destroy(r->channel);
    r->channel = NULL;
}

/* ---- which names, in which order ---- */

/*
 * Writes the name that is to be asked as number `index` of the search list:
 * names with enough dots are tried as they are first, others last
 * (resolv.conf(5), ndots). Returns false when there is no such name.
 */
static bool candidate_name(const struct ns_resolve *r, int index, char *out, size_t out_bytes)
{
    size_t len = strlen(r->name);
    bool absolute = len && r->name[len - 1] == '.';
    int domains = absolute ? 0 : r->config.ndomains;
    int dots = 0, written;
    int as_it_is;

    for (const char *p = r->name; *p; p++)
        dots += *p == '.';
    as_it_is = absolute || dots >= r->config.ndots ? 0 : domains;
    if (index > domains)
        return false;
    if (index == as_it_is)
        written = snprintf(out, out_bytes, "%s", r->name);
    else
        written = snprintf(out, out_bytes, "%s.%s", r->name,
                           r->config.domains[index < as_it_is ? index : index - 1]);
    /* One that is cut short is still too long to be a name: c-ares rejects it. */
    return written > 0;
}

/* localhost and what is under it is this host, and no server is asked (RFC 6761, 6.3). */
static bool is_localhost(const char *name)
{
    static const char label[] = "localhost";
    size_t len = strlen(name);

    if (len && name[len - 1] == '.')
        len--;
    if (len < sizeof(label) - 1 || strncasecmp(name + len - (sizeof(label) - 1), label, sizeof(label) - 1))
        return false;
    len -= sizeof(label) - 1;
    return len == 0 || name[len - 1] == '.';
}

static void add_loopback(struct ns_resolve *r)
{
    struct ns_address v4 = { .family = AF_INET, .bytes = { 127, 0, 0, 1 } };
    struct ns_address v6 = { .family = AF_INET6, .bytes = { [15] = 1 } };

    add_address(r, &v4);
    add_address(r, &v6);
}

static void ask(struct ns_resolve *r, const char *name)
{
    for (size_t i = 0; i < 2; i++) {
        struct resolve_question *q = &r->question[i];

        q->pending = true;
        q->error = 0;
        ares_query(r->channel, name, ns_c_in, q->family == AF_INET ? ns_t_a : ns_t_aaaa, on_answer, q);
    }
}

/* What both answers say together when neither held an address: "there is none" only if both do. */
static int error_of_answers(const struct ns_resolve *r)
{
    for (size_t i = 0; i < 2; i++) {
        if (r->question[i].error && r->question[i].error != -ENOENT)
            return r->question[i].error;
    }
    return -ENOENT;
}

static bool waiting(const struct ns_resolve *r)
{
    return r->question[0].pending || r->question[1].pending;
}

/* Goes on until answers are awaited or nothing is left to do. */
static void advance(struct ns_resolve *r)
{
    char name[NS_MAXDNAME];

    while (!r->finished && !waiting(r)) {
        if (*r->lookup == 'b' && r->candidate > 0)
            r->error = error_of_answers(r);
        if (r->n || !*r->lookup) {
            finish(r, r->error);
        } else if (*r->lookup == 'f') {
            r->lookup++;
            /* Found, but only as 0.0.0.0: that blocks the name, and no server is to be asked. */
            if (ns_hosts_lookup(HOSTS_PATH, r->name, add_address, r) > 0)
                finish(r, -ENOENT);
        } else if (*r->lookup == 'b' && r->error == -ENOENT &&
                   candidate_name(r, r->candidate, name, sizeof(name))) {
            r->candidate++;
            ask(r, name);
        } else {
            r->lookup++;
        }
    }
}

/* ---- a lookup's life ---- */

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void init_library(void)
{
    ares_library_init(ARES_LIB_INIT_ALL);
}

/* Reads resolv.conf and nsswitch.conf; what they say is in r->config then. */
static int open_channel(struct ns_resolve *r)
{
    struct ares_options options = { .timeout = NS_RESOLVE_TRY_MS, .tries = ROUNDS };
    int status;

    pthread_once(&library_once, init_library);
    status = ares_init_options(&r->channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
    if (status != ARES_SUCCESS) {
        r->channel = NULL;
        return error_of_status(status);
    }
    ares_set_socket_functions(r->channel, &socket_functions, NULL);
    status = ares_save_options(r->channel, &r->config, &r->config_mask);
    if (status != ARES_SUCCESS)
        return error_of_status(status);
    r->lookup = r->config.lookups ? r->config.lookups : "fb";
    r->error = -ENOENT;
    return 0;
}

static void begin(struct ns_resolve *r)
{
    struct ns_address literal;
    int error;

    if (!*r->name) {
        finish(r, -EINVAL);
        return;
    }
    error = ns_hosts_literal(&literal, r->name);
    if (error != -EINVAL) {
        if (error == 0)
            add_address(r, &literal);
        finish(r, -ENOENT);
        return;
    }
    if (is_localhost(r->name)) {
        ns_hosts_lookup(HOSTS_PATH, r->name, add_address, r);
        if (!r->n)
            add_loopback(r);
        finish(r, 0);
        return;
    }
    error = open_channel(r);
    if (error < 0)
        finish(r, error);
    else
        advance(r);
}

struct ns_resolve *
ns_resolve_start(const char *name,
                 void (*done)(void *ctx, int error, const struct ns_address *list, size_t n), void *ctx)
{
    size_t name_bytes = strlen(name) + 1;
    struct ns_resolve *r = calloc(1, sizeof(*r) + name_bytes);
    struct timespec now;

    if (!r)
        return NULL;
    memcpy(r->name, name, name_bytes);
    r->done = done;
    r->ctx = ctx;
    r->question[0] = (struct resolve_question){ .resolve = r, .family = AF_INET6 };
    r->question[1] = (struct resolve_question){ .resolve = r, .family = AF_INET };
    clock_gettime(CLOCK_MONOTONIC, &now);
    r->limit = ns_time_add((struct ns_time){ now.tv_sec * INT64_C(1000000000) + now.tv_nsec },
                           ns_time_ms(NS_RESOLVE_LIMIT_MS));
    r->other_family_limit = NS_NEVER;
    begin(r);
    return r;
}

size_t ns_resolve_fds(const struct ns_resolve *r, struct pollfd *out, size_t max)
{
    ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
    unsigned bits;
    size_t n = 0;

    _Static_assert(NS_RESOLVE_FDS_MAX == ARES_GETSOCK_MAXNUM, "as many as c-ares can name");
    if (!r->channel)
        return 0;
    bits = (unsigned)ares_getsock(r->channel, sockets, ARES_GETSOCK_MAXNUM);
    for (unsigned i = 0; i < ARES_GETSOCK_MAXNUM && n < max; i++) {
        /* ARES_GETSOCK_READABLE and _WRITABLE, but for their shift into the sign bit. */
        short events = (short)((bits & (1u << i) ? POLLIN : 0) |
                               (bits & (1u << (i + ARES_GETSOCK_MAXNUM)) ? POLLOUT : 0));

        if (events)
            out[n++] = (struct pollfd){ .fd = sockets[i], .events = events };
    }
    return n;
}

struct ns_time ns_resolve_deadline(const struct ns_resolve *r, struct ns_time now)
{
    struct ns_time deadline = ns_time_min(r->limit, r->other_family_limit);
    struct timeval left;

    if (r->delivered)
        return NS_NEVER;
    if (r->finished)
        return now;
    if (r->channel && ares_timeout(r->channel, NULL, &left)) {
        struct ns_time span = { left.tv_sec * INT64_C(1000000000) + left.tv_usec * INT64_C(1000) };

        deadline = ns_time_min(deadline, ns_time_add(now, span));
    }
    return deadline;
}

static void process_channel(struct ns_resolve *r, struct ns_time now, const struct pollfd *ready, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        short events = ready[i].revents;

        if (!events || ready[i].fd < 0)
            continue;
        /* An error is found out about by reading. */
        ares_process_fd(r->channel, events & ~POLLOUT ? ready[i].fd : ARES_SOCKET_BAD,
                        events & POLLOUT ? ready[i].fd : ARES_SOCKET_BAD);
    }
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    advance(r);
    if (r->finished)
        return;
    if (r->n && r->other_family_limit.ns == INT64_MAX)
        r->other_family_limit = ns_time_add(now, ns_time_ms(NS_RESOLVE_OTHER_FAMILY_MS));
    if (!ns_time_before(now, ns_time_min(r->limit, r->other_family_limit)))
        finish(r, -ETIMEDOUT);
}

void ns_resolve_process(struct ns_resolve *r, struct ns_time now, const struct pollfd *ready, size_t n)
{
    if (!r->finished)
        process_channel(r, now, ready, n);
    if (!r->finished || r->delivered)
        return;
    r->delivered = true;
    r->done(r->ctx, r->error, r->list, r->n);
}

void ns_resolve_cancel(struct ns_resolve *r)
{
    if (!r)
        return;
    finish(r, 0);
    if (r->config_mask)
        ares_destroy_options(&r->config);
    free(r);
}
