#include "daemon/relay.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

/* Held for each direction: what was read and is not yet written. */
#define DIRECTION_BYTES (128 * 1024)

/* From one connection to the other. */
struct direction {
    struct ns_relay *relay;
    uv_tcp_t *from, *to;
    uv_write_t write;
    uv_shutdown_t shutdown;
    bool ended;  /* the end of the stream has been passed on */
    bool urgent; /* the next byte is */
    uv_timer_t again; /* there was no room for it */
    char bytes[DIRECTION_BYTES];
};

/* Freed with its last request: libuv answers each, at the latest when its handle is closed. */
struct ns_relay {
    struct direction directions[2];
    ns_relay_ended_fn *ended;
    void *ended_arg;
    bool closing;
    int open; /* handles: of each direction the connection and the timer */
};

/* ---- the end ---- */

static int descriptor(const uv_tcp_t *tcp)
{
    uv_os_fd_t fd = -1;

    uv_fileno((const uv_handle_t *)tcp, &fd);
    return fd;
}

static void on_discarded(uv_handle_t *handle)
{
    free(handle);
}

void ns_relay_discard(uv_tcp_t *tcp)
{
    uv_close((uv_handle_t *)tcp, on_discarded);
}

static void close_by_reset(uv_tcp_t *tcp, uv_close_cb closed)
{
    /* libuv resets no connection whose FIN it has sent or is to send: then an ordinary close has to do. */
    if (uv_tcp_close_reset(tcp, closed) < 0)
        uv_close((uv_handle_t *)tcp, closed);
}

void ns_relay_reset(uv_tcp_t *tcp)
{
    close_by_reset(tcp, on_discarded);
}

static void let_go(struct ns_relay *relay)
{
    if (--relay->open > 0)
        return;
    if (relay->ended)
        relay->ended(relay->ended_arg);
    free(relay);
}

/* libuv answers a closed handle's requests before it calls this. */
static void on_closed(uv_handle_t *handle)
{
    struct ns_relay *relay = ((struct direction *)handle->data)->relay;

    free(handle);
    let_go(relay);
}

static void on_timer_closed(uv_handle_t *handle)
{
    let_go(((struct direction *)handle->data)->relay);
}

/* One that was set to be reset if the process is killed is not to be now. */
static void end_in_order(uv_tcp_t *tcp)
{
    struct linger none = { 0 };

    setsockopt(descriptor(tcp), SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    uv_close((uv_handle_t *)tcp, on_closed);
}

static void finish(struct ns_relay *relay, bool reset)
{
    if (relay->closing)
        return;
    relay->closing = true;
    for (int i = 0; i < 2; i++) {
        uv_tcp_t *tcp = relay->directions[i].from;

        uv_close((uv_handle_t *)&relay->directions[i].again, on_timer_closed);
        if (reset)
            close_by_reset(tcp, on_closed);
        else
            end_in_order(tcp);
    }
}

/* ---- the stream ---- */

/* Urgent bytes are left in line (SO_OOBINLINE): no read goes across the mark before one (tcp(7)), so it is read
 * alone, and passed on as what it is. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct direction *d = handle->data;

    d->urgent = sockatmark(descriptor(d->from)) == 1;
    *buf = uv_buf_init(d->bytes, d->urgent ? 1 : sizeof(d->bytes));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

/* As any other byte it would be one too many for who does not have such in line: it waits for room. */
static void pass_urgent(uv_timer_t *timer)
{
    struct direction *d = timer->data;
    ssize_t n = send(descriptor(d->to), d->bytes, 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL);

    if (d->relay->closing)
        return;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        n = uv_timer_start(timer, pass_urgent, 1, 0);
    else if (n == 1)
        n = uv_read_start((uv_stream_t *)d->from, on_alloc, on_read);
    if (n < 0)
        finish(d->relay, true);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct direction *d = request->data;
    struct ns_relay *relay = d->relay;

    d->ended = true;
    if (status < 0)
        finish(relay, true);
    else if (relay->directions[0].ended && relay->directions[1].ended)
        finish(relay, false);
}

static void on_written(uv_write_t *request, int status)
{
    struct direction *d = request->data;

    if (d->relay->closing)
        return;
    if (status < 0 || uv_read_start((uv_stream_t *)d->from, on_alloc, on_read) < 0)
        finish(d->relay, true);
}

/* Nothing is read before what was read has been taken: so each peer feels the other's pace. */
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct direction *d = stream->data;
    uv_buf_t out;
    int r = 0;

    if (n == 0)
        return;
    if (n == 1 && d->urgent) {
        uv_read_stop(stream);
        pass_urgent(&d->again);
        return;
    }
    if (n > 0) {
        uv_read_stop(stream);
        out = uv_buf_init(buf->base, (unsigned)n);
        r = uv_write(&d->write, (uv_stream_t *)d->to, &out, 1, on_written);
    } else if (n == UV_EOF) {
        uv_read_stop(stream);
        r = uv_shutdown(&d->shutdown, (uv_stream_t *)d->to, on_shutdown);
    } else {
        r = (int)n;
    }
    if (r < 0)
        finish(d->relay, true);
}

static void init_direction(struct ns_relay *relay, int i, uv_tcp_t *from, uv_tcp_t *to)
{
    struct direction *d = &relay->directions[i];
    const int on = 1;

    d->relay = relay;
    d->from = from;
    d->to = to;
    d->ended = false;
    d->write.data = d->shutdown.data = d;
    from->data = d;
    d->urgent = false;
    uv_timer_init(from->loop, &d->again);
    d->again.data = d;
    /* Small writes pass on as they come. */
    uv_tcp_nodelay(from, 1);
    setsockopt(descriptor(from), SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

static struct ns_relay *make(uv_tcp_t *a, uv_tcp_t *b, ns_relay_ended_fn *ended, void *arg)
{
    struct ns_relay *relay = malloc(sizeof(*relay));

    if (!relay) {
        ns_relay_reset(a);
        ns_relay_reset(b);
        if (ended)
            ended(arg);
        return NULL;
    }
    relay->ended = ended;
    relay->ended_arg = arg;
    relay->closing = false;
    relay->open = 4;
    init_direction(relay, 0, a, b);
    init_direction(relay, 1, b, a);
    return relay;
}

static void begin(struct direction *d)
{
    if (!d->relay->closing && uv_read_start((uv_stream_t *)d->from, on_alloc, on_read) < 0)
        finish(d->relay, true);
}

void ns_relay_start(uv_tcp_t *a, uv_tcp_t *b, ns_relay_ended_fn *ended, void *arg)
{
    struct ns_relay *relay = ns_relay_start_held(a, b, ended, arg);

    if (relay)
        ns_relay_let_read(relay);
}

struct ns_relay *ns_relay_start_held(uv_tcp_t *a, uv_tcp_t *b, ns_relay_ended_fn *ended, void *arg)
{
    struct ns_relay *relay = make(a, b, ended, arg);

    if (relay)
        begin(&relay->directions[0]);
    return relay;
}

/* libuv watches no stream that has ended. */
void ns_relay_look(struct ns_relay *relay)
{
    struct tcp_info info;
    socklen_t bytes = sizeof(info);
    int fd = descriptor(relay->directions[0].from);
    bool waiting = relay->directions[0].ended && !relay->directions[1].ended;

    if (!relay->closing && waiting && getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 && info.tcpi_state == TCP_CLOSE)
        finish(relay, true);
}

void ns_relay_let_read(struct ns_relay *relay)
{
    begin(&relay->directions[1]);
}
