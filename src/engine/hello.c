#include "engine/hello.h"

#include "core/tell.h"
#include "engine/door.h"
#include "engine/engine.h"
#include "engine/guest.h"
#include "engine/large.h"
#include "engine/link.h"
#include "engine/listener.h"
#include "engine/mailbox.h"
#include "engine/shared.h"
#include "engine/sock.h"
#include "engine/sys.h"
#include "engine/uring.h"

#include <netinet/in.h>
#include <string.h>

#define LOCALS_MAX 64
#define KNOWN_MS   1000

static bool mute;              /* atomic */
static int64_t last_answer_ns; /* atomic */

bool ns_hello_mute(void)
{
    int64_t answered = __atomic_load_n(&last_answer_ns, __ATOMIC_SEQ_CST);
    bool parent = false;
    if (!__atomic_exchange_n(&mute, true, __ATOMIC_SEQ_CST)) {
        ns_guest_end_leases();
        parent = ns_mailbox_mute_parent();
    }
    return parent || (answered && ns_now().ns - answered < 1000000000);
}

bool ns_hello_open(void)
{
    return !__atomic_load_n(&mute, __ATOMIC_SEQ_CST);
}

/* Where this process listens on a port. A listener that is bound to one address speaks for no
 * other: another server's, who may know nothing of us, can have the same port there. */
struct reach {
    bool all4, all6;
    struct ns_address bound[8]; /* what does not fit is not told */
    unsigned count;
};

static void reach_of(struct reach *r, struct ns_listener *l, uint16_t port)
{
    struct ns_name name = { .length = 0 };
    struct ns_address a;
    uint16_t its;
    int only6 = 0;
    socklen_t len = sizeof only6;
    if (!ns_name_learn(&name, l->o.fd, ns_sys_getsockname) ||
        ns_address_from_sockaddr(&a, &its, (struct sockaddr *)&name.address, name.length) < 0 || its != port)
        return;
    if (!ns_address_wildcard(&a)) {
        if (r->count < sizeof r->bound / sizeof *r->bound)
            r->bound[r->count++] = a;
        return;
    }
    if (name.address.sin6_family == AF_INET6)
        ns_sys_getsockopt(l->o.fd, IPPROTO_IPV6, IPV6_V6ONLY, &only6, &len);
    r->all6 |= name.address.sin6_family == AF_INET6;
    r->all4 |= name.address.sin6_family == AF_INET || !only6;
}

static struct reach reach_on(uint16_t port)
{
    struct reach r = { .count = 0 };
    struct ns_hold hold;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_LISTENER && o->fd >= 0)
            reach_of(&r, (struct ns_listener *)o, port);
    ns_table_unhold(&hold);
    return r;
}

static bool reaches(const struct reach *r, const struct ns_address *a)
{
    if (a->family == AF_INET6 ? r->all6 : r->all4)
        return true;
    for (unsigned i = 0; i < r->count; i++)
        if (ns_address_equal(&r->bound[i], a))
            return true;
    return false;
}

/* Whoever likes may ask, as often as he likes. So what the kernel says is asked for once a
 * second, and again when it has told of a change. Helper. */
static struct ns_time locals_until;

void ns_hello_addresses_changed(void)
{
    locals_until = (struct ns_time){ 0 };
}

static void list_addresses(struct ns_hello_ack *ack, const struct ns_address *peer, uint16_t port,
                           struct ns_time now)
{
    static struct ns_local locals[LOCALS_MAX] NS_LARGE;
    static ssize_t n;
    if (!ns_time_before(now, locals_until)) {
        n = ns_link_addresses(locals, LOCALS_MAX);
        locals_until = ns_time_add(now, ns_time_ms(KNOWN_MS));
    }
    struct reach reach = reach_on(port);
    for (ssize_t i = 0; i < n && ack->count < NS_HELLO_ADDRESSES; i++) {
        const struct ns_local *l = &locals[i];
        if (!reaches(&reach, &l->address) || !ns_local_may_be_told(l, peer, locals, (size_t)n))
            continue;
        struct ns_hello_address *a = &ack->addresses[ack->count++];
        a->scope = (uint8_t)ns_scope_of(&l->address);
        if (l->address.family == AF_INET6) {
            a->family = 6;
            memcpy(a->address, l->address.bytes, 16);
        } else {
            a->family = 4;
            memset(a->address + 10, 0xff, 2);
            memcpy(a->address + 12, l->address.bytes, 4);
        }
    }
}

/* The port that a connection came to, or 0. */
static uint16_t port_of(int fd)
{
    struct ns_name name = { .length = 0 };
    struct ns_address a;
    uint16_t port = 0;
    if (!ns_name_learn(&name, fd, ns_sys_getsockname) ||
        ns_address_from_sockaddr(&a, &port, (struct sockaddr *)&name.address, name.length) < 0)
        return 0;
    return port;
}

/* Whether the first bytes of a connection could go to a ring in place of us. */
static bool read_past_us(struct ns_time now)
{
    static bool known;
    static struct ns_time until;
    if (!ns_time_before(now, until)) {
        known = ns_uring_here();
        until = ns_time_add(now, ns_time_ms(KNOWN_MS));
    }
    return known;
}

/* Whether somebody else listens on it, too; the last answer is good for a second. */
static bool shared(uint16_t port, struct ns_time now)
{
    static uint16_t last;
    static bool known;
    static struct ns_time until;
    if (port != last || !ns_time_before(now, until)) {
        last = port;
        known = ns_port_shared(port);
        until = ns_time_add(now, ns_time_ms(KNOWN_MS));
    }
    return known;
}

static bool shared_port(uint16_t port, struct ns_time now)
{
    if (port == 0 || (!ns_port_passed(port) && !shared(port, now)))
        return false;
    ns_info("others may accept on port %d too: HELLO is not answered", port);
    return true;
}

/* Whether what a yes promises could be another's to keep. */
static bool withheld(uint16_t port, struct ns_time now)
{
    return __atomic_load_n(&mute, __ATOMIC_SEQ_CST) || shared_port(port, now);
}

void ns_hello_answer(struct ns_guest *g, struct ns_time now)
{
    uint8_t out[NS_PACKET_BYTES_MAX];
    const struct ns_identity *own = ns_identity();
    uint16_t port = port_of(g->source.fd);
    if (!own || ns_door_cut_off() || read_past_us(now) || withheld(port, now)) {
        ns_guest_free(g);
        return;
    }
    struct ns_hello_ack ack = { .highest_version = 2,
                                .park_s = (uint32_t)(ns_engine.policy.park_ms / 1000),
                                .lease_s = (uint32_t)(ns_engine.policy.lease_ms / 1000) };
    memcpy(ack.instance, own->instance, sizeof ack.instance);
    memcpy(ack.public_key, own->public_key, sizeof ack.public_key);
    ack.key_check =
        ns_auth_key_check(ns_engine.policy.psk, ns_engine.policy.psk_bytes, own->instance, own->public_key);
    list_addresses(&ack, &g->from, port, now);
    size_t n = ns_wire_put_hello_ack(out, &ack);
    __atomic_store_n(&last_answer_ns, now.ns, __ATOMIC_SEQ_CST);
    ns_debug("answering HELLO with %d addresses", ack.count);
    if (ns_sys_send(g->source.fd, out, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n) {
        ns_guest_free(g);
        return;
    }
    ns_guest_become(g, NS_GUEST_LEASE);
    ns_guest_count(g);
    /* Who has withheld it since has ended the leases that there were. */
    if (withheld(port, now)) {
        ns_guest_free(g);
        return;
    }
    /* The client has half-closed: only its death is an event now. */
    ns_loop_change(&g->source, EPOLLET);
    ns_timer_set(&g->timer, ns_time_add(now, ns_time_ms(ns_engine.policy.lease_ms)));
}
