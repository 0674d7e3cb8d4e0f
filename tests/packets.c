#include "packets.h"

#define PAIR(x)                                                                     \
    static size_t put_##x(uint8_t *out, const union ns_any_packet *packet)          \
    {                                                                               \
        return ns_wire_put_##x(out, &packet->x);                                    \
    }                                                                               \
    static int get_##x(const uint8_t *in, size_t have, union ns_any_packet *packet) \
    {                                                                               \
        return ns_wire_get_##x(in, have, &packet->x);                               \
    }

PAIR(new)
PAIR(resume)
PAIR(resume_ack)
PAIR(confirm)
PAIR(done)
PAIR(hello_ack)
PAIR(v1_resume)

static size_t put_v1_new(uint8_t *out, const union ns_any_packet *packet)
{
    return ns_wire_put_v1_new(out);
}

static int get_v1_new(const uint8_t *in, size_t have, union ns_any_packet *packet)
{
    return ns_wire_get_v1_new(in, have);
}

static size_t put_v1_resume_ack(uint8_t *out, const union ns_any_packet *packet)
{
    return ns_wire_put_v1_resume_ack(out, packet->received);
}

static int get_v1_resume_ack(const uint8_t *in, size_t have, union ns_any_packet *packet)
{
    return ns_wire_get_v1_resume_ack(in, have, &packet->received);
}

/* clang-format off */
#define AT(x, member)      offsetof(union ns_any_packet, x.member), sizeof(((union ns_any_packet *)0)->x.member)
#define NUMBER(x, member)  { #member, AT(x, member), true }
#define BYTES(x, member)   { #member, AT(x, member), false }
#define TYPE(TYPE)         (1U << NS_PACKET_##TYPE)
#define V2(x, NAME)        #x, 2, TYPE(NAME), NS_PACKET_BYTES_##NAME, put_##x, get_##x
#define V1(x, TYPES, NAME) 1, TYPES, NS_V1_BYTES_##NAME, put_##x, get_##x

#define V1_RESUME_TYPES  (TYPE(RESUME) | TYPE(RESUME4))
#define V1_RESUME_FIELDS                                                              \
    { NUMBER(v1_resume, client_port), NUMBER(v1_resume, server_port),                 \
      BYTES(v1_resume, client), BYTES(v1_resume, server), NUMBER(v1_resume, received) }

const struct ns_packet_format ns_packet_formats[] = {
    { V2(new, NEW),
      { NUMBER(new, flags), BYTES(new, session_id), BYTES(new, client_key), BYTES(new, instance8),
        BYTES(new, tag) } },
    { V2(resume, RESUME),
      { NUMBER(resume, flags), BYTES(resume, session_id), NUMBER(resume, epoch),
        NUMBER(resume, receive_offset), BYTES(resume, nonce), BYTES(resume, tag) } },
    { V2(resume_ack, RESUME_ACK),
      { NUMBER(resume_ack, status), NUMBER(resume_ack, epoch), NUMBER(resume_ack, receive_offset),
        NUMBER(resume_ack, send_offset), BYTES(resume_ack, nonce), BYTES(resume_ack, tag) } },
    { V2(confirm, CONFIRM),
      { NUMBER(confirm, flags), NUMBER(confirm, receive_offset), NUMBER(confirm, start_offset),
        BYTES(confirm, tag) } },
    { V2(done, DONE),
      { NUMBER(done, flags), NUMBER(done, receive_offset), BYTES(done, tag) } },
    { V2(hello_ack, HELLO_ACK),
      { NUMBER(hello_ack, highest_version), NUMBER(hello_ack, count), NUMBER(hello_ack, key_check),
        BYTES(hello_ack, instance),
        BYTES(hello_ack, public_key), NUMBER(hello_ack, park_s), NUMBER(hello_ack, lease_s) } },
    { "v1_new", V1(v1_new, TYPE(NEW), NEW), {} },
    { "v1_resume6", V1(v1_resume, V1_RESUME_TYPES, RESUME6), V1_RESUME_FIELDS },
    { "v1_resume4", V1(v1_resume, V1_RESUME_TYPES, RESUME4), V1_RESUME_FIELDS },
    { "v1_resume_ack", V1(v1_resume_ack, TYPE(RESUME_ACK), RESUME_ACK),
      { { "received", offsetof(union ns_any_packet, received), sizeof(uint32_t), true } } },
    {},
};
