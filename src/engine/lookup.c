#include "engine/lookup.h"

#include "engine/resolve.h"
#include "engine/thread.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define FDS_MAX 16

struct socket_source {
    struct ns_source source;
    struct ns_lookup *lookup;
    short events;
};

struct ns_lookup {
    struct ns_resolve *resolve;
    struct ns_timer timer;
    struct socket_source sockets[FDS_MAX];
    void (*done)(void *ctx, int error, const struct ns_address *list, size_t n);
    void *ctx;
    bool over;
};

static void socket_ready(struct ns_source *source, uint32_t events, struct ns_time now);

static void unregister(struct ns_lookup *l)
{
    for (int i = 0; i < FDS_MAX; i++)
        if (l->sockets[i].source.fd >= 0) {
            ns_loop_remove(&l->sockets[i].source);
            l->sockets[i].source.fd = -1;
        }
}

/* The resolver opens and closes sockets as it goes: registered afresh each time. */
static void follow(struct ns_lookup *l, struct ns_time now)
{
    struct pollfd p[FDS_MAX];
    size_t n = ns_resolve_fds(l->resolve, p, FDS_MAX);
    unregister(l);
    for (size_t i = 0; i < n && i < FDS_MAX; i++) {
        struct socket_source *s = &l->sockets[i];
        s->lookup = l;
        s->source = (struct ns_source){ .fd = p[i].fd, .ready = socket_ready };
        ns_loop_add(&s->source, (p[i].events & POLLIN ? EPOLLIN : 0) | (p[i].events & POLLOUT ? EPOLLOUT : 0));
    }
    ns_timer_set(&l->timer, ns_resolve_deadline(l->resolve, now));
}

static void lookup_free(struct ns_lookup *l)
{
    unregister(l);
    ns_timer_clear(&l->timer);
    ns_resolve_cancel(l->resolve);
    free(l);
}

static void resolved(void *ctx, int error, const struct ns_address *list, size_t n)
{
    struct ns_lookup *l = ctx;
    l->over = true;
    l->done(l->ctx, error, list, n);
}

static void process(struct ns_lookup *l, struct ns_time now, const struct pollfd *ready, size_t n)
{
    ns_resolve_process(l->resolve, now, ready, n);
    if (l->over)
        lookup_free(l);
    else
        follow(l, now);
}

static void socket_ready(struct ns_source *source, uint32_t events, struct ns_time now)
{
    struct socket_source *s = (struct socket_source *)source;
    struct pollfd p = { .fd = source->fd,
                        .revents = (short)((events & EPOLLIN ? POLLIN : 0) | (events & EPOLLOUT ? POLLOUT : 0) |
                                           (events & (EPOLLERR | EPOLLHUP) ? POLLERR : 0)) };
    process(s->lookup, now, &p, 1);
}

static void due(struct ns_timer *timer, struct ns_time now)
{
    process((struct ns_lookup *)((char *)timer - offsetof(struct ns_lookup, timer)), now, NULL, 0);
}

struct ns_lookup *ns_lookup_start(const char *name,
                                  void (*done)(void *ctx, int error, const struct ns_address *list, size_t n),
                                  void *ctx, struct ns_time now)
{
    struct ns_lookup *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->done = done;
    l->ctx = ctx;
    l->timer.fire = due;
    for (int i = 0; i < FDS_MAX; i++)
        l->sockets[i].source.fd = -1;
    l->resolve = ns_resolve_start(name, resolved, l);
    if (!l->resolve) {
        free(l);
        return NULL;
    }
    /* Literals and /etc/hosts are answered by the first look, from the loop. */
    ns_timer_set(&l->timer, now);
    return l;
}

void ns_lookup_cancel(struct ns_lookup *l)
{
    lookup_free(l);
}
