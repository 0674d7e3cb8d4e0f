/*
 * What holds for any bytes at all that a peer may send: no reader reads past
 * them, all readers agree with ns_wire_length, what is read is written back the
 * same, and what is refused or unfinished stays so.
 *
 * Built with -Dfuzzing=true and clang:
 *     fuzz_packet -dict=tests/fuzz/packet.dict NEW_CORPUS tests/corpus/packet
 * check_wire runs the stored corpus through the same function.
 */
#include "../packets.h"

#include "core/auth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* assert() that no build type leaves out */
#define HOLDS(condition)                                                                   \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

/* Exactly `bytes` on the heap, so that AddressSanitizer sees a step beyond. */
static uint8_t *exactly(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);

    HOLDS(copy);
    if (data && bytes)
        memcpy(copy, data, bytes);
    return bytes ? copy : copy + 1;
}

static void give_back(uint8_t *copy, size_t bytes)
{
    free(bytes ? copy : copy - 1);
}

/* What ns_wire_length makes of ever more bytes: "more", then one answer for good. */
static int length_of(const uint8_t *data, size_t size)
{
    size_t longest = size < NS_PACKET_BYTES_MAX + 1 ? size : NS_PACKET_BYTES_MAX + 1;
    int before = 0;

    for (size_t have = 0; have <= longest; have++) {
        uint8_t *in = exactly(data, have);
        int now = ns_wire_length(in, have);

        HOLDS(now == -EPROTO || (now >= 0 && now <= NS_PACKET_BYTES_MAX));
        HOLDS(before == 0 || now == before);
        HOLDS(have < NS_PACKET_BYTES_HEADER + 2 || now != 0);
        before = now;
        give_back(in, have);
    }
    return before;
}

/* What was read can be written, in as many bytes, and reads as the same again. */
static void round_trip(const struct ns_packet_format *f, const union ns_any_packet *packet, size_t length)
{
    union ns_any_packet again;
    uint8_t *out = exactly(NULL, length);

    HOLDS(f->put(out, packet) == length);
    memset(&again, 0, sizeof again);
    HOLDS(f->get(out, length, &again) == (int)length);
    HOLDS(memcmp(&again, packet, sizeof again) == 0);
    give_back(out, length);
}

/* `length` is what ns_wire_length says of the same bytes. */
static void read_as(const struct ns_packet_format *f, const uint8_t *data, size_t size, int length)
{
    bool known = size >= NS_PACKET_BYTES_HEADER;
    bool whole = length > 0 && (size_t)length <= size;
    union ns_any_packet packet;
    uint8_t *in = exactly(data, size);
    int result;

    memset(&packet, 0, sizeof packet);
    result = f->get(in, size, &packet);
    if (length < 0 || (known && (data[2] != f->version || !(f->types >> data[3] & 1))))
        HOLDS(result == -EPROTO);
    else if (known && !whole)
        HOLDS(result == 0);
    else if (!known)
        HOLDS(result == 0 || result == -EPROTO);
    else if (result != -EPROTO || f->types != 1U << NS_PACKET_HELLO_ACK) /* whose addresses may be bad */
        HOLDS(result == length);
    if (result > 0)
        round_trip(f, &packet, (size_t)result);
    give_back(in, size);
}

/* A packet is signed and verified as it stands, and no bit of it can change. */
static void sign(const uint8_t *data, size_t size, size_t length)
{
    const uint8_t *key = data, *nonce = data[size - 1] & 1 ? data : NULL;
    uint8_t *packet = exactly(data, length);
    size_t bit = (size_t)data[size - 1] * 251 % (length * 8);

    ns_auth_sign(packet, length, key, nonce);
    HOLDS(ns_auth_verify(key, nonce, packet, length));
    packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
    HOLDS(!ns_auth_verify(key, nonce, packet, length));
    give_back(packet, length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int length = length_of(data, size);

    for (const struct ns_packet_format *f = ns_packet_formats; f->name; f++)
        read_as(f, data, size, length);
    if (length >= 32 && (size_t)length <= size)
        sign(data, size, (size_t)length);
    return 0;
}
