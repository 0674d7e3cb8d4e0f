/*
 * Packets in and out (docs/protocol.md; version 1 is thesis 4.2.3, figure 4.3).
 *
 * Pure and without state: every function may be called from any thread and from
 * a signal handler. Nothing is kept; all memory is the caller's. Integers in the
 * structs are in host order, on the wire they are big endian. IP addresses are
 * bytes in network order.
 *
 * The tags are only carried here. They cover a packet's bytes as they came, so
 * check them on those (core/auth.h), never on bytes written again from a struct.
 */
#ifndef NS_CORE_WIRE_H
#define NS_CORE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_WIRE_MAGIC 0x4E53 /* "NS" */

/* magic 16, version 8, type 8: in front of every packet of either version */
#define NS_PACKET_BYTES_HEADER 4

#define NS_PACKET_BYTES_NEW        80
#define NS_PACKET_BYTES_RESUME     72
#define NS_PACKET_BYTES_RESUME_ACK 64
#define NS_PACKET_BYTES_CONFIRM    40
#define NS_PACKET_BYTES_DONE       32
#define NS_PACKET_BYTES_HELLO_ACK  64 /* and 20 for each address */

#define NS_HELLO_ADDRESS_BYTES 20
#define NS_HELLO_ADDRESSES     16 /* at most */
#define NS_PACKET_BYTES_MAX    (NS_PACKET_BYTES_HELLO_ACK + NS_HELLO_ADDRESS_BYTES * NS_HELLO_ADDRESSES)

#define NS_V1_BYTES_NEW        4
#define NS_V1_BYTES_RESUME6    44
#define NS_V1_BYTES_RESUME4    20
#define NS_V1_BYTES_RESUME_ACK 8

/* 1 to 4 are version 1's, all but 4 are version 2's. */
enum ns_packet_type {
    NS_PACKET_NEW = 1,
    NS_PACKET_RESUME = 2, /* version 1: of an IPv6 connection */
    NS_PACKET_RESUME_ACK = 3,
    NS_PACKET_RESUME4 = 4, /* version 1 only */
    NS_PACKET_CONFIRM = 5,
    NS_PACKET_DONE = 6,
    NS_PACKET_HELLO_ACK = 7,
};

/* The status of a RESUME_ACK. */
enum ns_refusal {
    NS_GO_ON = 0,
    NS_REFUSED_UNKNOWN = 1, /* unknown session, or bad tag */
    NS_REFUSED_GAP = 2,     /* an offset that was never sent */
    NS_REFUSED_EPOCH = 3,   /* the epoch did not rise */
    NS_REFUSED_LATER = 4,   /* try later */
};

struct ns_new {
    uint32_t flags;
    uint8_t session_id[16];
    uint8_t client_key[32]; /* X25519 public key */
    uint8_t instance8[8];   /* the first 8 bytes of the server's instance id */
    uint8_t tag[16];
};

struct ns_resume {
    uint32_t flags;
    uint8_t session_id[16];
    uint64_t epoch, receive_offset;
    uint8_t nonce[16], tag[16];
};

struct ns_resume_ack {
    uint8_t status; /* enum ns_refusal; values that it does not name are passed up as they came */
    uint64_t epoch, receive_offset, send_offset;
    uint8_t nonce[16]; /* in a refusal: the refuser's instance id */
    uint8_t tag[16];   /* in a refusal: zero */
};

struct ns_confirm {
    uint32_t flags;
    uint64_t receive_offset, start_offset;
    uint8_t tag[16];
};

struct ns_done {
    uint32_t flags;
    uint64_t receive_offset;
    uint8_t tag[16];
};

struct ns_hello_address {
    uint8_t family; /* 4 or 6 */
    uint8_t scope, priority;
    uint8_t address[16]; /* family 4: ::ffff:a.b.c.d */
};

struct ns_hello_ack {
    uint8_t highest_version, count;
    uint16_t key_check; /* auth.h */
    uint8_t instance[16], public_key[32];
    uint32_t park_s, lease_s;
    struct ns_hello_address addresses[NS_HELLO_ADDRESSES];
};

/* Version 1: RESUME, type 2 when `ipv6` and type 4 otherwise. The quadruple is
 * that of the connection before. Without `ipv6`, an address is the first 4 bytes. */
struct ns_v1_resume {
    bool ipv6;
    uint16_t client_port, server_port;
    uint8_t client[16], server[16];
    uint32_t received;
};

/*
 * The length of the whole packet, of either version, that begins at `in`, of
 * which `have` bytes are there. 0 when they are too few to tell but fit so far
 * (a header, and in HELLO_ACK the address count). -EPROTO when this is no packet
 * of ours: wrong magic, unknown version, a type that the version does not have,
 * too many addresses; found at the first byte that does not fit. Once the header
 * has passed, in[2] is the version and in[3] the type.
 */
int ns_wire_length(const uint8_t *in, size_t have);

/*
 * ns_wire_put_x writes packet x of version 2 to `out`, which is big enough
 * (NS_PACKET_BYTES_X; NS_PACKET_BYTES_MAX for HELLO_ACK), and returns its bytes.
 * Reserved fields are written as zero. The tag is written as it is in the
 * struct: leave it zero and let ns_auth_sign fill it in.
 *
 * ns_wire_get_x reads one packet x of version 2 from the `have` bytes at `in`.
 * Returns the bytes that it took, 0 when more are needed (nothing in `*out`
 * means anything then), or -EPROTO when the bytes, even if few, are not the
 * beginning of such a packet. What follows the packet is not looked at: it is
 * the stream. Flags are passed up as they came, reserved fields ignored.
 */
size_t ns_wire_put_new(uint8_t *out, const struct ns_new *packet);
size_t ns_wire_put_resume(uint8_t *out, const struct ns_resume *packet);
size_t ns_wire_put_resume_ack(uint8_t *out, const struct ns_resume_ack *packet);
size_t ns_wire_put_confirm(uint8_t *out, const struct ns_confirm *packet);
size_t ns_wire_put_done(uint8_t *out, const struct ns_done *packet);

int ns_wire_get_new(const uint8_t *in, size_t have, struct ns_new *out);
int ns_wire_get_resume(const uint8_t *in, size_t have, struct ns_resume *out);
int ns_wire_get_resume_ack(const uint8_t *in, size_t have, struct ns_resume_ack *out);
int ns_wire_get_confirm(const uint8_t *in, size_t have, struct ns_confirm *out);
int ns_wire_get_done(const uint8_t *in, size_t have, struct ns_done *out);

/*
 * HELLO_ACK, as above. An address whose family is neither 4 nor 6, or is 4 while
 * the address is not ::ffff:a.b.c.d, is -EPROTO to get. put returns 0 and writes
 * nothing for such an address or a count over NS_HELLO_ADDRESSES.
 */
size_t ns_wire_put_hello_ack(uint8_t *out, const struct ns_hello_ack *packet);
int ns_wire_get_hello_ack(const uint8_t *in, size_t have, struct ns_hello_ack *out);

/* The packets of version 1, as above. `received` is the 32-bit counter, which
 * wraps. The put functions write NS_V1_BYTES_X bytes. */
size_t ns_wire_put_v1_new(uint8_t *out);
size_t ns_wire_put_v1_resume(uint8_t *out, const struct ns_v1_resume *packet);
size_t ns_wire_put_v1_resume_ack(uint8_t *out, uint32_t received);

int ns_wire_get_v1_new(const uint8_t *in, size_t have);
int ns_wire_get_v1_resume(const uint8_t *in, size_t have, struct ns_v1_resume *out);
int ns_wire_get_v1_resume_ack(const uint8_t *in, size_t have, uint32_t *received);

#endif
