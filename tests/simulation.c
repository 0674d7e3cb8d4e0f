#include "simulation.h"

#include "sim_host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MS         ((int64_t)1000000)
#define STUCK_NS   (180000 * MS) /* after the last fault is over */
#define EVENTS_MAX 3000000
#define FAULTS_MAX 64
#define WRITE_MAX  8192

enum {
    TURN = NS_SIM_USER_EVENT, /* flags: which host */
    APPLICATION,              /* flags: which host */
    FAULT,
    PATH_HEALS, /* flags: which path */
    CALM,       /* no more faults: all paths are well */
};

struct application {
    uint64_t total, written; /* of its own stream */
    uint64_t checked;        /* of the peer's */
    bool ended, seen_end;
    bool reads_first; /* writes nothing before it has all of the peer's stream */
    int64_t pace_ns, pauses_until_ns;
};

struct sim {
    struct ns_sim_net net;
    struct ns_sim_host host[2];
    struct application app[2];
    const uint8_t *data; /* where choices come from; NULL: from the seed */
    size_t data_bytes, at;
    unsigned faults;
    bool calm;
    int64_t calm_ns;
    const char *failure;
};

/* ---- choices ---- */

static unsigned choose(struct sim *s, unsigned below)
{
    if (!s->data)
        return (unsigned)ns_sim_random(&s->net, below);
    unsigned c = s->at < s->data_bytes ? s->data[s->at++] : 0;
    if (below > 256)
        c = c << 8 | (s->at < s->data_bytes ? s->data[s->at++] : 0);
    return c % below;
}

static bool one_in(struct sim *s, unsigned n)
{
    return choose(s, n) == n - 1;
}

static void broken(struct sim *s, const char *what)
{
    if (!s->failure)
        s->failure = what;
}

/* ---- the two streams ---- */

static uint8_t byte_at(int side, uint64_t offset)
{
    uint64_t z = (offset + 1) * 0x9e3779b97f4a7c15 + (uint64_t)side * 0xd1342543de82ef95;

    return (uint8_t)((z ^ z >> 29) * 0xbf58476d1ce4e5b9 >> 56);
}

static void write_some(struct sim *s, int side)
{
    struct application *a = &s->app[side];
    uint8_t bytes[WRITE_MAX];
    uint64_t len = a->total - a->written;

    if (a->reads_first && !s->app[side].seen_end)
        return;
    if (len > 0) {
        uint64_t most = 1 + ns_sim_random(&s->net, WRITE_MAX);
        len = len < most ? len : most;
        for (uint64_t i = 0; i < len; i++)
            bytes[i] = byte_at(side, a->written + i);
        int64_t n = ns_sim_send(&s->host[side], bytes, (size_t)len);
        if (n > 0)
            a->written += (uint64_t)n;
    }
    if (a->written == a->total && !a->ended && s->host[side].session.state != NS_OFFERING) {
        a->ended = true;
        ns_sim_end_stream(&s->host[side]);
    }
}

static void read_some(struct sim *s, int side)
{
    struct application *a = &s->app[side], *peer = &s->app[!side];
    uint8_t bytes[WRITE_MAX];

    for (int64_t n;;) {
        n = ns_sim_receive(&s->host[side], bytes, 1 + ns_sim_random(&s->net, WRITE_MAX));
        if (n < 0)
            return;
        if (n == 0) {
            if (!peer->ended || a->checked != peer->total)
                broken(s, "the stream ended early");
            a->seen_end = true;
            return;
        }
        if (a->seen_end || a->checked + (uint64_t)n > peer->written)
            broken(s, "bytes that nobody wrote");
        for (int64_t i = 0; i < n && !s->failure; i++)
            if (bytes[i] != byte_at(!side, a->checked + (uint64_t)i))
                broken(s, "bytes lost, doubled or out of order");
        a->checked += (uint64_t)n;
    }
}

/* ---- what holds at any time ---- */

static void check_host(struct sim *s, int side)
{
    const struct ns_sim_host *h = &s->host[side];
    const struct ns_session *n = &h->session;
    const struct ns_carrier *c = &n->carrier;
    unsigned under_way = 0;

    for (unsigned i = 0; i < h->parties; i++)
        under_way += h->party[i].active && h->party[i].exchange.phase != NS_X_OVER;
    if (n->pins != under_way)
        broken(s, "pins differ from the exchanges under way");
    if (n->ring.tail > ns_sim_safe(&s->host[!side]))
        broken(s, "forgot what the peer may still need");
    if (c->tx_start > c->tx_position || c->tx_position > n->ring.head || c->tx_position < n->ring.tail)
        broken(s, "a position outside the ring");
    if (n->state == NS_CONNECTED && h->tx_open && c->tx_position != n->ring.head)
        broken(s, "open though not all was sent again");
    if (n->state == NS_CONNECTED && h->tx_open && h->end->state == NS_SIM_OPEN &&
        !ns_carrier_faithful(c, ns_sim_bytes_acknowledged(h->end), ns_sim_unacknowledged(h->end),
                             n->tx_ended))
        broken(s, "the kernel's ledger and the carrier differ");
    if (h->failure)
        broken(s, h->failure);
    if (n->state == NS_FAILED || n->state == NS_PLAIN)
        broken(s, "the session has ended");
}

static bool all_over(const struct sim *s)
{
    return s->app[0].seen_end && s->app[1].seen_end;
}

/* ---- faults ---- */

static void cut(struct sim *s, unsigned path, unsigned directions)
{
    int64_t for_ns = (1 + (int64_t)choose(s, 256)) * 10 * MS;

    for (int d = 0; d < 2; d++)
        if (directions >> d & 1)
            s->net.paths[path].up[d] = false;
    ns_sim_schedule(
        &s->net, (struct ns_sim_event){ .at_ns = s->net.now_ns + for_ns, .kind = PATH_HEALS, .flags = path });
}

/* RST on one of the connections there are, at one end or both. */
static void reset_some(struct sim *s, struct ns_sim_conn *c, unsigned ends)
{
    for (unsigned skip = c ? 0 : choose(s, 4); !c || skip > 0; skip--) {
        c = c ? c->previous : s->net.conns;
        if (!c)
            return;
    }
    for (int side = 0; side < 2; side++)
        if (ends >> side & 1 && c->end[side].state == NS_SIM_OPEN)
            ns_sim_kill(&s->net, &c->end[side], -ECONNRESET);
}

/* Version 1 cannot tell attempts apart and proves nothing: only a connection
 * that stands is broken. */
static void fault_v1(struct sim *s)
{
    struct ns_sim_host *client = &s->host[0], *server = &s->host[1];

    if (client->recovering || client->retired || server->retired || client->replaying || server->replaying ||
        client->end->conn != server->end->conn)
        return;
    reset_some(s, client->end->conn, 1 + choose(s, 3));
}

static void stall(struct sim *s, unsigned side)
{
    int64_t until = s->net.now_ns + (1 + (int64_t)choose(s, 256)) * (one_in(s, 8) ? 50 : 1) * MS;

    if (one_in(s, 2))
        s->host[side].busy_until_ns = until;
    else
        s->app[side].pauses_until_ns = until;
}

static void fault(struct sim *s)
{
    unsigned kind = choose(s, 16), path = choose(s, NS_SIM_PATHS);
    struct ns_sim_host *client = &s->host[0], *server = &s->host[1];

    switch (kind) {
    case 0:
    case 1:
        cut(s, path, 3);
        break;
    case 2:
    case 3:
        cut(s, path, 1 + choose(s, 2));
        break;
    case 4: /* the path in use */
    case 5:
        cut(s, (unsigned)(client->end->conn->path - s->net.paths), 1 + choose(s, 3));
        break;
    case 6:
    case 7:
        reset_some(s, client->end->conn, 1 + choose(s, 3));
        break;
    case 8:
    case 9:
        reset_some(s, NULL, 1 + choose(s, 3));
        break;
    case 10:
        s->net.paths[path].latency_ns = (1 + (int64_t)choose(s, 200)) * MS / 2;
        break;
    case 11: /* its link is gone */
        cut(s, (unsigned)(client->end->conn->path - s->net.paths), 3);
        ns_sim_try(client, NS_SIM_LOST);
        break;
    case 12: /* its address is gone */
        ns_sim_retire(server);
        break;
    case 13:
        ns_sim_try(client, NS_SIM_HEDGE);
        break;
    case 14:
        stall(s, choose(s, 2));
        break;
    default:
        s->net.paths[path].loss = choose(s, 200);
    }
}

static void next_fault(struct sim *s)
{
    bool more = s->data ? s->at < s->data_bytes && s->faults++ < FAULTS_MAX : s->faults-- > 0;
    int64_t in_ns = one_in(s, 4) ? (int64_t)choose(s, 256) * 5 * MS : (int64_t)choose(s, 256) * MS / 8;

    ns_sim_schedule(&s->net, (struct ns_sim_event){ .at_ns = s->net.now_ns + (more ? in_ns : 2600 * MS),
                                                    .kind = more ? FAULT : CALM });
}

/* ---- events ---- */

static void wake(struct sim *s, int side)
{
    struct ns_sim_host *h = &s->host[side];
    int64_t at = s->net.now_ns;

    if (h->woken)
        return;
    h->woken = true;
    if (at < h->busy_until_ns)
        at = h->busy_until_ns;
    ns_sim_schedule(&s->net, (struct ns_sim_event){ .at_ns = at, .kind = TURN, .flags = (unsigned)side });
}

static struct sim *of_net(struct ns_sim_net *net)
{
    return (struct sim *)((char *)net - offsetof(struct sim, net));
}

static void end_changed(struct ns_sim_net *net, struct ns_sim_end *e)
{
    struct sim *s = of_net(net);

    if (e->side == 1 && !e->owner) {
        if (!s->host[1].end) {
            s->host[1].end = e;
            e->owner = &s->host[1];
        } else {
            ns_sim_take(&s->host[1], e);
        }
    }
    wake(s, e->side);
}

static void turn(struct sim *s, int side)
{
    struct ns_sim_host *h = &s->host[side];

    h->woken = false;
    if (s->net.now_ns < h->busy_until_ns) {
        wake(s, side);
        return;
    }
    h->timers_first = ns_sim_random(&s->net, 2);
    ns_sim_turn(h);
}

/* An application's step; with it the helper looks at its timers. */
static void step(struct sim *s, int side)
{
    struct application *a = &s->app[side];
    struct ns_sim_host *h = &s->host[side];
    int64_t due = ns_sim_due(h);

    if (h->end && s->net.now_ns >= a->pauses_until_ns) {
        if (ns_sim_random(&s->net, 2))
            write_some(s, side);
        read_some(s, side);
        write_some(s, side);
    }
    if (h->end && h->session.state == NS_CONNECTED && !h->retired && ns_sim_random(&s->net, 64) == 0)
        ns_sim_keepalive(&s->net, h->end);
    if (h->end && (h->session.role == NS_CLIENT || (due && due <= s->net.now_ns)))
        wake(s, side);
    ns_sim_schedule(&s->net,
                    (struct ns_sim_event){ .at_ns = s->net.now_ns + 1 +
                                                    (int64_t)ns_sim_random(&s->net, (uint64_t)a->pace_ns),
                                           .kind = APPLICATION,
                                           .flags = (unsigned)side });
}

static void heal(struct ns_sim_path *p)
{
    p->up[0] = p->up[1] = true;
}

static void event(struct sim *s, const struct ns_sim_event *e)
{
    switch (e->kind) {
    case TURN:
        turn(s, (int)e->flags);
        break;
    case APPLICATION:
        step(s, (int)e->flags);
        break;
    case FAULT:
        if (!ns_session_protected(&s->host[0].session) || !ns_session_protected(&s->host[1].session))
            ;
        else if (s->host[0].session.version == 1)
            fault_v1(s);
        else
            fault(s);
        next_fault(s);
        break;
    case PATH_HEALS:
        heal(&s->net.paths[e->flags]);
        break;
    case CALM:
        for (int i = 0; i < NS_SIM_PATHS; i++) {
            heal(&s->net.paths[i]);
            s->net.paths[i].loss = 0;
        }
        s->calm = true;
        s->calm_ns = s->net.now_ns;
        break;
    default:
        break;
    }
}

/* ---- one life ---- */

static void make_keys(struct sim *s)
{
    static bool made;
    static struct ns_identity client, server;
    static struct ns_master master;
    uint8_t random[48] = { 1 };

    if (!made) {
        ns_auth_identity(&client, random);
        random[0] = 2;
        ns_auth_identity(&server, random);
        ns_auth_master(&master, client.secret_key, server.public_key, client.public_key, server.public_key,
                       NULL, 0);
        made = true;
    }
    s->host[0].identity = client;
    s->host[1].identity = server;
    s->host[0].master = s->host[1].master = master;
}

static void begin_client(struct sim *s, uint8_t version)
{
    struct ns_sim_host *c = &s->host[0];
    uint8_t id[16] = { 7 };

    ns_session_event(&c->session, NS_EVENT_ESTABLISHED);
    ns_session_event(&c->session, NS_EVENT_ANSWER_YES);
    if (version == 1) {
        c->offer_bytes = ns_wire_put_v1_new(c->offer);
        c->session.carrier.tx_header_bytes = (uint32_t)c->offer_bytes;
    } else {
        c->offer_bytes = ns_session_offer(&c->session, &c->identity, &c->master, s->host[1].identity.instance,
                                          id, c->offer);
    }
    c->end = ns_sim_connect(&s->net, &s->net.paths[0]);
    c->end->owner = c;
}

static void begin(struct sim *s)
{
    uint8_t version = one_in(s, 8) ? 1 : 2;

    s->net.changed = end_changed;
    s->net.send_buffer = 4096U << choose(s, 5);
    s->net.receive_buffer = 4096U << choose(s, 5);
    for (int i = 0; i < NS_SIM_PATHS; i++) {
        struct ns_sim_path *p = &s->net.paths[i];

        p->latency_ns = (1 + (int64_t)choose(s, 256)) * (one_in(s, 3) ? MS / 4 : MS / 64);
        p->byte_ns = 8 << choose(s, 10);
        p->loss = version == 2 && one_in(s, 4) ? choose(s, 64) : 0;
        heal(p);
    }
    for (int side = 0; side < 2; side++) {
        ns_sim_host_init(&s->host[side], &s->net, side ? NS_SERVER : NS_CLIENT, version);
        s->app[side].total = choose(s, 16) ? (uint64_t)choose(s, 65536) << choose(s, s->data ? 1 : 5) : 0;
        s->app[side].pace_ns = MS << choose(s, 6);
        ns_sim_schedule(&s->net,
                        (struct ns_sim_event){ .at_ns = 1, .kind = APPLICATION, .flags = (unsigned)side });
    }
    s->app[choose(s, 2)].reads_first = one_in(s, 8);
    s->faults = s->data ? 0 : choose(s, 48);
    make_keys(s);
    begin_client(s, version);
    ns_sim_schedule(&s->net,
                    (struct ns_sim_event){ .at_ns = (1 + (int64_t)choose(s, 256)) * MS, .kind = FAULT });
}

static void end(struct sim *s)
{
    for (int side = 0; side < 2; side++) {
        struct ns_sim_host *h = &s->host[side];

        for (unsigned i = 0; i < h->parties; i++)
            if (h->party[i].active)
                ns_exchange_end(&h->party[i].exchange);
        if (h->session.pins != 0)
            broken(s, "pins are left");
        ns_sim_host_free(h);
    }
    ns_sim_net_free(&s->net);
}

static struct ns_simulation live(struct sim *s)
{
    struct ns_sim_event e;
    unsigned events = 0;

    begin(s);
    while (!s->failure && !all_over(s)) {
        if (ns_sim_next(&s->net, &e)) {
            event(s, &e);
            for (int side = 0; side < 2 && s->host[1].end; side++)
                check_host(s, side);
        }
        if (events++ == EVENTS_MAX || (s->calm && s->net.now_ns > s->calm_ns + STUCK_NS))
            broken(s, "stuck");
    }
    struct ns_simulation result = { .at_ns = s->net.now_ns,
                                    .resumes = s->host[0].resumes + s->host[1].resumes,
                                    .bytes = s->app[0].checked + s->app[1].checked };
    end(s);
    result.failure = s->failure;
    return result;
}

struct ns_simulation ns_simulate_seed(uint64_t seed)
{
    static struct sim s;

    memset(&s, 0, sizeof s);
    s.net.random = seed;
    return live(&s);
}

struct ns_simulation ns_simulate_input(const uint8_t *data, size_t bytes)
{
    static struct sim s;

    memset(&s, 0, sizeof s);
    s.data = data ? data : (const uint8_t *)"";
    s.data_bytes = bytes;
    return live(&s);
}
