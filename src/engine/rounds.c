#include "engine/large.h"
#include "engine/recovery.h"

#include "engine/end.h"
#include "engine/engine.h"
#include "engine/link.h"
#include "engine/lookup.h"
#include "engine/resume.h"

#include <errno.h>
#include <string.h>

#define LOCALS_MAX   64
#define ROUND_MAX_MS 4000
#define STRANGE_MS   1500 /* five rounds, where refusals come at once */

static size_t add_destination(struct ns_address *list, size_t n, const struct ns_address *a)
{
    for (size_t i = 0; i < n; i++)
        if (ns_address_equal(&list[i], a))
            return n;
    if (n < NS_DESTINATIONS_MAX)
        list[n++] = *a;
    return n;
}

static void given_address(const struct ns_hello_address *h, struct ns_address *out)
{
    *out = (struct ns_address){ .family = h->family == 4 ? AF_INET : AF_INET6 };
    if (h->family == 4)
        memcpy(out->bytes, h->address + 12, 4);
    else
        memcpy(out->bytes, h->address, 16);
}

static bool covers(const struct ns_local *l, const struct ns_address *a)
{
    if (l->address.family != a->family)
        return false;
    for (unsigned bit = 0; bit < l->prefix_length; bit++)
        if ((l->address.bytes[bit / 8] ^ a->bytes[bit / 8]) & 0x80 >> bit % 8)
            return false;
    return true;
}

/*
 * Whether a pair is worth trying early (0), late (2) or as it comes (1). Both
 * ends on one link that works: early. A destination on a link without carrier:
 * late, whatever the source, since the route may lead there still. Thesis 5.1.1
 * matches by prefix for the same reason.
 */
static int lateness(const struct ns_pair *pair, const struct ns_local *locals, size_t n)
{
    int rank = 1;
    for (size_t i = 0; i < n; i++) {
        if (!covers(&locals[i], &pair->destination))
            continue;
        if (!locals[i].carrier && !locals[i].loopback)
            return 2;
        if (ns_address_equal(&locals[i].address, &pair->source))
            rank = 0;
    }
    return rank;
}

/* Stable: within a rank the order stays that of RFC 6724. The failing pair
 * stays last. */
static void links_first(struct ns_recovery *r, const struct ns_local *locals, size_t n)
{
    static struct ns_pair sorted[NS_PAIRS_MAX] NS_LARGE;
    size_t count = 0;
    for (int rank = 0; rank <= 2; rank++)
        for (size_t i = 0; i < r->pair_count; i++) {
            const struct ns_pair *p = &r->pairs[i];
            int own = ns_same_pair(p, &r->sock->pair) ? 2 : lateness(p, locals, n);
            if (own == rank)
                sorted[count++] = *p;
        }
    memcpy(r->pairs, sorted, count * sizeof *sorted);
}

static void make_pairs(struct ns_recovery *r)
{
    static struct ns_local locals[LOCALS_MAX] NS_LARGE;
    struct ns_address to[NS_DESTINATIONS_MAX];
    struct ns_sock *s = r->sock;
    size_t n = 0;
    /* What the name says now comes before what was true once. */
    for (size_t i = 0; i < r->found_count; i++)
        n = add_destination(to, n, &r->found[i]);
    n = add_destination(to, n, &s->pair.destination);
    for (uint8_t i = 0; i < s->given_count; i++) {
        struct ns_address a;
        given_address(&s->given[i], &a);
        n = add_destination(to, n, &a);
    }
    ssize_t l = ns_link_addresses(locals, LOCALS_MAX);
    r->pair_count = l > 0 ? ns_path_pairs(locals, (size_t)l, to, n, &s->pair, r->pairs, NS_PAIRS_MAX) : 0;
    if (l > 0)
        links_first(r, locals, (size_t)l);
    r->next_pair = 0;
}

static void found_addresses(void *ctx, int error, const struct ns_address *list, size_t n)
{
    struct ns_recovery *r = ctx;
    r->lookup = NULL;
    for (size_t i = 0; i < n && error == 0; i++)
        r->found_count = add_destination(r->found, r->found_count, &list[i]);
    if (error == 0 && !r->committed) {
        make_pairs(r);
        ns_rounds_next(r, ns_now());
    }
}

void ns_rounds_new(struct ns_recovery *r, struct ns_time now)
{
    struct ns_sock *s = r->sock;
    make_pairs(r);
    if (s->name[0] && !r->lookup) {
        r->found_count = 0;
        r->lookup = ns_lookup_start(s->name, found_addresses, r, now);
    }
    ns_rounds_next(r, now);
}

/* Another instance that answers where the session was can be the server, started again, or one
 * of several behind one address: the next connection may come to the right one. */
static bool gone(struct ns_recovery *r, struct ns_time now)
{
    if (!r->refused_there)
        r->strange = (struct ns_time){ 0 };
    else if (r->strange.ns == 0)
        r->strange = now;
    return r->refused_here || (r->refused_there && ns_time_sub(now, r->strange).ns >= STRANGE_MS * 1000000LL);
}

static void round_over(struct ns_recovery *r, struct ns_time now)
{
    struct ns_sock *s = r->sock;
    if (r->urgency == NS_HEDGE) {
        ns_recovery_finish(r, now);
        return;
    }
    if (r->urgency == NS_DEAD && !r->lookup && gone(r, now)) {
        ns_info("no address has the session any more");
        ns_sock_give_up(s, s->error ? s->error : -ETIMEDOUT, now);
        return;
    }
    ns_timer_set(&r->round, ns_time_add(now, ns_time_ms(r->round_ms)));
    r->round_ms = r->round_ms * 2 < ROUND_MAX_MS ? r->round_ms * 2 : ROUND_MAX_MS;
}

/* Starts pairs until one is under way, then waits a little before the next. */
void ns_rounds_next(struct ns_recovery *r, struct ns_time now)
{
    if (r->round.set)
        ns_timer_clear(&r->round);
    while (r->next_pair < r->pair_count) {
        if (ns_attempt_start(r, &r->pairs[r->next_pair++], now)) {
            ns_timer_set(&r->stagger, ns_time_add(now, ns_time_ms(r->stagger_ms)));
            return;
        }
    }
    if (!ns_attempts_active(r))
        round_over(r, now);
}

void ns_rounds_stagger_over(struct ns_timer *timer, struct ns_time now)
{
    struct ns_recovery *r = (struct ns_recovery *)((char *)timer - offsetof(struct ns_recovery, stagger));
    if (!r->committed && r->next_pair < r->pair_count)
        ns_rounds_next(r, now);
}

void ns_rounds_due(struct ns_timer *timer, struct ns_time now)
{
    struct ns_recovery *r = (struct ns_recovery *)((char *)timer - offsetof(struct ns_recovery, round));
    r->refused_here = r->refused_there = false;
    ns_rounds_new(r, now);
}
