/*
 * tcpbench's client process: takes one sample per order. Every sample vouches
 * for itself: both ends must be in the state that the variant claims, before
 * and after, or the sample is a failure and so is the run.
 */
#include "roles.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Connections between two checks. Until the check's byte comes back the server
 * has dealt with every connection before it, so its work is in the figure and
 * its queue (transport.c) never overflows. */
#define NS_BATCH 100

/* How long a first contact may take until sessions are established. */
#define NS_ESTABLISH_NS 10000000000ll

struct client {
    const struct ns_transport *t;
    enum ns_variant variant;
    const char *address;
    int port;
    char reason[256];
};

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* Records why a sample failed; returns -1 for the caller to return. */
__attribute__((format(printf, 2, 3))) static int fail(struct client *c, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(c->reason, sizeof(c->reason), format, args);
    va_end(args);
    return -1;
}

static int fail_errno(struct client *c, const char *what)
{
    return fail(c, "%s: %s", what, strerror(errno));
}

static int check_state(struct client *c, int fd, unsigned char theirs)
{
    enum ns_protection want = ns_expected_state(c->variant), ours = c->t->state(fd);

    if (ours == want && theirs == want)
        return 0;
    return fail(c, "%s: state is %d here and %d at the server, not %d (0 plain, 1 asking, 2 protected)",
                want == NS_STATE_PLAIN ? "session is not plain" : "session is not protected", ours, theirs,
                want);
}

/* Sends a request on `fd` and reads the server's state; does not judge it. */
static int ask(struct client *c, int fd, const void *request, size_t len, unsigned char *theirs)
{
    if (ns_send_all(c->t, fd, request, len) < 0)
        return fail_errno(c, "request");
    if (ns_recv_all(c->t, fd, theirs, 1) < 0)
        return fail_errno(c, "answer");
    return 0;
}

/* Opens a connection, makes the request, checks both ends. Returns the
 * descriptor, or -1 with the reason recorded. */
static int open_checked(struct client *c, const void *request, size_t len)
{
    unsigned char theirs;
    int fd = c->t->connect(c->address, c->port);

    if (fd < 0)
        return fail_errno(c, "connect");
    if (ask(c, fd, request, len, &theirs) == 0 && check_state(c, fd, theirs) == 0)
        return fd;
    c->t->close(fd);
    return -1;
}

/* Connects until a connection is what the variant claims: first contact with a
 * destination may run plain while the answer to HELLO is under way, and a
 * server that takes one connection at a time answers it only between two. */
static int establish(struct client *c)
{
    const struct timespec pause = { .tv_nsec = 2000000 };
    const char request = NS_ASK_CHECK;
    int64_t give_up_ns = now_ns() + NS_ESTABLISH_NS;

    for (;;) {
        int fd = open_checked(c, &request, 1);

        if (fd >= 0)
            return c->t->close(fd);
        if (now_ns() > give_up_ns)
            return -1;
        nanosleep(&pause, NULL);
    }
}

/* One throughput run on an open connection: from the first send until the
 * server's count of the bytes is back. Sets *rate to bytes per second. */
static int pump(struct client *c, int fd, size_t size, double seconds, long ops, double *rate)
{
    static char buf[NS_BUFFER_MAX];
    int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9);
    uint64_t sent = 0, arrived;

    for (long i = 0; ops ? i < ops : (i % 16 || now_ns() < end); i++) {
        ssize_t n = c->t->send(fd, buf, size, MSG_NOSIGNAL);

        if (n < 0)
            return fail_errno(c, "send");
        sent += (uint64_t)n;
    }
    if (check_state(c, fd, (unsigned char)ns_expected_state(c->variant)) < 0)
        return -1;
    if (c->t->shutdown(fd, SHUT_WR) < 0 || ns_recv_all(c->t, fd, &arrived, sizeof(arrived)) < 0)
        return fail_errno(c, "end of stream");
    *rate = (double)sent * 1e9 / (double)(now_ns() - start);
    if (be64toh(arrived) != sent)
        return fail(c, "%llu bytes sent, %llu arrived", (unsigned long long)sent,
                    (unsigned long long)be64toh(arrived));
    return 0;
}

static int throughput(struct client *c, size_t size, double seconds, long ops, double *rate)
{
    unsigned char request[5] = { NS_ASK_SINK };
    uint32_t be_size = htobe32((uint32_t)size);
    int fd, err;

    memcpy(request + 1, &be_size, sizeof(be_size));
    fd = establish(c) == 0 ? open_checked(c, request, sizeof(request)) : -1;
    if (fd < 0)
        return -1;
    err = pump(c, fd, size, seconds, ops, rate);
    c->t->close(fd);
    return err;
}

static int ping_pong(struct client *c, int fd, double seconds, long ops, double *rate)
{
    int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9);
    char byte = 0;
    long i;

    for (i = 0; ops ? i < ops : (i % 16 || now_ns() < end); i++) {
        char sent = (char)i;

        if (c->t->send(fd, &sent, 1, MSG_NOSIGNAL) != 1)
            return fail_errno(c, "send");
        if (c->t->recv(fd, &byte, 1, 0) != 1)
            return fail_errno(c, "recv");
        if (byte != sent)
            return fail(c, "a wrong byte came back");
    }
    *rate = (double)i * 1e9 / (double)(now_ns() - start);
    return check_state(c, fd, (unsigned char)ns_expected_state(c->variant));
}

static int latency(struct client *c, double seconds, long ops, double *rate)
{
    const char request = NS_ASK_ECHO;
    int fd = establish(c) == 0 ? open_checked(c, &request, 1) : -1, err;

    if (fd < 0)
        return -1;
    err = ping_pong(c, fd, seconds, ops, rate);
    c->t->close(fd);
    return err;
}

/*
 * Connect and close, without a byte of the application's, as the thesis does.
 * SO_LINGER with a zero time would spare the TIME_WAITs, but it discards what
 * the kernel has not sent, and that is NEW (thesis 7.2): the count is bounded
 * by the caller instead, the same for every variant. The last connection of
 * each batch sends one byte and waits for the answer. Its answer shows that the
 * sessions are protected and that the server has caught up.
 */
static int connection(struct client *c, long count, double *rate)
{
    const char request = NS_ASK_CHECK;
    int64_t start;
    int fd;

    if (establish(c) < 0)
        return -1;
    start = now_ns();
    for (long i = 1; i <= count; i++) {
        if (i % NS_BATCH && i < count) {
            fd = c->t->connect(c->address, c->port);
            if (fd < 0)
                return fail_errno(c, "connect");
        } else {
            fd = open_checked(c, &request, 1);
            if (fd < 0)
                return -1;
        }
        if (c->t->close(fd) < 0)
            return fail_errno(c, "close");
    }
    *rate = (double)count * 1e9 / (double)(now_ns() - start);
    return 0;
}

static int server_weight(struct client *c, uint64_t *bytes)
{
    const char request = NS_ASK_WEIGH;
    int fd = open_checked(c, &request, 1), err;

    if (fd < 0)
        return -1;
    err = ns_recv_all(c->t, fd, bytes, sizeof(*bytes));
    c->t->close(fd);
    *bytes = be64toh(*bytes);
    return err < 0 ? fail_errno(c, "server's weight") : 0;
}

static int drop_held(struct client *c)
{
    const char request = NS_ASK_DROP;
    int fd = open_checked(c, &request, 1);

    return fd < 0 ? -1 : c->t->close(fd);
}

/* Opens `count` connections that carry one byte each way and then nothing. */
static int hold(struct client *c, int *fds, long count)
{
    const char request = NS_ASK_HOLD;

    for (long i = 0; i < count; i++) {
        fds[i] = open_checked(c, &request, 1);
        if (fds[i] < 0)
            return -1;
    }
    return 0;
}

/*
 * What an idle connection costs in resident memory, beyond the kernel's socket:
 * the growth of each process over `count` of them. The first 64 are opened
 * before the first weighing, so that what a process pays once (the helper
 * thread's stack, tables) is not counted.
 */
static int memory(struct client *c, long count, double *here, double *there)
{
    enum { FIRST = 64 };
    static int fds[NS_HOLD_MAX];
    uint64_t here0, here1, there0, there1;

    for (int i = 0; i < NS_HOLD_MAX; i++)
        fds[i] = -1;
    if (count + FIRST > NS_HOLD_MAX)
        return fail(c, "at most %d connections", NS_HOLD_MAX - FIRST);
    if (establish(c) < 0 || hold(c, fds, FIRST) < 0 || server_weight(c, &there0) < 0)
        return -1;
    here0 = ns_resident_bytes();
    if (hold(c, fds + FIRST, count) < 0 || server_weight(c, &there1) < 0)
        return -1;
    here1 = ns_resident_bytes();
    for (int i = 0; i < FIRST + count; i++)
        if (check_state(c, fds[i], (unsigned char)ns_expected_state(c->variant)) < 0)
            return -1;
    for (int i = 0; i < FIRST + count; i++)
        c->t->close(fds[i]);
    *here = ((double)here1 - (double)here0) / (double)count;
    *there = ((double)there1 - (double)there0) / (double)count;
    return drop_held(c);
}

static int obey(struct client *c, const char *order, double *a, double *b)
{
    double seconds;
    size_t size;
    long n;

    if (sscanf(order, "throughput %zu %lf %ld", &size, &seconds, &n) == 3 && size <= NS_BUFFER_MAX)
        return throughput(c, size, seconds, n, a);
    if (sscanf(order, "latency %lf %ld", &seconds, &n) == 2)
        return latency(c, seconds, n, a);
    if (sscanf(order, "connection %ld", &n) == 1)
        return connection(c, n, a);
    if (sscanf(order, "memory %ld", &n) == 1)
        return memory(c, n, a, b);
    return fail(c, "unknown order");
}

int ns_drive(enum ns_variant variant, const char *address, int port)
{
    struct client c = { ns_transport(variant), variant, address, port, "" };
    char order[128];

    while (fgets(order, sizeof(order), stdin)) {
        double a = 0, b = 0;

        if (obey(&c, order, &a, &b) == 0)
            printf("ok %.17g %.17g\n", a, b);
        else
            printf("fail %s\n", c.reason);
        fflush(stdout);
    }
    return 0;
}
