#include "engine/hello.h"

#include "core/tell.h"
#include "engine/door.h"
#include "engine/engine.h"
#include "engine/guest.h"
#include "engine/large.h"
#include "engine/link.h"
#include "engine/mailbox.h"
#include "engine/shared.h"
#include "engine/sock.h"
#include "engine/sys.h"

#include <string.h>

#define LOCALS_MAX 64

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

static void list_addresses(struct ns_hello_ack *ack, const struct ns_address *peer)
{
    static struct ns_local locals[LOCALS_MAX] NS_LARGE;
    ssize_t n = ns_link_addresses(locals, LOCALS_MAX);
    for (ssize_t i = 0; i < n && ack->count < NS_HELLO_ADDRESSES; i++) {
        const struct ns_local *l = &locals[i];
        if (!ns_local_may_be_told(l, peer, locals, (size_t)n))
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

static bool shared_port(const struct ns_guest *g)
{
    struct ns_name name = { .length = 0 };
    struct ns_address a;
    uint16_t port;
    if (!ns_name_learn(&name, g->source.fd, ns_sys_getsockname) ||
        ns_address_from_sockaddr(&a, &port, (struct sockaddr *)&name.address, name.length) < 0 ||
        !ns_port_shared(port))
        return false;
    ns_info("other sockets listen on port %d too: HELLO is not answered", port);
    return true;
}

void ns_hello_answer(struct ns_guest *g, struct ns_time now)
{
    uint8_t out[NS_PACKET_BYTES_MAX];
    const struct ns_identity *own = ns_identity();
    if (!own || __atomic_load_n(&mute, __ATOMIC_SEQ_CST) || ns_door_cut_off() || shared_port(g)) {
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
    list_addresses(&ack, &g->from);
    size_t n = ns_wire_put_hello_ack(out, &ack);
    __atomic_store_n(&last_answer_ns, now.ns, __ATOMIC_SEQ_CST);
    ns_debug("answering HELLO with %d addresses", ack.count);
    if (ns_sys_send(g->source.fd, out, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n) {
        ns_guest_free(g);
        return;
    }
    ns_guest_become(g, NS_GUEST_LEASE);
    ns_guest_count(g);
    /* The client has half-closed: only its death is an event now. */
    ns_loop_change(&g->source, EPOLLET);
    ns_timer_set(&g->timer, ns_time_add(now, ns_time_ms(ns_engine.policy.lease_ms)));
}
