/*
 * An application that exchanges small records at a steady pace, and tells how
 * long its longest silence was.
 *
 *   records serve ADDRESS PORT [mptcp]
 *   records drive ADDRESS PORT INTERVAL_MS WINDOW_MS LIMIT_MS plain|protected [mptcp]
 *
 * The server returns every byte. The client sends a 64-byte record each
 * INTERVAL_MS and reads the echoes on another thread. Once WARM_UP records are
 * back and the session is in the state named, it prints "ready PORT
 * RTT_US", PORT being its own. It then waits for a line on standard input (the
 * caller is about to break something), goes on for WINDOW_MS more, stops
 * sending, waits up to LIMIT_MS for the last echo, and prints
 *
 *   done RECORDS GAP_US LATE_US GAP_END_NS STATE
 *
 * RECORDS all came back, in order. GAP_US: longest time between two records'
 * arrivals since the line. LATE_US: longest time from a record being due to its
 * echo. GAP_END_NS: when (CLOCK_MONOTONIC) the longest gap ended. STATE: the
 * session's at the end. Exit status 1, with a line on standard error, when a
 * byte is missing or wrong, or the session is not in the state named.
 *
 * Both ends block in recv, on one thread per direction (client) or connection
 * (server): plain sockets, nothing that knows about the shim, except that the
 * client asks it for the session's state.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#define RECORD_BYTES 64
#define WARM_UP      15
#define RECORDS_MAX  100000

struct client {
    int fd;
    int64_t interval_ns;
    bool protected; /* what the session has to be */
    pthread_mutex_t lock;
    pthread_cond_t arrival;
    uint64_t sent, arrived; /* records; under lock, as all below */
    int64_t *due_ns;        /* by record */
    int64_t marked_ns;      /* the line was read; 0: not yet */
    int64_t last_ns;        /* latest arrival */
    int64_t gap_ns, gap_end_ns, late_ns;
    int64_t rtt_ns[WARM_UP];
    const char *failure;
};

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static struct timespec at_ns(int64_t ns)
{
    return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

static void die(const char *what)
{
    fprintf(stderr, "records: %s: %s\n", what, strerror(errno));
    exit(1);
}

static socklen_t address_of(const char *address, const char *port, struct sockaddr_in6 *to)
{
    *to = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port)) };
    if (inet_pton(AF_INET6, address, &to->sin6_addr) != 1) {
        errno = EINVAL;
        die(address);
    }
    return sizeof(*to);
}

/* ---- server ---- */

static void *serve_one(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buf[4096];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
        for (ssize_t sent = 0, m; sent < n; sent += m) {
            m = send(fd, buf + sent, (size_t)(n - sent), MSG_NOSIGNAL);
            if (m < 0)
                goto out;
        }
out:
    close(fd);
    return NULL;
}

static void serve(const char *address, const char *port, int protocol)
{
    struct sockaddr_in6 to;
    socklen_t len = address_of(address, port, &to);
    int one = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, protocol);
    pthread_attr_t detached;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&to, len) < 0 || listen(fd, 64) < 0)
        die("listen");
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int conn = accept(fd, NULL, NULL);
        pthread_t thread;

        if (conn < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (conn < 0)
            die("accept");
        setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (pthread_create(&thread, &detached, serve_one, (void *)(intptr_t)conn) != 0)
            close(conn);
    }
}

/* ---- client ---- */

/* A record's bytes follow from its number, so that a lost, doubled or displaced
 * byte shows. */
static void fill(unsigned char *record, uint64_t number)
{
    for (int i = 0; i < RECORD_BYTES; i++) {
        number = number * 6364136223846793005ull + 1442695040888963407ull;
        record[i] = (unsigned char)(number >> 56);
    }
}

static void fail_with(struct client *c, const char *why)
{
    pthread_mutex_lock(&c->lock);
    if (!c->failure)
        c->failure = why;
    pthread_cond_broadcast(&c->arrival);
    pthread_mutex_unlock(&c->lock);
}

static void note_arrival(struct client *c, int64_t now)
{
    uint64_t number = c->arrived++;
    int64_t waited = now - c->due_ns[number];

    if (number < WARM_UP)
        c->rtt_ns[number] = waited;
    /* The gap that the line falls into counts whole. */
    if (c->marked_ns && now >= c->marked_ns) {
        if (now - c->last_ns > c->gap_ns) {
            c->gap_ns = now - c->last_ns;
            c->gap_end_ns = now;
        }
        if (waited > c->late_ns)
            c->late_ns = waited;
    }
    c->last_ns = now;
    pthread_cond_broadcast(&c->arrival);
}

static void *receive(void *arg)
{
    struct client *c = arg;
    unsigned char got[RECORD_BYTES], want[RECORD_BYTES];
    size_t have = 0;

    for (uint64_t number = 0;;) {
        ssize_t n = recv(c->fd, got + have, sizeof(got) - have, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            fail_with(c, n ? strerror(errno) : "end of stream");
            return NULL;
        }
        have += (size_t)n;
        if (have < sizeof(got))
            continue;
        have = 0;
        fill(want, number++);
        if (memcmp(got, want, sizeof(got)) != 0) {
            fail_with(c, "a wrong byte came back");
            return NULL;
        }
        pthread_mutex_lock(&c->lock);
        note_arrival(c, now_ns());
        pthread_mutex_unlock(&c->lock);
    }
}

static int session_state(int fd)
{
    int (*ask)(int fd);

    *(void **)&ask = dlsym(RTLD_DEFAULT, "namesocket_shim_state");
    return ask ? ask(fd) : 0;
}

static void *wait_for_line(void *arg)
{
    struct client *c = arg;
    char line[16];

    if (!fgets(line, sizeof(line), stdin))
        fail_with(c, "standard input ended");
    pthread_mutex_lock(&c->lock);
    c->marked_ns = now_ns();
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static int rising(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void announce(struct client *c)
{
    struct sockaddr_in6 own;
    socklen_t len = sizeof(own);

    if (getsockname(c->fd, (struct sockaddr *)&own, &len) < 0)
        die("getsockname");
    qsort(c->rtt_ns, WARM_UP, sizeof(c->rtt_ns[0]), rising);
    printf("ready %d %lld\n", ntohs(own.sin6_port), (long long)c->rtt_ns[WARM_UP / 2] / 1000);
    fflush(stdout);
}

/* Sends the next record when it is due. Returns false when the client is to end. */
static bool send_next(struct client *c, int64_t due)
{
    const struct timespec ts = at_ns(due);
    unsigned char record[RECORD_BYTES];
    bool go_on;

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
        ;
    pthread_mutex_lock(&c->lock);
    fill(record, c->sent);
    c->due_ns[c->sent++] = due;
    go_on = !c->failure && c->sent < RECORDS_MAX;
    pthread_mutex_unlock(&c->lock);
    for (size_t at = 0; at < sizeof(record);) {
        ssize_t n = send(c->fd, record + at, sizeof(record) - at, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fail_with(c, strerror(errno));
            return false;
        }
        at += (size_t)n;
    }
    return go_on;
}

/* Paces the records until `window_ns` after the line. */
static void pace(struct client *c, int64_t window_ns, int64_t limit_ns)
{
    int64_t due = now_ns() + c->interval_ns, start = due;
    bool announced = false;

    for (;; due += c->interval_ns) {
        int64_t marked;
        uint64_t arrived;

        if (!send_next(c, due))
            return;
        pthread_mutex_lock(&c->lock);
        marked = c->marked_ns;
        arrived = c->arrived;
        pthread_mutex_unlock(&c->lock);
        if (!announced && arrived >= WARM_UP && (session_state(c->fd) == 2) == c->protected) {
            announced = true;
            announce(c);
        }
        if (!announced && due - start > limit_ns) {
            fail_with(c, c->protected ? "session never became protected" : "session is not plain");
            return;
        }
        if (announced && marked && due - marked >= window_ns)
            return;
    }
}

static void wait_for_echoes(struct client *c, int64_t limit_ns)
{
    const struct timespec until = at_ns(now_ns() + limit_ns);

    pthread_mutex_lock(&c->lock);
    while (!c->failure && c->arrived < c->sent)
        if (pthread_cond_timedwait(&c->arrival, &c->lock, &until) == ETIMEDOUT)
            c->failure = "records are missing";
    pthread_mutex_unlock(&c->lock);
}

static int drive(struct client *c, int64_t window_ns, int64_t limit_ns)
{
    pthread_condattr_t monotonic;
    pthread_t receiver, reader;
    int one = 1, state;

    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->arrival, &monotonic);
    c->due_ns = calloc(RECORDS_MAX, sizeof(*c->due_ns));
    /* As such programs do; without it MPTCP and TCP would sit on a record while
     * the one before is unacknowledged. */
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (!c->due_ns || pthread_create(&receiver, NULL, receive, c) != 0 ||
        pthread_create(&reader, NULL, wait_for_line, c) != 0)
        die("start");
    pace(c, window_ns, limit_ns);
    wait_for_echoes(c, limit_ns);
    state = session_state(c->fd);
    pthread_mutex_lock(&c->lock);
    if (!c->failure && (state == 2) != c->protected)
        c->failure = "session has changed its state";
    if (c->failure) {
        fprintf(stderr, "records: %s (%llu sent, %llu back, state %d)\n", c->failure,
                (unsigned long long)c->sent, (unsigned long long)c->arrived, state);
        return 1;
    }
    printf("done %llu %lld %lld %lld %d\n", (unsigned long long)c->arrived, (long long)c->gap_ns / 1000,
           (long long)c->late_ns / 1000, (long long)c->gap_end_ns, state);
    return 0;
}

int main(int argc, char **argv)
{
    bool mptcp = argc > 1 && strcmp(argv[argc - 1], "mptcp") == 0;
    int protocol = mptcp ? IPPROTO_MPTCP : 0;
    struct sockaddr_in6 to;
    static struct client c;

    signal(SIGPIPE, SIG_IGN);
    argc -= mptcp;
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        serve(argv[2], argv[3], protocol);
    if (argc != 8 || strcmp(argv[1], "drive") != 0) {
        fputs("Usage: records serve ADDRESS PORT [mptcp]\n"
              "       records drive ADDRESS PORT INTERVAL_MS WINDOW_MS LIMIT_MS plain|protected [mptcp]\n",
              stderr);
        return 2;
    }
    c.interval_ns = atoll(argv[4]) * 1000000;
    c.protected = strcmp(argv[7], "protected") == 0;
    c.fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, protocol);
    if (c.fd < 0 || connect(c.fd, (struct sockaddr *)&to, address_of(argv[2], argv[3], &to)) < 0)
        die("connect");
    return drive(&c, atoll(argv[5]) * 1000000, atoll(argv[6]) * 1000000);
}
