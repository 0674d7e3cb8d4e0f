#include "core/message.h"

#include "core/cursor.h"
#include "core/session.h"

#include <sys/socket.h>

#define FLAG_INHERITED 1

/* ---- writing ---- */

/* A length in front, no NUL. */
static uint8_t *put_string(uint8_t *out, const char *text, size_t room)
{
    size_t bytes = strnlen(text, room - 1);

    return put(put_16(out, (uint16_t)bytes), text, bytes);
}

static uint8_t *put_end(uint8_t *out, const struct ns_message_end *e)
{
    return put_16(put(out, e->address, sizeof e->address), e->port);
}

static uint8_t *put_session(uint8_t *out, const struct ns_message_session *s)
{
    out = put(out, s->proof, sizeof s->proof);
    out = put_8(out, s->inherited ? FLAG_INHERITED : 0);
    out = put_8(out, s->state);
    out = put_end(put_end(out, &s->local), &s->peer);
    out = put_64(put_64(put_64(out, s->established_s), s->sent), s->received);
    return put_string(put_32(out, s->resumes), s->name, sizeof s->name);
}

static uint8_t *put_data(uint8_t *out, const struct ns_message *m)
{
    size_t most = m->type == NS_MESSAGE_TELL ? NS_MESSAGE_TELL_BYTES : NS_MESSAGE_READ_BYTES;
    size_t bytes = m->payload.bytes < most ? m->payload.bytes : most;

    return put(put_16(put_8(out, m->payload.kind), (uint16_t)bytes), m->payload.data, bytes);
}

size_t ns_message_put(uint8_t out[NS_MESSAGE_BYTES_MAX], const struct ns_message *m)
{
    uint8_t *at = put_8(put_8(put_16(out, NS_MESSAGE_MAGIC), NS_MESSAGE_VERSION), (uint8_t)m->type);

    at = put_8(at, (uint8_t)m->role);
    at = put(put_32(put_32(at, m->serial), (uint32_t)m->status), m->id, sizeof m->id);
    switch (m->type) {
    case NS_MESSAGE_JOIN:
        at = put_string(at, m->program, sizeof m->program);
        break;
    case NS_MESSAGE_SESSION:
        at = put_session(at, &m->session);
        break;
    case NS_MESSAGE_HOLDER:
        at = put_32(put_32(at, m->holder.pid), m->holder.uid);
        at = put_string(at, m->holder.program, sizeof m->holder.program);
        break;
    case NS_MESSAGE_RESUME:
    case NS_MESSAGE_TELL:
        at = put_data(at, m);
        break;
    case NS_MESSAGE_ANSWER:
        at = put_32(at, m->count);
        break;
    default:
        break;
    }
    return (size_t)(at - out);
}

/* ---- reading ---- */

/* Also refuses a NUL inside: what is written back must be what came. */
static void take_string(struct cursor *c, char *out, size_t room)
{
    size_t bytes = take_16(c);

    if (bytes >= room) {
        c->overrun = true;
        bytes = 0;
    }
    take(c, out, bytes);
    out[bytes] = '\0';
    if (strlen(out) != bytes)
        c->overrun = true;
}

static void take_end(struct cursor *c, struct ns_message_end *e)
{
    take(c, e->address, sizeof e->address);
    e->port = take_16(c);
}

static void take_session(struct cursor *c, struct ns_message_session *s)
{
    uint8_t flags;

    take(c, s->proof, sizeof s->proof);
    flags = take_8(c);
    s->inherited = flags & FLAG_INHERITED;
    s->state = take_8(c);
    take_end(c, &s->local);
    take_end(c, &s->peer);
    s->established_s = take_64(c);
    s->sent = take_64(c);
    s->received = take_64(c);
    s->resumes = take_32(c);
    take_string(c, s->name, sizeof s->name);
    if (s->state >= NS_STATES || (flags & ~FLAG_INHERITED))
        c->overrun = true;
}

static void take_data(struct cursor *c, struct ns_message *m)
{
    size_t most = m->type == NS_MESSAGE_TELL ? NS_MESSAGE_TELL_BYTES : NS_MESSAGE_READ_BYTES;

    m->payload.kind = take_8(c);
    m->payload.bytes = take_16(c);
    if (m->payload.bytes > most) {
        c->overrun = true;
        m->payload.bytes = 0;
    }
    take(c, m->payload.data, m->payload.bytes);
}

static void take_body(struct cursor *c, struct ns_message *m)
{
    switch (m->type) {
    case NS_MESSAGE_JOIN:
        take_string(c, m->program, sizeof m->program);
        break;
    case NS_MESSAGE_SESSION:
        take_session(c, &m->session);
        break;
    case NS_MESSAGE_HOLDER:
        m->holder.pid = take_32(c);
        m->holder.uid = take_32(c);
        take_string(c, m->holder.program, sizeof m->holder.program);
        break;
    case NS_MESSAGE_RESUME:
    case NS_MESSAGE_TELL:
        take_data(c, m);
        break;
    case NS_MESSAGE_ANSWER:
        m->count = take_32(c);
        break;
    default:
        break;
    }
}

bool ns_message_get(const uint8_t *in, size_t bytes, struct ns_message *m)
{
    struct cursor c = { .at = in, .left = bytes };

    if (take_16(&c) != NS_MESSAGE_MAGIC || take_8(&c) != NS_MESSAGE_VERSION)
        return false;
    uint8_t type = take_8(&c), role = take_8(&c);
    m->type = (enum ns_message_type)type;
    m->role = (enum ns_message_role)role;
    m->serial = take_32(&c);
    m->status = (int32_t)take_32(&c);
    take(&c, m->id, sizeof m->id);
    if (c.overrun || type < NS_MESSAGE_JOIN || type >= NS_MESSAGE_TYPES || role >= NS_MESSAGE_ROLES)
        return false;
    take_body(&c, m);
    return !c.overrun && c.left == 0;
}

socklen_t ns_message_address(struct sockaddr_un *out, const char *text)
{
    size_t len = strlen(text);

    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    if (len < 2 || len > NS_MESSAGE_ADDRESS_MAX || (*text != '@' && *text != '/'))
        return 0;
    memcpy(out->sun_path, text, len);
    if (*text == '/')
        return (socklen_t)sizeof *out;
    out->sun_path[0] = '\0'; /* unix(7): then every byte counts */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}
