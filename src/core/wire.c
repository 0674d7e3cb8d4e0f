#include "core/wire.h"

#include "core/cursor.h"

#include <errno.h>
#include <string.h>

static uint8_t *put_header(uint8_t *out, uint8_t version, enum ns_packet_type type)
{
    return put_8(put_8(put_16(out, NS_WIRE_MAGIC), version), (uint8_t)type);
}

/* ---- which packet, and how long ---- */

#define VERSIONS     2
#define TYPES        7
#define COUNT_OFFSET 5 /* of the address count in HELLO_ACK */

/* 0: the version has no such type. */
static const uint8_t lengths[VERSIONS + 1][TYPES + 1] = {
    [1] = { [NS_PACKET_NEW] = NS_V1_BYTES_NEW,
            [NS_PACKET_RESUME] = NS_V1_BYTES_RESUME6,
            [NS_PACKET_RESUME_ACK] = NS_V1_BYTES_RESUME_ACK,
            [NS_PACKET_RESUME4] = NS_V1_BYTES_RESUME4 },
    [2] = { [NS_PACKET_NEW] = NS_PACKET_BYTES_NEW,
            [NS_PACKET_RESUME] = NS_PACKET_BYTES_RESUME,
            [NS_PACKET_RESUME_ACK] = NS_PACKET_BYTES_RESUME_ACK,
            [NS_PACKET_CONFIRM] = NS_PACKET_BYTES_CONFIRM,
            [NS_PACKET_DONE] = NS_PACKET_BYTES_DONE,
            [NS_PACKET_HELLO_ACK] = NS_PACKET_BYTES_HELLO_ACK },
};

int ns_wire_length(const uint8_t *in, size_t have)
{
    if (have > 0 && in[0] != NS_WIRE_MAGIC >> 8)
        return -EPROTO;
    if (have > 1 && in[1] != (NS_WIRE_MAGIC & 0xff))
        return -EPROTO;
    if (have > 2 && (in[2] < 1 || in[2] > VERSIONS))
        return -EPROTO;
    if (have < NS_PACKET_BYTES_HEADER)
        return 0;
    if (in[3] > TYPES || !lengths[in[2]][in[3]])
        return -EPROTO;
    if (in[3] != NS_PACKET_HELLO_ACK)
        return lengths[in[2]][in[3]];
    if (have <= COUNT_OFFSET)
        return 0;
    if (in[COUNT_OFFSET] > NS_HELLO_ADDRESSES)
        return -EPROTO;
    return NS_PACKET_BYTES_HELLO_ACK + NS_HELLO_ADDRESS_BYTES * in[COUNT_OFFSET];
}

/*
 * Sets `c` to what follows the header of a whole packet of this version and
 * type, and to nothing beyond it. Returns the packet's length, 0 or -EPROTO.
 */
static int begin(struct cursor *c, const uint8_t *in, size_t have, uint8_t version, enum ns_packet_type type)
{
    int length = ns_wire_length(in, have);

    if (length < 0)
        return length;
    if (have > 2 && in[2] != version)
        return -EPROTO;
    if (have > 3 && in[3] != type)
        return -EPROTO;
    if (length == 0 || have < (size_t)length)
        return 0;
    *c = (struct cursor){ in + NS_PACKET_BYTES_HEADER, (size_t)length - NS_PACKET_BYTES_HEADER, false };
    return length;
}

/* A reader that took more or less than the packet has would be an error of ours;
 * it must not become a field that reads as zero. */
static int end(const struct cursor *c, int length)
{
    return c->overrun || c->left ? -EPROTO : length;
}

/* ---- version 2 ---- */

size_t ns_wire_put_new(uint8_t *out, const struct ns_new *packet)
{
    uint8_t *at = put_header(out, 2, NS_PACKET_NEW);

    at = put_32(at, packet->flags);
    at = put(at, packet->session_id, sizeof packet->session_id);
    at = put(at, packet->client_key, sizeof packet->client_key);
    at = put(at, packet->instance8, sizeof packet->instance8);
    at = put(at, packet->tag, sizeof packet->tag);
    return (size_t)(at - out);
}

int ns_wire_get_new(const uint8_t *in, size_t have, struct ns_new *out)
{
    struct cursor c;
    int length = begin(&c, in, have, 2, NS_PACKET_NEW);

    if (length <= 0)
        return length;
    out->flags = take_32(&c);
    take(&c, out->session_id, sizeof out->session_id);
    take(&c, out->client_key, sizeof out->client_key);
    take(&c, out->instance8, sizeof out->instance8);
    take(&c, out->tag, sizeof out->tag);
    return end(&c, length);
}

size_t ns_wire_put_resume(uint8_t *out, const struct ns_resume *packet)
{
    uint8_t *at = put_header(out, 2, NS_PACKET_RESUME);

    at = put_32(at, packet->flags);
    at = put(at, packet->session_id, sizeof packet->session_id);
    at = put_64(at, packet->epoch);
    at = put_64(at, packet->receive_offset);
    at = put(at, packet->nonce, sizeof packet->nonce);
    at = put(at, packet->tag, sizeof packet->tag);
    return (size_t)(at - out);
}

int ns_wire_get_resume(const uint8_t *in, size_t have, struct ns_resume *out)
{
    struct cursor c;
    int length = begin(&c, in, have, 2, NS_PACKET_RESUME);

    if (length <= 0)
        return length;
    out->flags = take_32(&c);
    take(&c, out->session_id, sizeof out->session_id);
    out->epoch = take_64(&c);
    out->receive_offset = take_64(&c);
    take(&c, out->nonce, sizeof out->nonce);
    take(&c, out->tag, sizeof out->tag);
    return end(&c, length);
}

size_t ns_wire_put_resume_ack(uint8_t *out, const struct ns_resume_ack *packet)
{
    uint8_t *at = put_header(out, 2, NS_PACKET_RESUME_ACK);

    at = put_8(at, packet->status);
    at = put_integer(at, 0, 3);
    at = put_64(at, packet->epoch);
    at = put_64(at, packet->receive_offset);
    at = put_64(at, packet->send_offset);
    at = put(at, packet->nonce, sizeof packet->nonce);
    at = put(at, packet->tag, sizeof packet->tag);
    return (size_t)(at - out);
}

int ns_wire_get_resume_ack(const uint8_t *in, size_t have, struct ns_resume_ack *out)
{
    struct cursor c;
    int length = begin(&c, in, have, 2, NS_PACKET_RESUME_ACK);

    if (length <= 0)
        return length;
    out->status = take_8(&c);
    take_integer(&c, 3);
    out->epoch = take_64(&c);
    out->receive_offset = take_64(&c);
    out->send_offset = take_64(&c);
    take(&c, out->nonce, sizeof out->nonce);
    take(&c, out->tag, sizeof out->tag);
    return end(&c, length);
}

size_t ns_wire_put_confirm(uint8_t *out, const struct ns_confirm *packet)
{
    uint8_t *at = put_header(out, 2, NS_PACKET_CONFIRM);

    at = put_32(at, packet->flags);
    at = put_64(at, packet->receive_offset);
    at = put_64(at, packet->start_offset);
    at = put(at, packet->tag, sizeof packet->tag);
    return (size_t)(at - out);
}

int ns_wire_get_confirm(const uint8_t *in, size_t have, struct ns_confirm *out)
{
    struct cursor c;
    int length = begin(&c, in, have, 2, NS_PACKET_CONFIRM);

    if (length <= 0)
        return length;
    out->flags = take_32(&c);
    out->receive_offset = take_64(&c);
    out->start_offset = take_64(&c);
    take(&c, out->tag, sizeof out->tag);
    return end(&c, length);
}

size_t ns_wire_put_done(uint8_t *out, const struct ns_done *packet)
{
    uint8_t *at = put_header(out, 2, NS_PACKET_DONE);

    at = put_32(at, packet->flags);
    at = put_64(at, packet->receive_offset);
    at = put(at, packet->tag, sizeof packet->tag);
    return (size_t)(at - out);
}

int ns_wire_get_done(const uint8_t *in, size_t have, struct ns_done *out)
{
    struct cursor c;
    int length = begin(&c, in, have, 2, NS_PACKET_DONE);

    if (length <= 0)
        return length;
    out->flags = take_32(&c);
    out->receive_offset = take_64(&c);
    take(&c, out->tag, sizeof out->tag);
    return end(&c, length);
}

/* RFC 4291, 2.5.5.2 */
static bool address_fits_family(const struct ns_hello_address *a)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

    return a->family == 6 || (a->family == 4 && memcmp(a->address, mapped, sizeof mapped) == 0);
}

size_t ns_wire_put_hello_ack(uint8_t *out, const struct ns_hello_ack *packet)
{
    uint8_t *at = out;

    if (packet->count > NS_HELLO_ADDRESSES)
        return 0;
    for (size_t i = 0; i < packet->count; i++)
        if (!address_fits_family(&packet->addresses[i]))
            return 0;
    at = put_header(at, 2, NS_PACKET_HELLO_ACK);
    at = put_8(at, packet->highest_version);
    at = put_8(at, packet->count);
    at = put_16(at, packet->key_check);
    at = put(at, packet->instance, sizeof packet->instance);
    at = put(at, packet->public_key, sizeof packet->public_key);
    at = put_32(at, packet->park_s);
    at = put_32(at, packet->lease_s);
    for (size_t i = 0; i < packet->count; i++) {
        const struct ns_hello_address *a = &packet->addresses[i];

        at = put_8(at, a->family);
        at = put_8(at, a->scope);
        at = put_8(at, a->priority);
        at = put_8(at, 0);
        at = put(at, a->address, sizeof a->address);
    }
    return (size_t)(at - out);
}

int ns_wire_get_hello_ack(const uint8_t *in, size_t have, struct ns_hello_ack *out)
{
    struct cursor c;
    int length = begin(&c, in, have, 2, NS_PACKET_HELLO_ACK);

    if (length <= 0)
        return length;
    memset(out, 0, sizeof *out);
    out->highest_version = take_8(&c);
    out->count = take_8(&c);
    out->key_check = take_16(&c);
    take(&c, out->instance, sizeof out->instance);
    take(&c, out->public_key, sizeof out->public_key);
    out->park_s = take_32(&c);
    out->lease_s = take_32(&c);
    for (size_t i = 0; i < out->count; i++) {
        struct ns_hello_address *a = &out->addresses[i];

        a->family = take_8(&c);
        a->scope = take_8(&c);
        a->priority = take_8(&c);
        take_8(&c);
        take(&c, a->address, sizeof a->address);
        if (!address_fits_family(a))
            return -EPROTO;
    }
    return end(&c, length);
}

/* ---- version 1, thesis figure 4.3 ---- */

size_t ns_wire_put_v1_new(uint8_t *out)
{
    return (size_t)(put_header(out, 1, NS_PACKET_NEW) - out);
}

int ns_wire_get_v1_new(const uint8_t *in, size_t have)
{
    struct cursor c;

    return begin(&c, in, have, 1, NS_PACKET_NEW);
}

size_t ns_wire_put_v1_resume(uint8_t *out, const struct ns_v1_resume *packet)
{
    size_t address_bytes = packet->ipv6 ? 16 : 4;
    uint8_t *at = put_header(out, 1, packet->ipv6 ? NS_PACKET_RESUME : NS_PACKET_RESUME4);

    at = put_16(at, packet->client_port);
    at = put_16(at, packet->server_port);
    at = put(at, packet->client, address_bytes);
    at = put(at, packet->server, address_bytes);
    at = put_32(at, packet->received);
    return (size_t)(at - out);
}

int ns_wire_get_v1_resume(const uint8_t *in, size_t have, struct ns_v1_resume *out)
{
    bool ipv6 = have < NS_PACKET_BYTES_HEADER || in[3] == NS_PACKET_RESUME;
    size_t address_bytes = ipv6 ? 16 : 4;
    struct cursor c;
    int length = begin(&c, in, have, 1, ipv6 ? NS_PACKET_RESUME : NS_PACKET_RESUME4);

    if (length <= 0)
        return length;
    memset(out, 0, sizeof *out);
    out->ipv6 = ipv6;
    out->client_port = take_16(&c);
    out->server_port = take_16(&c);
    take(&c, out->client, address_bytes);
    take(&c, out->server, address_bytes);
    out->received = take_32(&c);
    return end(&c, length);
}

size_t ns_wire_put_v1_resume_ack(uint8_t *out, uint32_t received)
{
    return (size_t)(put_32(put_header(out, 1, NS_PACKET_RESUME_ACK), received) - out);
}

int ns_wire_get_v1_resume_ack(const uint8_t *in, size_t have, uint32_t *received)
{
    struct cursor c;
    int length = begin(&c, in, have, 1, NS_PACKET_RESUME_ACK);

    if (length <= 0)
        return length;
    *received = take_32(&c);
    return end(&c, length);
}
