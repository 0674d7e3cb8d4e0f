#include "engine/witness.h"

#include "engine/engine.h"
#include "engine/large.h"
#include "engine/sock.h"
#include "engine/sys.h"

#include <string.h>

#define WITNESSES_MAX 4096

/* As with estates: the first few lie on a page that is written anyway. */
#define FEW 4
struct witness {
    struct ns_estate *estate;
    struct ns_share *share;
};
static struct witness few[FEW], more[WITNESSES_MAX - FEW] NS_LARGE; /* table */
static unsigned witness_count, next_look;

static struct witness *witness(unsigned i)
{
    return i < FEW ? &few[i] : &more[i - FEW];
}

static bool held_by_others(struct ns_share *x)
{
    return ns_share_held(x, (uint32_t)ns_sys_getpid());
}

static uint64_t word_of(const struct ns_share *x)
{
    return __atomic_load_n(&x->word, __ATOMIC_SEQ_CST);
}

static void forget_witness(unsigned i)
{
    ns_estate_unwatch(witness(i)->estate);
    *witness(i) = *witness(--witness_count);
}

/* A child has made a key that dies with it. Who may be hostile can say here what it likes: it
 * costs a key that nobody asks for. */
static void learn_of_client(struct ns_share *x)
{
    uint8_t key[sizeof x->client];
    if (!__atomic_load_n(&x->met, __ATOMIC_RELAXED) || !__atomic_exchange_n(&x->met, 0, __ATOMIC_ACQUIRE))
        return;
    memcpy(key, x->client, sizeof key);
    ns_master_met(key);
}

/* A few each time, so that as many go as come. */
static void look_after_witnesses(void)
{
    for (int i = 0; i < 3 && witness_count > 0; i++) {
        unsigned at = next_look++ % witness_count;
        learn_of_client(witness(at)->share);
        if ((word_of(witness(at)->share) & NS_SHARE_PLAIN) || !held_by_others(witness(at)->share))
            forget_witness(at);
    }
}

void ns_witness_bear(struct ns_estate *e, struct ns_share *x)
{
    look_after_witnesses();
    if (word_of(x) & NS_SHARE_PLAIN) {
        ns_estate_unuse(e);
        return;
    }
    if (witness_count == WITNESSES_MAX)
        forget_witness(next_look++ % WITNESSES_MAX);
    ns_estate_watch(e);
    *witness(witness_count++) = (struct witness){ e, x };
}

static enum ns_route route(struct ns_share *x, const uint8_t id[16], uint8_t mailbox[16])
{
    uint64_t word = word_of(x);
    if (word & NS_SHARE_PLAIN)
        return NS_ROUTE_NONE;
    if (!__atomic_load_n(&x->named, __ATOMIC_SEQ_CST))
        return held_by_others(x) ? NS_ROUTE_LATER : NS_ROUTE_NONE;
    if (memcmp(x->id, id, sizeof x->id) != 0)
        return NS_ROUTE_NONE;
    if ((word & NS_SHARE_OWNER) == 0 || !__atomic_load_n(&x->addressed, __ATOMIC_SEQ_CST))
        return NS_ROUTE_LATER;
    memcpy(mailbox, x->mailbox, sizeof x->mailbox);
    return NS_ROUTE_THERE;
}

/* What sleeps over an exec has no share where no other process ever had it. */
static enum ns_route route_of(const struct ns_sock *s, const uint8_t id[16], uint8_t mailbox[16])
{
    if (s->session.role != NS_SERVER)
        return NS_ROUTE_NONE;
    if (s->kept)
        return memcmp(s->session.id, id, sizeof s->session.id) == 0 ? NS_ROUTE_LATER : NS_ROUTE_NONE;
    return route(s->share, id, mailbox);
}

/* When all who had it have ended, the session has. */
static enum ns_route route_by(const struct witness *w, const uint8_t id[16], uint8_t mailbox[16])
{
    enum ns_route r = route(w->share, id, mailbox);
    return r != NS_ROUTE_NONE && held_by_others(w->share) ? r : NS_ROUTE_NONE;
}

enum ns_route ns_witness_find(const uint8_t id[16], uint8_t mailbox[16])
{
    enum ns_route best = NS_ROUTE_NONE;
    for (struct ns_object *o = ns_objects; o && best != NS_ROUTE_THERE; o = o->next) {
        enum ns_route r =
            o->kind == NS_KIND_DORMANT ? route_of((struct ns_sock *)o, id, mailbox) : NS_ROUTE_NONE;
        best = r > best ? r : best;
    }
    for (unsigned i = 0; i < witness_count && best != NS_ROUTE_THERE; i++) {
        enum ns_route r = route_by(witness(i), id, mailbox);
        best = r > best ? r : best;
    }
    return best;
}
