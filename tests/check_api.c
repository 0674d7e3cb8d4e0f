/*
 * The library through its header, both ends in one process over loopback:
 * arguments and errors, the nine functions' semantics (thesis 4.2.1), status, log.
 * What happens when links die is tests/faults.py's.
 */
#include "namesocket.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BULK_BYTES (8 << 20)

#define fails_with(call, error)           \
    do {                                  \
        errno = 0;                        \
        ck_assert_int_eq((call), -1);     \
        ck_assert_int_eq(errno, (error)); \
    } while (0)

/* ---- both ends ---- */

static const char *port_of(int fd, char text[8])
{
    struct sockaddr_in6 addr;
    socklen_t len = sizeof(addr);

    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    snprintf(text, 8, "%u", ntohs(addr.sin6_port)); /* where sin_port is */
    return text;
}

static int listener(int flags, char port[8])
{
    int nsd = nsocket(flags);

    ck_assert_int_ge(nsd, 0);
    ck_assert_int_eq(nlisten(nsd, "0", 8), 0);
    port_of(nsd, port);
    return nsd;
}

struct pair {
    int listener, client, server;
};

static struct pair connected(int flags)
{
    struct pair p;
    char port[8];

    /* The first write waits for the answer to HELLO for 50 ms only: a busy machine may need more. */
    setenv("NAMESOCKET_HOLD", "5s", 1);
    p.listener = listener(flags, port);
    p.client = nsocket(flags);
    ck_assert_int_ge(p.client, 0);
    ck_assert_int_eq(nconnect(p.client, "localhost", port), 0);
    do {
        fd_set set;

        FD_ZERO(&set);
        FD_SET(p.listener, &set);
        ck_assert_int_eq(nselect(p.listener + 1, &set, NULL, NULL, NULL), 1);
        p.server = naccept(p.listener);
    } while (p.server < 0 && errno == EAGAIN);
    ck_assert_int_ge(p.server, 0);
    return p;
}

static void close_pair(const struct pair *p)
{
    ck_assert_int_eq(nclose(p->client), 0);
    ck_assert_int_eq(nclose(p->server), 0);
    ck_assert_int_eq(nclose(p->listener), 0);
}

static struct namesocket_status status_of(int nsd)
{
    struct namesocket_status s = { .size = sizeof(s) };

    ck_assert_int_eq(nstatus(nsd, &s), 0);
    return s;
}

/* The test's own time limit ends a wait for what never comes. */
static void wait_for_state(int nsd, int state)
{
    while (status_of(nsd).state != state)
        poll(NULL, 0, 1);
}

static void say(int from, int to, const char *text)
{
    char buf[64];
    size_t len = strlen(text), got = 0;

    ck_assert_int_eq(nsend(from, text, len, 0), (ssize_t)len);
    while (got < len) {
        ssize_t n = nrecv(to, buf + got, sizeof(buf) - got, 0);

        ck_assert_int_gt(n, 0);
        got += (size_t)n;
    }
    ck_assert_mem_eq(buf, text, len);
}

/* ---- nsocket ---- */

START_TEST(test_socket_flags)
{
    int nsd;

    fails_with(nsocket(1 << 30), EINVAL);
    fails_with(nsocket(SOCK_DGRAM), EINVAL);
    nsd = nsocket(0);
    ck_assert_int_ge(nsd, 0);
    ck_assert_int_eq(fcntl(nsd, F_GETFD), 0);
    ck_assert_int_eq(fcntl(nsd, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_eq(nclose(nsd), 0);
    nsd = nsocket(SOCK_CLOEXEC | SOCK_NONBLOCK);
    ck_assert_int_eq(fcntl(nsd, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fcntl(nsd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    ck_assert_int_eq(nclose(nsd), 0);
    fails_with(nclose(nsd), EBADF);
}
END_TEST

/* ---- nlisten ---- */

START_TEST(test_listen_errors)
{
    int nsd = nsocket(0), pipes[2], udp = socket(AF_INET, SOCK_DGRAM, 0);
    const char *bad[] = {
        NULL, "", "65536", "-1", "1x", " 1", "99999999999999999999", "no-such-service-here"
    };
    size_t i;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        fails_with(nlisten(nsd, bad[i], 1), EINVAL);
    ck_assert_int_eq(pipe(pipes), 0);
    fails_with(nlisten(-1, "0", 1), EBADF);
    fails_with(nlisten(pipes[0], "0", 1), ENOTSOCK);
    fails_with(nlisten(udp, "0", 1), EPROTOTYPE);
    ck_assert_int_eq(nlisten(nsd, "0", 1), 0);
    fails_with(nlisten(nsd, "0", 1), EINVAL);
}
END_TEST

START_TEST(test_listen_in_use)
{
    char port[8];
    int first = listener(0, port), second = nsocket(0);

    fails_with(nlisten(second, port, 1), EADDRINUSE);
    ck_assert_int_eq(nclose(first), 0);
    ck_assert_int_eq(nlisten(second, port, 1), 0);
}
END_TEST

/* By any address of this host: a client may come back by another one than it came by. */
START_TEST(test_listen_everywhere)
{
    static const char *const hosts[] = { "127.0.0.1", "::1" };
    char port[8];
    int nsd = listener(0, port), on = 0;
    socklen_t len = sizeof(on);
    size_t i;

    ck_assert_int_eq(getsockopt(nsd, SOL_SOCKET, SO_REUSEADDR, &on, &len), 0);
    ck_assert_int_eq(on, 1);
    for (i = 0; i < 2; i++) {
        int client = nsocket(0), server;

        ck_assert_int_eq(nconnect(client, hosts[i], port), 0);
        server = naccept(nsd);
        ck_assert_int_ge(server, 0);
        say(client, server, "helo\n");
        ck_assert_int_eq(nclose(client), 0);
        ck_assert_int_eq(nclose(server), 0);
    }
}
END_TEST

/* ---- nconnect ---- */

START_TEST(test_connect_errors)
{
    char port[8], closed[8];
    int server = listener(0, port), nsd = nsocket(0), udp = socket(AF_INET, SOCK_DGRAM, 0);
    int bound = socket(AF_INET6, SOCK_STREAM, 0); /* has a port that nobody listens on */
    struct sockaddr_in6 any = { .sin6_family = AF_INET6 };

    ck_assert_int_eq(bind(bound, (struct sockaddr *)&any, sizeof(any)), 0);
    port_of(bound, closed);
    fails_with(nconnect(-1, "localhost", port), EBADF);
    fails_with(nconnect(udp, "localhost", port), EPROTOTYPE);
    fails_with(nconnect(server, "localhost", port), EINVAL);
    fails_with(nconnect(nsd, NULL, port), EINVAL);
    fails_with(nconnect(nsd, "", port), EINVAL);
    fails_with(nconnect(nsd, "localhost", NULL), EINVAL);
    fails_with(nconnect(nsd, "localhost", "0"), EINVAL);
    fails_with(nconnect(nsd, "localhost", "no-such-service-here"), EINVAL);
    /* By IPv4, here and below: Linux lets a socket that has failed to reach ::ffff:a.b.c.d
     * reach no IPv6 address any more, and where localhost is ::1 too, plain TCP tries both. */
    fails_with(nconnect(nsd, "127.0.0.1", closed), ECONNREFUSED);
    /* RFC 6761, 6.4: never exists; EAGAIN where no name server can be asked. */
    ck_assert_int_eq(nconnect(nsd, "name.invalid", port), -1);
    ck_assert(errno == ENOENT || errno == EAGAIN);
    /* After all that it may still be connected. */
    ck_assert_int_eq(nconnect(nsd, "127.0.0.1", port), 0);
    fails_with(nconnect(nsd, "127.0.0.1", port), EISCONN);
}
END_TEST

START_TEST(test_connect_keeps_flags)
{
    struct pair p = connected(SOCK_CLOEXEC | SOCK_NONBLOCK);
    char c;

    ck_assert_int_eq(fcntl(p.client, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fcntl(p.client, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    ck_assert_int_eq(fcntl(p.server, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fcntl(p.server, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    fails_with(nrecv(p.client, &c, 1, 0), EAGAIN);
    fails_with(nrecv(p.server, &c, 1, 0), EAGAIN);
    close_pair(&p);
}
END_TEST

/* ---- naccept, nselect ---- */

START_TEST(test_accept_errors)
{
    char port[8];
    int nsd = listener(SOCK_NONBLOCK, port);

    fails_with(naccept(nsd), EAGAIN);
    fails_with(naccept(-1), EBADF);
    nsd = nsocket(0);
    fails_with(naccept(nsd), EINVAL);
}
END_TEST

START_TEST(test_select_readiness)
{
    struct pair p = connected(0);
    int nfds = (p.client > p.server ? p.client : p.server) + 1;
    struct timeval now = { 0, 0 };
    fd_set r, w;
    char c;

    FD_ZERO(&r);
    FD_SET(p.server, &r);
    ck_assert_int_eq(nselect(nfds, &r, NULL, NULL, &now), 0);
    ck_assert(!FD_ISSET(p.server, &r));

    FD_ZERO(&w);
    FD_SET(p.client, &w);
    ck_assert_int_eq(nselect(nfds, NULL, &w, NULL, NULL), 1);
    ck_assert(FD_ISSET(p.client, &w));

    ck_assert_int_eq(nsend(p.client, "x", 1, 0), 1);
    FD_ZERO(&r);
    FD_SET(p.client, &r);
    FD_SET(p.server, &r);
    ck_assert_int_eq(nselect(nfds, &r, NULL, NULL, NULL), 1);
    ck_assert(FD_ISSET(p.server, &r) && !FD_ISSET(p.client, &r));
    ck_assert_int_eq(nrecv(p.server, &c, 1, 0), 1);

    /* A peer that has closed: readable, and then 0 bytes (4.2.1). */
    ck_assert_int_eq(nclose(p.client), 0);
    FD_ZERO(&r);
    FD_SET(p.server, &r);
    ck_assert_int_eq(nselect(nfds, &r, NULL, NULL, NULL), 1);
    ck_assert_int_eq(nrecv(p.server, &c, 1, 0), 0);
    ck_assert_int_eq(nclose(p.server), 0);
}
END_TEST

START_TEST(test_select_timeout)
{
    struct timeval t = { 0, 1000 }, negative = { -1, 0 }, many = { 0, 1500000 };
    struct pair p = connected(0);
    fd_set r;

    FD_ZERO(&r);
    FD_SET(p.server, &r);
    ck_assert_int_eq(nselect(p.server + 1, &r, NULL, NULL, &t), 0);
    ck_assert_int_eq(t.tv_usec, 1000);
    FD_SET(p.server, &r);
    fails_with(nselect(p.server + 1, &r, NULL, NULL, &negative), EINVAL);
    ck_assert(FD_ISSET(p.server, &r));
    /* More than a second of microseconds is a time like another (select(2)). */
    ck_assert_int_eq(nsend(p.client, "x", 1, 0), 1);
    ck_assert_int_eq(nselect(p.server + 1, &r, NULL, NULL, &many), 1);
    nclose(p.server);
    FD_SET(p.server, &r);
    fails_with(nselect(p.server + 1, &r, NULL, NULL, &t), EBADF);
}
END_TEST

/* ---- data ---- */

START_TEST(test_conversation)
{
    struct pair p = connected(0);
    char buf[8];

    say(p.client, p.server, "helo\n");
    say(p.server, p.client, "helo\n");
    say(p.client, p.server, "come again\n");
    ck_assert_int_eq(nsend(p.client, "peek", 4, 0), 4);
    ck_assert_int_eq(nrecv(p.server, buf, 4, MSG_PEEK | MSG_WAITALL), 4);
    ck_assert_int_eq(nrecv(p.server, buf, 4, MSG_WAITALL), 4);
    ck_assert_mem_eq(buf, "peek", 4);
    fails_with(nrecv(p.server, buf, 4, MSG_DONTWAIT), EAGAIN);
    close_pair(&p);
}
END_TEST

START_TEST(test_shutdown)
{
    struct pair p = connected(0);
    char c;

    fails_with(nshutdown(p.client, 7), EINVAL);
    fails_with(nshutdown(-1, SHUT_WR), EBADF);
    ck_assert_int_eq(nsend(p.client, "x", 1, 0), 1);
    ck_assert_int_eq(nshutdown(p.client, SHUT_WR), 0);
    fails_with(nsend(p.client, "y", 1, MSG_NOSIGNAL), EPIPE);
    ck_assert_int_eq(nrecv(p.server, &c, 1, 0), 1);
    ck_assert_int_eq(nrecv(p.server, &c, 1, 0), 0);
    say(p.server, p.client, "the other way\n");
    close_pair(&p);
}
END_TEST

static unsigned char byte_at(size_t offset)
{
    return (unsigned char)((offset * 2654435761u) >> 13);
}

static void *send_bulk(void *arg)
{
    unsigned char buf[4096];
    size_t sent = 0, i;
    int nsd = *(int *)arg;

    while (sent < BULK_BYTES) {
        ssize_t n;

        for (i = 0; i < sizeof(buf); i++)
            buf[i] = byte_at(sent + i);
        n = nsend(nsd, buf, BULK_BYTES - sent < sizeof(buf) ? BULK_BYTES - sent : sizeof(buf), 0);
        if (n < 0)
            return "nsend failed";
        sent += (size_t)n;
    }
    return nshutdown(nsd, SHUT_WR) < 0 ? "nshutdown failed" : NULL;
}

static void *receive_bulk(void *arg)
{
    unsigned char buf[7777];
    size_t got = 0;
    int nsd = *(int *)arg;

    for (;;) {
        ssize_t n = nrecv(nsd, buf, sizeof(buf), 0), i;

        if (n < 0)
            return "nrecv failed";
        if (n == 0)
            return got == BULK_BYTES ? NULL : "not all bytes came";
        for (i = 0; i < n; i++)
            if (buf[i] != byte_at(got + (size_t)i))
                return "a wrong byte";
        got += (size_t)n;
    }
}

/* One thread sends and another receives, on each end at once. */
START_TEST(test_threads)
{
    struct pair p = connected(0);
    pthread_t threads[4];
    void *result;
    int i;

    pthread_create(&threads[0], NULL, send_bulk, &p.client);
    pthread_create(&threads[1], NULL, receive_bulk, &p.client);
    pthread_create(&threads[2], NULL, send_bulk, &p.server);
    pthread_create(&threads[3], NULL, receive_bulk, &p.server);
    for (i = 0; i < 4; i++) {
        pthread_join(threads[i], &result);
        ck_assert_msg(!result, "%s", (char *)result);
    }
    close_pair(&p);
}
END_TEST

/* ---- status ---- */

START_TEST(test_status_sizes)
{
    struct {
        struct namesocket_status status;
        char newer[16];
    } s;
    int nsd = nsocket(0);

    memset(&s, 0xff, sizeof(s));
    s.status.size = 0;
    fails_with(nstatus(nsd, &s.status), EINVAL);
    s.status.size = offsetof(struct namesocket_status, name);
    fails_with(nstatus(nsd, &s.status), EINVAL);
    fails_with(nstatus(nsd, NULL), EINVAL);
    s.status.size = sizeof(s);
    fails_with(nstatus(-1, &s.status), EBADF);
    ck_assert_int_eq(nstatus(nsd, &s.status), 0);
    ck_assert_uint_eq(s.status.size, sizeof(s));
    ck_assert_mem_eq(s.newer, (char[16]){ 0 }, 16);
    ck_assert_int_eq(s.status.state, NAMESOCKET_PLAIN);
    ck_assert_int_eq(s.status.peer.ss_family, AF_UNSPEC);
    ck_assert_str_eq(s.status.name, "");
}
END_TEST

START_TEST(test_status_of_session)
{
    struct pair p = connected(0);
    struct namesocket_status s;

    say(p.client, p.server, "helo\n");
    wait_for_state(p.client, NAMESOCKET_CONNECTED);
    wait_for_state(p.server, NAMESOCKET_CONNECTED);
    say(p.server, p.client, "and back\n");

    s = status_of(p.client);
    ck_assert_int_eq(s.protocol_version, 2);
    ck_assert_uint_eq(s.resumes, 0);
    ck_assert_uint_eq(s.bytes_sent, 5);
    ck_assert_uint_eq(s.bytes_received, 9);
    ck_assert_uint_eq(s.bytes_replayed, 0);
    ck_assert_str_eq(s.name, "localhost");
    ck_assert_int_ne(s.local.ss_family, AF_UNSPEC);
    ck_assert_int_ne(s.peer.ss_family, AF_UNSPEC);

    s = status_of(p.server);
    ck_assert_int_eq(s.protocol_version, 2);
    ck_assert_uint_eq(s.bytes_sent, 9);
    ck_assert_uint_eq(s.bytes_received, 5);
    close_pair(&p);
}
END_TEST

/* A server in plain sockets: it may see a second client that says nothing to it, and all is plain TCP. */
START_TEST(test_plain_server)
{
    struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
    int plain = socket(AF_INET6, SOCK_STREAM, 0), nsd = nsocket(0), server;
    struct pollfd wait = { .fd = plain, .events = POLLIN };
    char port[8], buf[8];

    ck_assert_int_eq(bind(plain, (struct sockaddr *)&any, sizeof(any)), 0);
    ck_assert_int_eq(listen(plain, 8), 0);
    ck_assert_int_eq(nconnect(nsd, "localhost", port_of(plain, port)), 0);
    server = accept(plain, NULL, NULL);
    ck_assert_int_ge(server, 0);
    ck_assert_int_eq(nsend(nsd, "helo\n", 5, 0), 5);
    while (status_of(nsd).state != NAMESOCKET_PLAIN)
        if (poll(&wait, 1, 1) > 0)
            close(accept(plain, NULL, NULL));
    ck_assert_int_eq(recv(server, buf, 5, MSG_WAITALL), 5);
    ck_assert_mem_eq(buf, "helo\n", 5);
    ck_assert_int_eq(send(server, "back\n", 5, 0), 5);
    ck_assert_int_eq(nrecv(nsd, buf, 5, MSG_WAITALL), 5);
    ck_assert_int_eq(status_of(nsd).protocol_version, 0);
    ck_assert_int_eq(nclose(nsd), 0);
    ck_assert_int_eq(recv(server, buf, 5, 0), 0);
}
END_TEST

START_TEST(test_plain_client)
{
    struct sockaddr_in6 addr;
    socklen_t len = sizeof(addr);
    char port[8], buf[8];
    int nsd = listener(0, port), plain = socket(AF_INET6, SOCK_STREAM, 0), server;

    ck_assert_int_eq(getsockname(nsd, (struct sockaddr *)&addr, &len), 0);
    addr.sin6_addr = in6addr_loopback;
    ck_assert_int_eq(connect(plain, (struct sockaddr *)&addr, sizeof(addr)), 0);
    ck_assert_int_eq(send(plain, "NSbutno", 7, 0), 7); /* begins as a packet would */
    server = naccept(nsd);
    ck_assert_int_ge(server, 0);
    ck_assert_int_eq(nrecv(server, buf, 7, MSG_WAITALL), 7);
    ck_assert_mem_eq(buf, "NSbutno", 7);
    ck_assert_int_eq(status_of(server).state, NAMESOCKET_PLAIN);
    ck_assert_int_eq(nsend(server, "x", 1, 0), 1);
    ck_assert_int_eq(recv(plain, buf, 8, 0), 1);
    ck_assert_int_eq(nclose(server), 0);
    ck_assert_int_eq(recv(plain, buf, 8, 0), 0);
}
END_TEST

START_TEST(test_names)
{
    ck_assert_str_eq(namesocket_version(), NAMESOCKET_VERSION);
    ck_assert_str_eq(namesocket_state_name(NAMESOCKET_PLAIN), "plain");
    ck_assert_str_eq(namesocket_state_name(NAMESOCKET_ASKING), "asking");
    ck_assert_str_eq(namesocket_state_name(NAMESOCKET_CONNECTED), "connected");
    ck_assert_str_eq(namesocket_state_name(NAMESOCKET_SUSPENDED), "suspended");
    ck_assert_str_eq(namesocket_state_name(NAMESOCKET_FAILED), "failed");
    ck_assert_str_eq(namesocket_state_name(-1), "unknown");
    ck_assert_str_eq(namesocket_state_name(1000), "unknown");
}
END_TEST

/* ---- log ---- */

struct lines {
    pthread_mutex_t lock;
    unsigned count;
    int worst_level;
    bool bound, newline, dated;
};

static void count_line(void *ctx, int level, const char *line)
{
    struct lines *l = ctx;
    char own_pid[32];

    snprintf(own_pid, sizeof(own_pid), ": %d - ", (int)getpid());
    pthread_mutex_lock(&l->lock);
    l->count++;
    if (level > l->worst_level)
        l->worst_level = level;
    if (strchr(line, '\n'))
        l->newline = true;
    if (strstr(line, own_pid) && !strstr(line, " 1970 - "))
        l->dated = true;
    if (strncmp(line, "Debug: ", 7) == 0 && strstr(line, " - Binding socket to port "))
        l->bound = true;
    pthread_mutex_unlock(&l->lock);
}

START_TEST(test_log)
{
    struct lines all = { .lock = PTHREAD_MUTEX_INITIALIZER, .worst_level = -1 };
    struct lines none = all, info = all;
    char port[8];

    fails_with(namesocket_set_log(3, NULL, NULL), EINVAL);
    fails_with(namesocket_set_log(-2, NULL, NULL), EINVAL);
    ck_assert_int_eq(namesocket_set_log(NAMESOCKET_LOG_DEBUG, count_line, &all), 0);
    nclose(listener(0, port));
    ck_assert(all.bound);
    ck_assert(all.dated);
    ck_assert(!all.newline);
    ck_assert_int_eq(all.worst_level, NAMESOCKET_LOG_DEBUG);

    ck_assert_int_eq(namesocket_set_log(NAMESOCKET_LOG_INFO, count_line, &info), 0);
    nclose(listener(0, port));
    ck_assert(!info.bound);
    ck_assert_int_le(info.worst_level, NAMESOCKET_LOG_INFO);

    ck_assert_int_eq(namesocket_set_log(NAMESOCKET_LOG_NONE, count_line, &none), 0);
    nclose(listener(0, port));
    ck_assert_uint_eq(none.count, 0);
}
END_TEST

/* A child has its own engine, and the parent's goes on. */
START_TEST(test_fork)
{
    struct pair p = connected(0);
    int status;
    pid_t pid;

    say(p.client, p.server, "before\n");
    fflush(NULL);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        char port[8];
        int nsd = nsocket(0), other;

        if (nsd < 0 || nlisten(nsd, "0", 1) < 0)
            _exit(1);
        other = nsocket(0);
        _exit(other < 0 || nconnect(other, "localhost", port_of(nsd, port)) < 0 || naccept(nsd) < 0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    say(p.server, p.client, "after\n");
    close_pair(&p);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("api");
    TCase *calls = tcase_create("calls"), *data = tcase_create("data"), *about = tcase_create("about");
    TCase *threads = tcase_create("threads");

    tcase_add_test(calls, test_socket_flags);
    tcase_add_test(calls, test_listen_errors);
    tcase_add_test(calls, test_listen_in_use);
    tcase_add_test(calls, test_listen_everywhere);
    tcase_add_test(calls, test_connect_errors);
    tcase_add_test(calls, test_connect_keeps_flags);
    tcase_add_test(calls, test_accept_errors);
    tcase_add_test(calls, test_select_readiness);
    tcase_add_test(calls, test_select_timeout);
    tcase_add_test(data, test_conversation);
    tcase_add_test(data, test_shutdown);
    tcase_add_test(threads, test_threads);
    tcase_add_test(data, test_plain_server);
    tcase_add_test(data, test_plain_client);
    tcase_add_test(data, test_fork);
    tcase_add_test(about, test_status_sizes);
    tcase_add_test(about, test_status_of_session);
    tcase_add_test(about, test_names);
    tcase_add_test(about, test_log);
    suite_add_tcase(s, calls);
    suite_add_tcase(s, data);
    suite_add_tcase(s, about);
    suite_add_tcase(s, threads);
    tcase_set_timeout(threads, 60);
    tcase_set_timeout(calls, 30);
    tcase_set_timeout(data, 60);
    tcase_set_timeout(about, 30);
    return s;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    int failed;

    /* Ports that the kernel chooses are ephemeral: not asked unless known. */
    setenv("NAMESOCKET_KNOWN", "*", 1);
    signal(SIGPIPE, SIG_IGN);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
