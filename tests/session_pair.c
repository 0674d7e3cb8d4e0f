#include "session_pair.h"

#include <stdlib.h>
#include <string.h>

static void need(bool condition)
{
    if (!condition)
        abort();
}

void ns_pair_make(struct ns_pair_of_sessions *p, uint8_t version)
{
    uint8_t random[48];

    memset(p, 0, sizeof *p);
    memset(random, 0x11, sizeof random);
    need(ns_auth_identity(&p->client_identity, random) == 0);
    memset(random, 0x22, sizeof random);
    need(ns_auth_identity(&p->server_identity, random) == 0);
    need(ns_auth_master(&p->master, p->client_identity.secret_key, p->server_identity.public_key,
                        p->client_identity.public_key, p->server_identity.public_key, NULL, 0) == 0);
    ns_session_init(&p->client, NS_CLIENT, version);
    ns_session_init(&p->server, NS_SERVER, version);
}

void ns_pair_meet(struct ns_pair_of_sessions *p)
{
    uint8_t packet[NS_PACKET_BYTES_NEW], id[16];

    ns_pair_nonce(id, 0x99);
    need(ns_session_event(&p->client, NS_EVENT_ESTABLISHED));
    need(ns_session_event(&p->client, NS_EVENT_ANSWER_YES));
    need(ns_session_offer(&p->client, &p->client_identity, &p->master, p->server_identity.instance, id,
                          packet) == sizeof packet);
    need(ns_session_event(&p->client, NS_EVENT_NEW));
    need(ns_session_accept(&p->server, &p->server_identity, &p->master, packet) == 0);
    need(ns_session_event(&p->server, NS_EVENT_NEW));
}

void ns_pair_part(struct ns_pair_of_sessions *p)
{
    ns_session_destroy(&p->client);
    ns_session_destroy(&p->server);
}

void ns_pair_write(struct ns_session *s, size_t bytes)
{
    static const uint8_t some[4096];

    need(ns_ring_reserve(&s->ring, bytes, NS_PAIR_RING_BYTES) == 0);
    for (size_t n; bytes > 0; bytes -= n) {
        n = bytes < sizeof some ? bytes : sizeof some;
        ns_ring_put(&s->ring, some, n);
    }
    s->carrier.tx_position = s->ring.head;
}

void ns_pair_forget(struct ns_session *s, uint64_t to)
{
    ns_session_trim(s, s->carrier.tx_position - to);
    need(s->ring.tail == to);
}

void ns_pair_nonce(uint8_t out[16], uint8_t n)
{
    for (int i = 0; i < 16; i++)
        out[i] = (uint8_t)(n * 16 + i);
}
