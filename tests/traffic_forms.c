#include "traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <unistd.h>

#define TAG_LISTENER UINT32_MAX
#define TAG_CONTROL (UINT32_MAX - 1)
#define TURNS_PER_EDGE 16

static bool threaded(void)
{
    return opt.form == FORM_BLOCKING || opt.form == FORM_THREADS;
}

// -- making connections ----------------------------------------------------------------------------------------

static bool wait_writable(int fd)
{
    if (opt.form == FORM_SELECT) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(fd, &set);
        return select(fd + 1, NULL, &set, NULL, NULL) == 1;
    }
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    return poll(&p, 1, -1) == 1;
}

static int try_connect(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | (threaded() ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0)
        return -1;
    int ret = connect(fd, a->ai_addr, a->ai_addrlen);
    if (ret != 0 && errno == EINPROGRESS) {
        while (!wait_writable(fd))
            ;
        int error = 0;
        socklen_t n = sizeof error;
        ret = getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
        if (ret == 0 && error) {
            errno = error;
            ret = -1;
        }
    }
    if (ret != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int connect_to(const char *host, const char *port)
{
    struct addrinfo want = { .ai_socktype = SOCK_STREAM }, *list;
    int ret = getaddrinfo(host, port, &want, &list);
    if (ret != 0)
        fail(EXIT_CONNECTION, "%s: %s", host, gai_strerror(ret));
    int fd = -1;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
        fd = try_connect(a);
    if (fd < 0)
        fail(EXIT_CONNECTION, "connect to %s port %s: %s", host, port, strerror(errno));
    freeaddrinfo(list);
    return fd;
}

void house_connect(struct house *h)
{
    for (unsigned i = 0; i < h->n; i++) {
        int fd = connect_to(opt.host, opt.port);
        conn_init(&h->conns[i], fd, false, i);
        h->started++;
    }
    say("connected conns=%u", h->started);
}

static struct conn *free_slot(struct house *h)
{
    for (unsigned i = 0; i < h->n; i++)
        if (!h->conns[i].used)
            return &h->conns[i];
    fail(EXIT_USAGE, "more than %u connections at once", h->n);
}

bool house_accepting(const struct house *h)
{
    return h->listener >= 0 && (opt.connections == 0 || h->started < opt.connections);
}

struct conn *house_accept(struct house *h)
{
    int fd;
    do
        fd = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC | (threaded() ? 0 : SOCK_NONBLOCK));
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0 && errno == EAGAIN)
        return NULL;
    if (fd < 0)
        fail(EXIT_CONNECTION, "accept: %s", strerror(errno));
    struct conn *c = free_slot(h);
    conn_init(c, fd, true, 0);
    h->started++;
    say("accepted conns=%u", h->started);
    return c;
}

static bool done(const struct house *h)
{
    return !house_accepting(h) && h->finished == h->started;
}

// -- blocking ----------------------------------------------------------------------------------------------------

static bool readable_now(int fd, int timeout_ms)
{
    struct pollfd p[3] = { { .fd = fd, .events = POLLIN },
                           { .fd = control_fds[0], .events = POLLIN },
                           { .fd = control_fds[1], .events = POLLIN } };
    return poll(p, 3, timeout_ms) > 0 && p[0].revents;
}

// Would a blocking program read now? It keeps in step with its peer, so that never both sides only write.
static bool should_read(struct conn *c, size_t sent, int ask_again_ms)
{
    if (c->in_ended)
        return false;
    if (c->out_ended)
        return true;
    if (c->mode == MODE_IDLE && !c->server && !told_go && c->in_bytes == 0)
        return readable_now(c->fd, 100);
    if (c->mode == (c->server ? MODE_DOWN : MODE_UP))
        return readable_now(c->fd, 0);
    if (c->opening_bytes < sizeof c->opening || c->banner_bytes < sizeof c->banner)
        return sent == 0;
    return c->in_bytes < c->out_bytes || (sent == 0 && ask_again_ms < 0);
}

static void *blocking_loop(void *arg)
{
    struct conn *c = arg;
    while (!conn_advance(c)) {
        int ask_again_ms = -1;
        size_t sent = conn_send(c);
        size_t more = conn_sendable(c, &ask_again_ms);
        if (should_read(c, sent + more, ask_again_ms))
            conn_receive(c);
        else if (sent + more == 0 && ask_again_ms > 0)
            control_poll(ask_again_ms);
        control_poll(0);
    }
    conn_finish(c);
    return NULL;
}

// -- a reader and a writer thread per connection -----------------------------------------------------------------

void read_all(struct conn *c)
{
    while (conn_receive(c) > 0)
        ;
}

static void *reader_thread(void *arg)
{
    read_all(arg);
    return NULL;
}

static void wait_changed(struct conn *c, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += timeout_ms * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&c->lock);
    pthread_cond_timedwait(&c->changed, &c->lock, &until);
    pthread_mutex_unlock(&c->lock);
}

void write_all(struct conn *c)
{
    while (!conn_advance(c)) {
        int ask_again_ms = -1;
        if (conn_sendable(c, &ask_again_ms) > 0)
            conn_send(c);
        else
            wait_changed(c, ask_again_ms > 0 && ask_again_ms < 10 ? ask_again_ms : 10);
    }
}

static void *writer_thread(void *arg)
{
    struct conn *c = arg;
    pthread_t reader;
    if (pthread_create(&reader, NULL, reader_thread, c) != 0)
        fail(EXIT_CONNECTION, "no thread");
    write_all(c);
    pthread_join(reader, NULL);
    conn_finish(c);
    return NULL;
}

static void run_threads(struct house *h)
{
    pthread_t threads[SLOTS_MAX];
    void *(*loop)(void *) = opt.form == FORM_THREADS ? writer_thread : blocking_loop;
    if (opt.form == FORM_BLOCKING && opt.connections == 1) {        // the plainest program of all
        loop(h->listener >= 0 ? house_accept(h) : h->conns);
        return;
    }
    unsigned n = 0;
    for (; h->listener < 0 ? n < h->n : house_accepting(h) && n < SLOTS_MAX; n++) {
        struct conn *c = h->listener >= 0 ? house_accept(h) : &h->conns[n];
        if (pthread_create(&threads[n], NULL, loop, c) != 0)
            fail(EXIT_CONNECTION, "no thread");
    }
    for (bool any = true; any;) {
        control_poll(20);
        any = false;
        for (unsigned i = 0; i < n; i++)
            any |= h->conns[i].used;
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

// -- select, poll, epoll -------------------------------------------------------------------------------------------

static void settle(struct house *h, struct conn *c)
{
    if (conn_advance(c)) {
        if (h->epoll_fd >= 0)
            h->interest[c - h->conns] = 0;
        conn_finish(c);
        h->finished++;
    }
}

static void serve_ready(struct house *h, struct conn *c, bool readable, bool writable)
{
    if (readable && !c->in_ended)
        conn_receive(c);
    if (writable)
        conn_send(c);
    settle(h, c);
}

// Level-triggered interest: 1 read, 2 write.
static uint32_t interest_of(struct conn *c, int *timeout_ms)
{
    int ask_again_ms;
    bool write = conn_sendable(c, &ask_again_ms) > 0;
    if (!write && ask_again_ms >= 0 && (*timeout_ms < 0 || ask_again_ms < *timeout_ms))
        *timeout_ms = ask_again_ms;
    return (c->in_ended ? 0 : 1) | (write ? 2 : 0);
}

static void settle_all(struct house *h)
{
    for (unsigned i = 0; i < h->n; i++)
        if (h->conns[i].used)
            settle(h, &h->conns[i]);
}

static void set_fd(int fd, fd_set *set, int *top)
{
    if (fd < 0)
        return;
    FD_SET(fd, set);
    if (fd > *top)
        *top = fd;
}

static void turn_select(struct house *h)
{
    fd_set reads, writes;
    FD_ZERO(&reads);
    FD_ZERO(&writes);
    int top = -1, timeout_ms = -1;
    if (house_accepting(h))
        set_fd(h->listener, &reads, &top);
    set_fd(control_fds[0], &reads, &top);
    set_fd(control_fds[1], &reads, &top);
    for (unsigned i = 0; i < h->n; i++) {
        if (!h->conns[i].used)
            continue;
        uint32_t wanted = interest_of(&h->conns[i], &timeout_ms);
        if (wanted & 1)
            set_fd(h->conns[i].fd, &reads, &top);
        if (wanted & 2)
            set_fd(h->conns[i].fd, &writes, &top);
    }
    struct timeval tv = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
    int n = select(top + 1, &reads, &writes, NULL, timeout_ms < 0 ? NULL : &tv);
    if (n < 0 && errno != EINTR)
        fail(EXIT_CONNECTION, "select: %s", strerror(errno));
    if (n <= 0)
        return;
    for (unsigned i = 0; i < h->n; i++)
        if (h->conns[i].used)
            serve_ready(h, &h->conns[i], FD_ISSET(h->conns[i].fd, &reads), FD_ISSET(h->conns[i].fd, &writes));
    if (house_accepting(h) && FD_ISSET(h->listener, &reads))
        house_accept(h);
}

static void turn_poll(struct house *h)
{
    static struct pollfd fds[SLOTS_MAX + 3];
    int timeout_ms = -1;
    for (unsigned i = 0; i < h->n; i++) {
        uint32_t wanted = h->conns[i].used ? interest_of(&h->conns[i], &timeout_ms) : 0;
        fds[i] = (struct pollfd){ .fd = wanted ? h->conns[i].fd : -1,
                                  .events = (short)((wanted & 1 ? POLLIN : 0) | (wanted & 2 ? POLLOUT : 0)) };
    }
    fds[h->n] = (struct pollfd){ .fd = control_fds[0], .events = POLLIN };
    fds[h->n + 1] = (struct pollfd){ .fd = control_fds[1], .events = POLLIN };
    fds[h->n + 2] = (struct pollfd){ .fd = house_accepting(h) ? h->listener : -1, .events = POLLIN };
    int n = poll(fds, h->n + 3, timeout_ms);
    if (n < 0 && errno != EINTR)
        fail(EXIT_CONNECTION, "poll: %s", strerror(errno));
    if (n <= 0)
        return;
    for (unsigned i = 0; i < h->n; i++)
        if (h->conns[i].used && fds[i].revents)
            serve_ready(h, &h->conns[i], fds[i].revents & (POLLIN | POLLHUP | POLLERR),
                        fds[i].revents & (POLLOUT | POLLERR));
    if (fds[h->n + 2].revents)
        house_accept(h);
}

static void epoll_update(struct house *h, int fd, uint32_t tag, uint32_t *have, uint32_t events)
{
    if (*have == events)
        return;
    struct epoll_event e = { .events = events, .data.u32 = tag };
    int op = *have == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    if (epoll_ctl(h->epoll_fd, op, fd, &e) != 0)
        fail(EXIT_CONNECTION, "epoll_ctl: %s", strerror(errno));
    *have = events;
}

static void epoll_start(struct house *h)
{
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        struct epoll_event e = { .events = EPOLLIN, .data.u32 = TAG_CONTROL };
        // A stdin that cannot be waited for (a file, /dev/null) has nothing to say.
        if (control_fds[i] >= 0 && epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, control_fds[i], &e) != 0)
            control_fds[i] = -1;
    }
    struct epoll_event e = { .events = EPOLLIN, .data.u32 = TAG_LISTENER };
    if (h->listener >= 0 && epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->listener, &e) != 0)
        fail(EXIT_CONNECTION, "epoll_ctl: %s", strerror(errno));
}

// Tell epoll what is wanted. Edge-triggered: everything, once; then go by the edges alone.
static int epoll_interest(struct house *h, bool edge)
{
    int timeout_ms = -1;
    for (unsigned i = 0; i < h->n; i++) {
        struct conn *c = &h->conns[i];
        if (!c->used)
            continue;
        uint32_t wanted = interest_of(c, &timeout_ms);
        uint32_t events = (wanted & 1 ? EPOLLIN : 0) | (wanted & 2 ? EPOLLOUT : 0);
        if (edge) {
            events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
            if ((wanted & 1 && c->can_read) || (wanted & 2 && c->can_write))
                timeout_ms = 0;
        }
        epoll_update(h, c->fd, i, &h->interest[i], events);
    }
    return timeout_ms;
}

static void turn_epoll(struct house *h, bool edge)
{
    static bool control_ended;
    if (control_fds[0] < 0 && !control_ended) {
        control_ended = true;
        epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    }
    struct epoll_event events[64];
    int n = epoll_wait(h->epoll_fd, events, 64, epoll_interest(h, edge));
    if (n < 0 && errno != EINTR)
        fail(EXIT_CONNECTION, "epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        uint32_t tag = events[i].data.u32, what = events[i].events;
        if (tag == TAG_LISTENER) {
            house_accept(h);
            if (!house_accepting(h))
                epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, h->listener, NULL);
        } else if (tag != TAG_CONTROL && h->conns[tag].used) {
            struct conn *c = &h->conns[tag];
            bool read = what & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR), write = what & (EPOLLOUT | EPOLLERR);
            if (edge) {
                c->can_read |= read;
                c->can_write |= write;
            } else {
                serve_ready(h, c, read, write);
            }
        }
    }
    for (unsigned i = 0; edge && i < h->n; i++) {
        struct conn *c = &h->conns[i];
        for (int turn = 0; c->used && turn < TURNS_PER_EDGE && (c->can_read || c->can_write); turn++)
            serve_ready(h, c, c->can_read, c->can_write);
    }
}

void house_run(struct house *h)
{
    if (threaded()) {
        run_threads(h);
        return;
    }
    if (h->listener >= 0)
        fcntl(h->listener, F_SETFL, fcntl(h->listener, F_GETFL) | O_NONBLOCK);
    if (opt.form == FORM_EPOLL || opt.form == FORM_EPOLL_ET)
        epoll_start(h);
    while (!done(h)) {
        if (opt.form == FORM_SELECT)
            turn_select(h);
        else if (opt.form == FORM_POLL)
            turn_poll(h);
        else
            turn_epoll(h, opt.form == FORM_EPOLL_ET);
        control_poll(0);
        settle_all(h);
    }
}
