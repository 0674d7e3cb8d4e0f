/* Every kind of packet behind one pair of functions, for what is tested of all. */
#ifndef NS_TESTS_PACKETS_H
#define NS_TESTS_PACKETS_H

#include "core/wire.h"

#define NS_PACKET_FIELDS 7

union ns_any_packet {
    struct ns_new new;
    struct ns_resume resume;
    struct ns_resume_ack resume_ack;
    struct ns_confirm confirm;
    struct ns_done done;
    struct ns_hello_ack hello_ack;
    struct ns_v1_resume v1_resume;
    uint32_t received; /* version 1's RESUME_ACK */
};

/* A member of the struct that is one field of the packet. */
struct ns_packet_field {
    const char *name;
    size_t offset, bytes;
    bool number;
};

struct ns_packet_format {
    const char *name; /* as in tests/vectors */
    uint8_t version;
    unsigned types; /* that the reader takes: 1 << type */
    size_t bytes;   /* without addresses */
    size_t (*put)(uint8_t *out, const union ns_any_packet *packet);
    int (*get)(const uint8_t *in, size_t have, union ns_any_packet *packet);
    struct ns_packet_field fields[NS_PACKET_FIELDS];
};

/* Ends with a NULL name. */
extern const struct ns_packet_format ns_packet_formats[];

#endif
