/* tcpbench's server process: one connection at a time, as in the thesis. */
#include "roles.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

struct server {
    const struct ns_transport *t;
    int held[NS_HOLD_MAX];
    int holding;
};

static uint64_t read_rss(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    unsigned long kib = 0;
    char line[160];

    if (!f)
        return 0;
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "Rss: %lu", &kib) == 1)
            break;
    fclose(f);
    return (uint64_t)kib * 1024;
}

uint64_t ns_resident_bytes(void)
{
    const struct timespec pause = { .tv_nsec = 200000000 };
    uint64_t last = read_rss();

    /* Idle is what has stood still for longer than a session takes to notice that it is. */
    for (int i = 0, still = 0; i < 75 && still < 20; i++) {
        uint64_t now;

        nanosleep(&pause, NULL);
        now = read_rss();
        still = now == last ? still + 1 : 0;
        last = now;
    }
    return last;
}

static void sink(struct server *s, int fd)
{
    static char buf[NS_BUFFER_MAX];
    uint32_t size;
    uint64_t total = 0;
    ssize_t n;

    if (ns_recv_all(s->t, fd, &size, sizeof(size)) < 0 || be32toh(size) > sizeof(buf))
        return;
    while ((n = s->t->recv(fd, buf, be32toh(size), 0)) > 0)
        total += (uint64_t)n;
    total = htobe64(total);
    if (n == 0)
        ns_send_all(s->t, fd, &total, sizeof(total));
}

static void echo(struct server *s, int fd)
{
    char byte;

    while (s->t->recv(fd, &byte, 1, 0) == 1)
        if (s->t->send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
            return;
}

static void weigh(struct server *s, int fd)
{
    uint64_t bytes = htobe64(ns_resident_bytes());

    ns_send_all(s->t, fd, &bytes, sizeof(bytes));
}

/* Returns whether the connection is to stay open. */
static bool serve_one(struct server *s, int fd)
{
    unsigned char state;
    char request;

    if (s->t->recv(fd, &request, 1, 0) != 1)
        return false;
    state = (unsigned char)s->t->state(fd);
    if (ns_send_all(s->t, fd, &state, 1) < 0)
        return false;
    switch (request) {
    case NS_ASK_SINK:
        sink(s, fd);
        break;
    case NS_ASK_ECHO:
        echo(s, fd);
        break;
    case NS_ASK_WEIGH:
        weigh(s, fd);
        break;
    case NS_ASK_HOLD:
        if (s->holding == NS_HOLD_MAX)
            break;
        s->held[s->holding++] = fd;
        return true;
    case NS_ASK_DROP:
        while (s->holding)
            s->t->close(s->held[--s->holding]);
        break;
    default:
        break;
    }
    return false;
}

static int listen_from(const struct ns_transport *t, const char *address, int *port)
{
    int fd = -1;

    for (int tries = 0; tries < 1000; tries++, ++*port) {
        fd = t->listen(address, *port);
        if (fd >= 0 || errno != EADDRINUSE)
            break;
    }
    return fd;
}

int ns_serve(enum ns_variant variant, const char *address, int port)
{
    static struct server s;
    int listener;

    s.t = ns_transport(variant);
    listener = listen_from(s.t, address, &port);
    if (listener < 0) {
        fprintf(stderr, "tcpbench: %s server cannot listen on %s port %d: %s\n", ns_variant_names[variant],
                address, port, strerror(errno));
        return 1;
    }
    printf("ready %d\n", port);
    fflush(stdout);
    for (;;) {
        int fd = s.t->accept(listener);

        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            break;
        if (!serve_one(&s, fd))
            s.t->close(fd);
    }
    fprintf(stderr, "tcpbench: %s server cannot accept: %s\n", ns_variant_names[variant], strerror(errno));
    return 1;
}
