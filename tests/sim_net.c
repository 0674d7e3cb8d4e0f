#include "sim_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MSS          1000
#define HEADER_BYTES 40
#define RTO_MIN_NS   30000000
#define RTO_MAX_NS   2000000000
#define RETRIES_MAX  12

enum {
    ARRIVAL,
    RETRANSMIT,
};

enum {
    SYN = 1,
    ACK = 2,
    FIN = 4,
    RST = 8,
};

static void *grown(void *p, size_t bytes)
{
    p = realloc(p, bytes);
    if (!p)
        abort();
    return p;
}

uint64_t ns_sim_random(struct ns_sim_net *net, uint64_t below)
{
    /* splitmix64: every seed is as good as any other */
    uint64_t z = net->random += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return below ? (z ^ z >> 31) % below : 0;
}

/* ---- events: a binary heap ---- */

static bool sooner(const struct ns_sim_event *a, const struct ns_sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void ns_sim_schedule(struct ns_sim_net *net, struct ns_sim_event e)
{
    size_t i = net->count++;

    if (net->count > net->room) {
        net->room = net->room ? net->room * 2 : 256;
        net->events = grown(net->events, net->room * sizeof *net->events);
    }
    e.order = net->order++;
    for (; i > 0 && sooner(&e, &net->events[(i - 1) / 2]); i = (i - 1) / 2)
        net->events[i] = net->events[(i - 1) / 2];
    net->events[i] = e;
}

static struct ns_sim_event take_event(struct ns_sim_net *net)
{
    struct ns_sim_event first = net->events[0], last = net->events[--net->count];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < net->count; i = child) {
        if (child + 1 < net->count && sooner(&net->events[child + 1], &net->events[child]))
            child++;
        if (!sooner(&net->events[child], &last))
            break;
        net->events[i] = net->events[child];
    }
    net->events[i] = last;
    return first;
}

/* ---- packets out ---- */

static struct ns_sim_end *peer_of(struct ns_sim_end *e)
{
    return &e->conn->end[!e->side];
}

static void changed(struct ns_sim_net *net, struct ns_sim_end *e)
{
    if (e->owned && net->changed)
        net->changed(net, e);
}

static void transmit(struct ns_sim_net *net, struct ns_sim_end *e, unsigned flags, uint64_t from, uint64_t to)
{
    struct ns_sim_path *path = e->conn->path;
    int64_t start = path->busy_until[e->side] > net->now_ns ? path->busy_until[e->side] : net->now_ns;

    if (!path->up[e->side] || ns_sim_random(net, 1024) < path->loss)
        return;
    path->busy_until[e->side] = start + (int64_t)(to - from + HEADER_BYTES) * path->byte_ns;
    ns_sim_schedule(net, (struct ns_sim_event){ .at_ns = path->busy_until[e->side] + path->latency_ns,
                                                .kind = ARRIVAL,
                                                .end = peer_of(e),
                                                .flags = flags,
                                                .from = from,
                                                .to = to,
                                                .acknowledged = e->received,
                                                .window_end = e->read + net->receive_buffer });
}

static void acknowledge(struct ns_sim_net *net, struct ns_sim_end *e)
{
    transmit(net, e, ACK, e->next, e->next);
}

static uint64_t end_of_stream(const struct ns_sim_end *e)
{
    return e->written + e->fin_queued;
}

static void set_timer(struct ns_sim_net *net, struct ns_sim_end *e)
{
    int64_t rto = 3 * e->conn->path->latency_ns + RTO_MIN_NS;

    for (unsigned i = 0; i < e->retries && rto < RTO_MAX_NS; i++)
        rto *= 2;
    ns_sim_schedule(net, (struct ns_sim_event){
                             .at_ns = net->now_ns + rto, .kind = RETRANSMIT, .end = e, .timer = ++e->timer });
}

static void send_segment(struct ns_sim_net *net, struct ns_sim_end *e)
{
    uint64_t from = e->next, to = e->written;

    if (to > from + MSS)
        to = from + MSS;
    if (from > e->written)
        from = to = e->written; /* FIN alone, again */
    bool fin = e->fin_queued && to == e->written;
    transmit(net, e, ACK | (fin ? FIN : 0), from, to);
    e->next = to + fin;
}

/* As much as the window allows; FIN needs none. */
static void output(struct ns_sim_net *net, struct ns_sim_end *e)
{
    bool idle = e->next == e->acknowledged;

    if (e->state != NS_SIM_OPEN)
        return;
    while (e->next < end_of_stream(e) && (e->next < e->window_end || e->next == e->written))
        send_segment(net, e);
    if (idle && e->acknowledged < end_of_stream(e))
        set_timer(net, e);
}

static void die(struct ns_sim_net *net, struct ns_sim_end *e, int error)
{
    if (e->state == NS_SIM_DEAD)
        return;
    e->state = NS_SIM_DEAD;
    e->error = error;
    e->timer++;
    changed(net, e);
}

static void retransmit(struct ns_sim_net *net, struct ns_sim_end *e)
{
    if (e->state == NS_SIM_SYN_SENT)
        transmit(net, e, SYN, 0, 0);
    else if (e->state != NS_SIM_OPEN || e->acknowledged == end_of_stream(e))
        return;
    if (e->retries++ == RETRIES_MAX) {
        die(net, e, -ETIMEDOUT);
        return;
    }
    if (e->state == NS_SIM_OPEN) {
        e->next = e->acknowledged;
        send_segment(net, e); /* also the probe of a closed window */
    }
    set_timer(net, e);
}

/* ---- packets in ---- */

static void take_acknowledgement(struct ns_sim_net *net, struct ns_sim_end *e, const struct ns_sim_event *p)
{
    if (p->window_end > e->window_end)
        e->window_end = p->window_end;
    if (p->acknowledged > e->acknowledged && p->acknowledged <= end_of_stream(e)) {
        e->acknowledged = p->acknowledged;
        if (e->next < e->acknowledged)
            e->next = e->acknowledged;
        e->retries = 0;
        e->timer++;
        if (e->acknowledged < end_of_stream(e))
            set_timer(net, e);
        changed(net, e);
    }
    output(net, e);
}

static void take_data(struct ns_sim_net *net, struct ns_sim_end *e, const struct ns_sim_event *p)
{
    uint64_t to = p->to, room = e->read + net->receive_buffer;
    bool fin = p->flags & FIN;

    if (p->to + fin <= p->from)
        return;
    if (to > room) {
        to = room;
        fin = false;
    }
    if (p->from <= e->received && to + fin > e->received && !e->fin_received) {
        if (!e->owned) {
            transmit(net, e, RST, 0, 0);
            die(net, e, -ECONNRESET);
            return;
        }
        e->received = to + fin;
        e->fin_received = fin;
        changed(net, e);
    }
    acknowledge(net, e);
}

static void take_syn(struct ns_sim_net *net, struct ns_sim_end *e)
{
    bool first = e->state == NS_SIM_CLOSED;

    if (first) {
        e->state = NS_SIM_OPEN;
        e->owned = true;
    }
    e->window_end = net->receive_buffer;
    transmit(net, e, SYN | ACK, 0, 0);
    if (first)
        changed(net, e);
}

static void arrive(struct ns_sim_net *net, const struct ns_sim_event *p)
{
    struct ns_sim_end *e = p->end;

    if (!e->conn->path->up[!e->side] || (e->filter && e->state == NS_SIM_OPEN))
        return;
    if (p->flags & RST) {
        die(net, e, e->state == NS_SIM_SYN_SENT ? -ECONNREFUSED : -ECONNRESET);
        return;
    }
    if (e->state == NS_SIM_DEAD || (e->state == NS_SIM_CLOSED && !(p->flags & SYN))) {
        transmit(net, e, RST, 0, 0);
        return;
    }
    if (p->flags == SYN) {
        take_syn(net, e);
        return;
    }
    if (e->state == NS_SIM_SYN_SENT) {
        if (!(p->flags & SYN))
            return;
        e->state = NS_SIM_OPEN;
        e->window_end = p->window_end;
        e->retries = 0;
        e->timer++;
        acknowledge(net, e);
        changed(net, e);
        return;
    }
    take_acknowledgement(net, e, p);
    take_data(net, e, p);
}

bool ns_sim_next(struct ns_sim_net *net, struct ns_sim_event *out)
{
    out->kind = -1;
    if (net->count == 0)
        return false;
    *out = take_event(net);
    net->now_ns = out->at_ns;
    if (out->kind == ARRIVAL)
        arrive(net, out);
    else if (out->kind == RETRANSMIT && out->timer == out->end->timer)
        retransmit(net, out->end);
    return out->kind >= NS_SIM_USER_EVENT;
}

/* ---- system calls ---- */

struct ns_sim_end *ns_sim_connect(struct ns_sim_net *net, struct ns_sim_path *path)
{
    struct ns_sim_conn *c = grown(NULL, sizeof *c);

    memset(c, 0, sizeof *c);
    c->path = path;
    c->previous = net->conns;
    net->conns = c;
    for (int side = 0; side < 2; side++) {
        c->end[side].conn = c;
        c->end[side].side = side;
    }
    c->end[0].owned = true;
    c->end[0].state = NS_SIM_SYN_SENT;
    transmit(net, &c->end[0], SYN, 0, 0);
    set_timer(net, &c->end[0]);
    return &c->end[0];
}

int64_t ns_sim_write(struct ns_sim_net *net, struct ns_sim_end *e, const void *bytes, size_t len)
{
    uint64_t queued = e->written - (e->acknowledged < e->written ? e->acknowledged : e->written);
    uint64_t room = net->send_buffer - (queued < net->send_buffer ? queued : net->send_buffer);

    if (e->state == NS_SIM_DEAD)
        return e->error;
    if (e->fin_queued)
        return -EPIPE;
    if (room == 0 || e->state != NS_SIM_OPEN)
        return -EAGAIN;
    if (len > room)
        len = (size_t)room;
    if (e->written + len > e->out_room) {
        e->out_room = (size_t)(e->written + len) * 2;
        e->out = grown(e->out, e->out_room);
    }
    memcpy(e->out + e->written, bytes, len);
    e->written += len;
    output(net, e);
    return (int64_t)len;
}

static uint64_t unread(const struct ns_sim_end *e)
{
    return e->received - e->fin_received - e->read;
}

int64_t ns_sim_read(struct ns_sim_net *net, struct ns_sim_end *e, void *bytes, size_t len, bool peek)
{
    if (unread(e) == 0) {
        if (e->state == NS_SIM_DEAD)
            return e->error;
        return e->fin_received ? 0 : -EAGAIN;
    }
    if (len > unread(e))
        len = (size_t)unread(e);
    memcpy(bytes, peer_of(e)->out + e->read, len);
    if (!peek) {
        e->read += len;
        if (e->state == NS_SIM_OPEN && !e->filter)
            acknowledge(net, e); /* the window has opened */
    }
    return (int64_t)len;
}

void ns_sim_shutdown(struct ns_sim_net *net, struct ns_sim_end *e)
{
    if (e->state != NS_SIM_OPEN || e->fin_queued)
        return;
    e->fin_queued = true;
    output(net, e);
}

void ns_sim_abort(struct ns_sim_net *net, struct ns_sim_end *e)
{
    if (e->state == NS_SIM_OPEN)
        transmit(net, e, RST, 0, 0);
    die(net, e, -ECONNABORTED);
}

void ns_sim_close(struct ns_sim_net *net, struct ns_sim_end *e)
{
    if (!e->owned)
        return;
    e->owned = false;
    if (e->state == NS_SIM_SYN_SENT || unread(e) > 0)
        ns_sim_abort(net, e);
    else
        ns_sim_shutdown(net, e);
}

void ns_sim_keepalive(struct ns_sim_net *net, struct ns_sim_end *e)
{
    if (e->state == NS_SIM_OPEN)
        acknowledge(net, e);
}

void ns_sim_kill(struct ns_sim_net *net, struct ns_sim_end *e, int error)
{
    die(net, e, error);
}

uint64_t ns_sim_bytes_acknowledged(const struct ns_sim_end *e)
{
    return e->acknowledged + (e->side == 0 && (e->state == NS_SIM_OPEN || e->written > 0));
}

uint64_t ns_sim_unacknowledged(const struct ns_sim_end *e)
{
    return end_of_stream(e) - e->acknowledged;
}

bool ns_sim_knows_fin(const struct ns_sim_end *e)
{
    return e->state == NS_SIM_OPEN && e->fin_received;
}

void ns_sim_net_free(struct ns_sim_net *net)
{
    while (net->conns) {
        struct ns_sim_conn *c = net->conns;

        net->conns = c->previous;
        free(c->end[0].out);
        free(c->end[1].out);
        free(c);
    }
    free(net->events);
}
