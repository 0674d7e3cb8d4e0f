/* What was asked of the broker and not answered yet. */
#include "engine/broker_link.h"
#include "engine/engine.h"
#include "engine/large.h"
#include "engine/thread.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define QUESTIONS 128

/* Longer than the broker takes to say that it knows no answer. */
#define PATIENCE_MS 2500

static struct question {
    bool used;
    uint32_t serial;
    ns_broker_answered *answered; /* an offer, or: */
    ns_tell_over *over;           /* a message; may be NULL */
    void *ctx;
    struct ns_timer timer;
} questions[QUESTIONS] NS_LARGE;
static uint32_t next_serial;
static struct question *end = questions; /* from here on none was ever used */

static void settle(struct question *q, int32_t status, uint32_t count, struct ns_time now)
{
    struct question was = *q;
    ns_timer_clear(&q->timer);
    q->used = false;
    if (was.answered)
        was.answered(was.ctx,
                     status == NS_MESSAGE_TAKEN     ? NS_BROKER_TAKEN
                     : status == NS_MESSAGE_UNKNOWN ? NS_BROKER_UNKNOWN
                     : status == NS_MESSAGE_LATER   ? NS_BROKER_LATER
                                                    : NS_BROKER_PERHAPS,
                     now);
    else if (was.over)
        was.over(was.ctx, count, status, now);
}

static void expired(struct ns_timer *timer, struct ns_time now)
{
    struct question *q = (struct question *)((char *)timer - offsetof(struct question, timer));
    settle(q, q->answered ? NS_MESSAGE_PERHAPS : -ETIMEDOUT, 0, now);
}

/* Asks; NULL when that cannot be done. */
static struct question *ask(struct ns_message *m, int fd)
{
    struct question *q = questions;
    while (q < questions + QUESTIONS && q->used)
        q++;
    if (q == questions + QUESTIONS)
        return NULL;
    m->serial = ++next_serial;
    if (!ns_broker_send(m, fd))
        return NULL;
    if (q >= end)
        end = q + 1;
    *q = (struct question){ .used = true, .serial = m->serial, .timer = { .fire = expired } };
    ns_timer_set(&q->timer, ns_time_add(ns_now(), ns_time_ms(PATIENCE_MS)));
    return q;
}

bool ns_broker_offer(const uint8_t id[16], int fd, const uint8_t *read, size_t bytes,
                     ns_broker_answered *answered, void *ctx)
{
    struct ns_message m = { .type = NS_MESSAGE_RESUME, .role = NS_MESSAGE_SERVER };
    if (bytes > NS_MESSAGE_READ_BYTES)
        return false;
    memcpy(m.id, id, sizeof m.id);
    m.payload.bytes = (uint16_t)bytes;
    memcpy(m.payload.data, read, bytes);
    struct question *q = ask(&m, fd);
    if (!q)
        return false;
    q->answered = answered;
    q->ctx = ctx;
    return true;
}

void ns_broker_withdraw(void *ctx)
{
    for (struct question *q = questions; q < questions + QUESTIONS; q++)
        if (q->used && q->answered && q->ctx == ctx) {
            ns_timer_clear(&q->timer);
            q->used = false;
        }
}

int ns_broker_tell(const uint8_t id[16], enum ns_message_role role, enum ns_tell_kind kind,
                   const void *payload, size_t bytes, int fd, ns_tell_over *over, void *ctx)
{
    struct ns_message m = { .type = NS_MESSAGE_TELL, .role = role };
    if (!ns_broker_connected())
        return -ENOTCONN;
    if (bytes > NS_MESSAGE_TELL_BYTES)
        return -EMSGSIZE;
    memcpy(m.id, id, sizeof m.id);
    m.payload.kind = (uint8_t)kind;
    m.payload.bytes = (uint16_t)bytes;
    if (bytes)
        memcpy(m.payload.data, payload, bytes);
    struct question *q = ask(&m, fd);
    if (!q)
        return -ENOBUFS;
    q->over = over;
    q->ctx = ctx;
    return 0;
}

void ns_ask_answered(const struct ns_message *m, struct ns_time now)
{
    for (struct question *q = questions; q < questions + QUESTIONS; q++)
        if (q->used && q->serial == m->serial) {
            settle(q, m->status, m->count, now);
            return;
        }
}

void ns_ask_lost(struct ns_time now)
{
    for (struct question *q = questions; q < questions + QUESTIONS; q++)
        if (q->used)
            settle(q, q->answered ? NS_MESSAGE_PERHAPS : -ENOTCONN, 0, now);
}

NS_EACH_FORK void ns_ask_reset(void)
{
    for (struct question *q = questions; q < end; q++)
        *q = (struct question){ 0 };
}
