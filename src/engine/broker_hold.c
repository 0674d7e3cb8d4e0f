/* Telling the broker what this process holds. */
#include "engine/broker_link.h"
#include "engine/engine.h"
#include "engine/sock.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <string.h>
#include <time.h>

/* What has been told since everything had to be told has this number. */
static uint32_t telling = 1;
static bool behind;       /* not all of it has been told */
static bool reporting;    /* and the broker waits for the end of it, */
static uint32_t question; /* by this serial */

static void put_end(struct ns_message_end *out, const struct sockaddr *sa, socklen_t len)
{
    struct ns_address a;
    if (ns_address_from_sockaddr(&a, &out->port, sa, len) < 0)
        return;
    if (a.family == AF_INET6) {
        memcpy(out->address, a.bytes, 16);
    } else {
        memset(out->address + 10, 0xff, 2);
        memcpy(out->address + 12, a.bytes, 4);
    }
}

/* The pair in use; between connections the one that the application knows. */
static void describe_end(struct ns_message_end *out, int fd, const struct ns_name *known,
                         int (*ask)(int, struct sockaddr *, socklen_t *))
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    if (fd >= 0 && ask(fd, (struct sockaddr *)&ss, &len) == 0)
        put_end(out, (struct sockaddr *)&ss, len);
    else if (known->length)
        put_end(out, (const struct sockaddr *)&known->address, known->length);
}

/* What somebody else who has the session's keys can say too, and nobody who has not. */
static void prove(const struct ns_session *s, uint8_t out[16])
{
    uint8_t text[16 + NS_TAG_BYTES] = "broker's proof";
    ns_auth_tag(out, s->keys.s2c, s->id, text, sizeof text);
}

/* Table held. */
static bool tell(struct ns_sock *s)
{
    struct ns_message m = { .type = NS_MESSAGE_SESSION };
    int fd = s->o.fd >= 0 ? s->o.fd : s->linger_fd;
    if (s->established_s == 0)
        s->established_s = (uint64_t)time(NULL);
    m.session.received = ns_swap_received(s);
    m.session.established_s = s->established_s;
    m.session.resumes = s->resumes;
    m.session.inherited = s->inherited;
    memcpy(m.session.name, s->name, sizeof m.session.name);
    ns_lock(&s->tx);
    m.role = s->session.role == NS_SERVER ? NS_MESSAGE_SERVER : NS_MESSAGE_CLIENT;
    memcpy(m.id, s->session.id, sizeof m.id);
    m.session.state = (uint8_t)s->session.state;
    m.session.sent = s->session.ring.head;
    prove(&s->session, m.session.proof);
    ns_unlock(&s->tx);
    describe_end(&m.session.local, fd, &s->local, ns_sys_getsockname);
    describe_end(&m.session.peer, fd, &s->peer, ns_sys_getpeername);
    if (!ns_broker_send(&m, -1))
        return false;
    s->told = telling;
    return true;
}

/* Version 1's sessions have no id to be found by. */
static bool to_be_told(const struct ns_object *o)
{
    const struct ns_sock *s = (const struct ns_sock *)o;
    return o->kind == NS_KIND_SOCK && ns_session_protected(&s->session) && s->session.version == 2;
}

void ns_broker_hold(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_broker_look(ns_now());
    if (!ns_broker_connected())
        return;
    ns_table_hold(&hold);
    if (to_be_told(&s->o) && (behind || !ns_broker_roomy() || !tell(s)))
        behind = true;
    ns_table_unhold(&hold);
}

void ns_broker_let_go(const uint8_t id[16], enum ns_message_role role)
{
    struct ns_message m = { .type = NS_MESSAGE_GONE, .role = role };
    memcpy(m.id, id, sizeof m.id);
    ns_broker_send(&m, -1); /* or it is missing in the next report */
}

void ns_broker_freed(struct ns_sock *s)
{
    if (s->told == telling && ns_broker_connected())
        ns_broker_let_go(s->session.id, s->session.role == NS_SERVER ? NS_MESSAGE_SERVER : NS_MESSAGE_CLIENT);
}

void ns_hold_more(void)
{
    struct ns_hold hold;
    struct ns_object *o;
    if (!behind || !ns_broker_connected())
        return;
    ns_table_hold(&hold);
    for (o = ns_objects; o; o = o->next) {
        if (!to_be_told(o) || ((struct ns_sock *)o)->told == telling)
            continue;
        if (!ns_broker_roomy() || !tell((struct ns_sock *)o))
            break;
    }
    ns_table_unhold(&hold);
    behind = o != NULL;
    if (behind || !reporting)
        return;
    reporting = false;
    ns_broker_acknowledge(question, 0);
}

void ns_hold_tell_all(void)
{
    telling++;
    behind = true;
    reporting = false;
    ns_hold_more();
}

void ns_hold_report(uint32_t serial)
{
    telling++;
    behind = reporting = true;
    question = serial;
    ns_hold_more();
}
