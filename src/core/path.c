#include "core/path.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- addresses ---- */

static size_t bytes_of(const struct ns_address *a)
{
    return a->family == AF_INET ? 4 : 16;
}

static const uint8_t mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

/* The address as RFC 6724 compares it: IPv4 as v4-mapped (its section 2.1). */
static void expand(const struct ns_address *a, uint8_t out[16])
{
    if (a->family == AF_INET) {
        memcpy(out, mapped_prefix, sizeof mapped_prefix);
        memcpy(out + sizeof mapped_prefix, a->bytes, 4);
    } else {
        memcpy(out, a->bytes, 16);
    }
}

static void set_bytes(struct ns_address *a, const uint8_t bytes[16], uint32_t scope_id)
{
    *a = (struct ns_address){ .family = AF_INET6 };
    if (memcmp(bytes, mapped_prefix, sizeof mapped_prefix) == 0) {
        a->family = AF_INET;
        memcpy(a->bytes, bytes + sizeof mapped_prefix, 4);
        return;
    }
    memcpy(a->bytes, bytes, 16);
    a->scope_id = scope_id;
}

int ns_scope_of(const struct ns_address *a)
{
    const uint8_t *b = a->bytes;

    if (a->family == AF_INET) /* RFC 6724, 3.2 */
        return b[0] == 127 || (b[0] == 169 && b[1] == 254) ? NS_SCOPE_LINK : NS_SCOPE_GLOBAL;
    if (b[0] == 0xff)
        return b[1] & 0x0f;
    if (b[0] == 0xfe && (b[1] & 0xc0) == 0x80)
        return NS_SCOPE_LINK;
    if (b[0] == 0xfe && (b[1] & 0xc0) == 0xc0)
        return NS_SCOPE_SITE;
    return ns_address_loopback(a) ? NS_SCOPE_LINK : NS_SCOPE_GLOBAL; /* ::1: RFC 4291, 2.5.3 */
}

bool ns_address_loopback(const struct ns_address *a)
{
    static const uint8_t one[16] = { [15] = 1 };

    return a->family == AF_INET ? a->bytes[0] == 127 : memcmp(a->bytes, one, sizeof one) == 0;
}

bool ns_address_wildcard(const struct ns_address *a)
{
    static const uint8_t zero[16];

    return memcmp(a->bytes, zero, bytes_of(a)) == 0;
}

/* Whether the address names a host only together with an interface. */
static bool needs_interface(const struct ns_address *a)
{
    return a->family == AF_INET6 && ns_scope_of(a) <= NS_SCOPE_LINK && !ns_address_loopback(a);
}

bool ns_address_equal(const struct ns_address *a, const struct ns_address *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, bytes_of(a)) == 0 &&
           (!needs_interface(a) || a->scope_id == b->scope_id);
}

int ns_address_from_sockaddr(struct ns_address *a, uint16_t *port, const struct sockaddr *addr, socklen_t len)
{
    union {
        sa_family_t family;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } u = { 0 };

    if (len < sizeof u.family)
        return -EINVAL;
    memcpy(&u, addr, len < sizeof u ? len : sizeof u);
    if (u.family == AF_INET) {
        if (len < sizeof u.v4)
            return -EINVAL;
        *a = (struct ns_address){ .family = AF_INET };
        memcpy(a->bytes, &u.v4.sin_addr, 4);
    } else if (u.family == AF_INET6) {
        /* The kernel takes the structure without its last field too (RFC 2133's). */
        if (len < offsetof(struct sockaddr_in6, sin6_scope_id))
            return -EINVAL;
        set_bytes(a, u.v6.sin6_addr.s6_addr, u.v6.sin6_scope_id);
    } else {
        return -EAFNOSUPPORT;
    }
    if (port)
        *port = ntohs(u.v4.sin_port); /* at the same place in both */
    return 0;
}

socklen_t ns_address_to_sockaddr(const struct ns_address *a, uint16_t port, bool mapped,
                                 struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (a->family == AF_INET && !mapped) {
        struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
        memcpy(&v4.sin_addr, a->bytes, 4);
        memcpy(out, &v4, sizeof v4);
        return sizeof v4;
    }
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    expand(a, v6.sin6_addr.s6_addr);
    if (needs_interface(a))
        v6.sin6_scope_id = a->scope_id;
    memcpy(out, &v6, sizeof v6);
    return sizeof v6;
}

/* A decimal number that is nothing but digits and fits in 32 bits, and is not 0. */
static bool parse_interface(const char *text, uint32_t *out)
{
    uint64_t n = 0;

    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9')
            return false;
        n = n * 10 + (uint64_t)(*p - '0');
        if (n > UINT32_MAX)
            return false;
    }
    *out = (uint32_t)n;
    return n > 0;
}

int ns_address_parse(struct ns_address *a, const char *text)
{
    char host[INET6_ADDRSTRLEN];
    size_t len = strcspn(text, "%");
    uint32_t scope_id = 0;
    uint8_t bytes[16];

    if (len >= sizeof host)
        return -EINVAL;
    memcpy(host, text, len);
    host[len] = '\0';
    if (text[len] == '%' && !parse_interface(text + len + 1, &scope_id))
        return -EINVAL;
    if (inet_pton(AF_INET6, host, bytes) == 1) {
        set_bytes(a, bytes, scope_id);
        return a->family == AF_INET && text[len] ? -EINVAL : 0;
    }
    if (text[len] || inet_pton(AF_INET, host, bytes) != 1)
        return -EINVAL;
    *a = (struct ns_address){ .family = AF_INET };
    memcpy(a->bytes, bytes, 4);
    return 0;
}

size_t ns_address_format(const struct ns_address *a, char *out, size_t out_bytes)
{
    char text[NS_ADDRESS_TEXT_BYTES];
    int saved = errno;

    inet_ntop(a->family, a->bytes, text, INET6_ADDRSTRLEN);
    errno = saved;
    size_t len = strlen(text);
    if (needs_interface(a) && a->scope_id)
        len += (size_t)snprintf(text + len, sizeof text - len, "%%%u", (unsigned)a->scope_id);
    if (len >= out_bytes) {
        if (out_bytes)
            out[0] = '\0';
        return 0;
    }
    memcpy(out, text, len + 1);
    return len;
}

/* ---- the policy table of RFC 6724, 2.1 ---- */

struct policy_row {
    uint8_t prefix[16];
    uint8_t bits, precedence, label;
};

static const struct policy_row policy_table[] = {
    /* The longest match wins, so the longest stand first. */
    { { [15] = 1 }, 128, 50, 0 },  { { [10] = 0xff, [11] = 0xff }, 96, 35, 4 },
    { { 0 }, 96, 1, 3 },           { { 0x20, 0x01 }, 32, 5, 5 },
    { { 0x20, 0x02 }, 16, 30, 2 }, { { 0x3f, 0xfe }, 16, 1, 12 },
    { { 0xfe, 0xc0 }, 10, 1, 11 }, { { 0xfc }, 7, 3, 13 },
    { { 0 }, 0, 40, 1 },
};

/* How many leading bits two addresses share, at most `limit`. */
static unsigned common_bits(const uint8_t *a, const uint8_t *b, unsigned limit)
{
    unsigned n = 0;

    while (n < limit && !((a[n / 8] ^ b[n / 8]) & (0x80 >> n % 8)))
        n++;
    return n;
}

static const struct policy_row *policy_row(const struct ns_address *a)
{
    const struct policy_row *row = policy_table;
    uint8_t full[16];

    expand(a, full);
    while (common_bits(full, row->prefix, row->bits) < row->bits)
        row++;
    return row;
}

/* CommonPrefixLen(S, D) of RFC 6724, 2.2: not beyond the source's own prefix. */
static unsigned prefix_match(const struct ns_local *source, const struct ns_address *destination)
{
    unsigned width = (unsigned)bytes_of(destination) * 8;
    unsigned limit = source->prefix_length < width ? source->prefix_length : width;

    return common_bits(source->address.bytes, destination->bytes, limit);
}

/* ---- sources: RFC 6724, section 5 ---- */

struct candidates {
    const struct ns_address *address;    /* the destination */
    bool own;                            /* it is one of this host's */
    size_t count;                        /* of sources */
    uint8_t sources[NS_PATH_LOCALS_MAX]; /* index into set.locals, best first */
};

struct set {
    const struct ns_local *locals[NS_PATH_LOCALS_MAX];
    size_t local_count;
    struct candidates destinations[NS_PATH_DESTINATIONS_MAX];
    size_t destination_count;
};

static bool usable(const struct ns_local *source, const struct candidates *to)
{
    const struct ns_address *destination = to->address;

    if (needs_interface(&source->address) || needs_interface(destination))
        return needs_interface(&source->address) && needs_interface(destination) &&
               source->ifindex == destination->scope_id;
    if (ns_address_loopback(destination))
        return source->loopback;
    return !ns_address_loopback(&source->address) || to->own;
}

static int sign(int n)
{
    return (n > 0) - (n < 0);
}

/* Rule 2: the smallest scope that reaches as far as the destination's, else the largest. */
static int compare_scope(int a, int b, int destination)
{
    bool a_reaches = a >= destination, b_reaches = b >= destination;

    if (a_reaches != b_reaches)
        return a_reaches ? 1 : -1;
    return a_reaches ? sign(b - a) : sign(a - b);
}

/*
 * Above 0 when `a` is the better source, below when `b` is, 0 for a tie; *why
 * names the rule in the thesis's words. Rules 4 and 5.5 of RFC 6724, about homes
 * and next hops, need knowledge that is not here.
 */
static int compare_sources(const struct ns_local *a, const struct ns_local *b, const struct candidates *to,
                           const char **why)
{
    const struct ns_address *d = to->address;
    int better;

    *why = "Chosen by scope"; /* what cannot reach the destination at all is out of its scope too */
    if ((better = usable(a, to) - usable(b, to)))
        return better;
    *why = "Chosen by same address";
    if ((better = ns_address_equal(&a->address, d) - ns_address_equal(&b->address, d)))
        return better;
    *why = "Chosen by scope";
    if ((better = compare_scope(ns_scope_of(&a->address), ns_scope_of(&b->address), ns_scope_of(d))))
        return better;
    *why = "Chosen by address flags";
    if ((better = b->deprecated - a->deprecated))
        return better;
    /*
     * All that can be known of rule 5 without routes: nothing leaves by the
     * loopback interface. Routers and anycast hosts have global addresses there
     * that serve as sources all the same, but their /32 must not win by its
     * longer match.
     */
    *why = "Chosen by interface";
    if ((better = b->loopback - a->loopback))
        return better;
    *why = "Chosen by label";
    uint8_t label = policy_row(d)->label;
    if ((better = (policy_row(&a->address)->label == label) - (policy_row(&b->address)->label == label)))
        return better;
    *why = "Chosen by address flags";
    if ((better = a->temporary - b->temporary))
        return better;
    *why = "Chosen by prefix match length";
    return sign((int)prefix_match(a, d) - (int)prefix_match(b, d));
}

/* Stable: of equals, the one given first stays first. */
static void insert_source(const struct set *set, struct candidates *to, uint8_t source)
{
    const char *why;
    size_t at = to->count++;

    for (; at > 0; at--) {
        uint8_t before = to->sources[at - 1];
        if (compare_sources(set->locals[source], set->locals[before], to, &why) <= 0)
            break;
        to->sources[at] = before;
    }
    to->sources[at] = source;
}

/*
 * Behind the best source, one of another interface is worth more than another
 * address of the same: whatever has failed, fewer parts are shared.
 */
static void spread_interfaces(const struct set *set, struct candidates *to)
{
    size_t fresh = 0; /* sources[0..fresh) are of different interfaces */

    for (size_t i = 0; i < to->count; i++) {
        uint8_t source = to->sources[i];
        bool seen = false;
        for (size_t k = 0; k < fresh && !seen; k++)
            seen = set->locals[to->sources[k]]->ifindex == set->locals[source]->ifindex;
        if (seen)
            continue;
        memmove(to->sources + fresh + 1, to->sources + fresh, i - fresh);
        to->sources[fresh++] = source;
    }
}

static void find_sources(const struct set *set, struct candidates *to)
{
    for (size_t i = 0; i < set->local_count; i++)
        if (set->locals[i]->address.family == to->address->family && usable(set->locals[i], to))
            insert_source(set, to, (uint8_t)i);
    spread_interfaces(set, to);
}

/* The thesis's debug output (6.2): its algorithm's own walk through the candidates. */
static void tell(const struct set *set, const struct candidates *to, const struct ns_path_trace *trace)
{
    const struct ns_local *best = NULL;

    trace->say(trace->ctx, "Destination address", to->address);
    for (size_t i = 0; i < set->local_count; i++) {
        const struct ns_local *source = set->locals[i];
        const char *why = "Chosen by default";
        if (source->address.family != to->address->family)
            continue;
        trace->say(trace->ctx, "Candidate source address", &source->address);
        if (best && compare_sources(source, best, to, &why) <= 0)
            continue;
        best = source;
        trace->say(trace->ctx, why, NULL);
    }
    if (to->count == 0)
        trace->say(trace->ctx, "No usable source address", NULL);
}

/* ---- destinations: RFC 6724, section 6 ---- */

/* Above 0 when `a` comes first, below when `b` does, 0 for a tie. Both have a source. */
static int compare_destinations(const struct set *set, const struct candidates *a, const struct candidates *b)
{
    const struct ns_local *from_a = set->locals[a->sources[0]], *from_b = set->locals[b->sources[0]];
    const struct policy_row *row_a = policy_row(a->address), *row_b = policy_row(b->address);
    int scope_a = ns_scope_of(a->address), scope_b = ns_scope_of(b->address);
    int better;

    if ((better = (scope_a == ns_scope_of(&from_a->address)) - (scope_b == ns_scope_of(&from_b->address))))
        return better;
    if ((better = from_b->deprecated - from_a->deprecated))
        return better;
    if ((better = (policy_row(&from_a->address)->label == row_a->label) -
                  (policy_row(&from_b->address)->label == row_b->label)))
        return better;
    if ((better = row_a->precedence - row_b->precedence))
        return better;
    if ((better = scope_b - scope_a))
        return better;
    /* Rule 9 would undo the round robin of a name's IPv4 addresses, so only IPv6 is compared. */
    if (a->address->family == AF_INET6 && b->address->family == AF_INET6)
        return (int)prefix_match(from_a, a->address) - (int)prefix_match(from_b, b->address);
    return 0;
}

static bool known_destination(const struct set *set, const struct ns_address *address)
{
    for (size_t i = 0; i < set->destination_count; i++)
        if (ns_address_equal(set->destinations[i].address, address))
            return true;
    return false;
}

static bool is_own(const struct ns_local *locals, size_t n, const struct ns_address *address)
{
    for (size_t i = 0; i < n; i++)
        if (!locals[i].tentative && ns_address_equal(&locals[i].address, address))
            return true;
    return false;
}

static bool same_local(const struct ns_local *a, const struct ns_local *b)
{
    return a->ifindex == b->ifindex && ns_address_equal(&a->address, &b->address);
}

static void collect_locals(struct set *set, const struct ns_local *locals, size_t n)
{
    for (size_t i = 0; i < n && set->local_count < NS_PATH_LOCALS_MAX; i++) {
        bool seen = !locals[i].carrier || locals[i].tentative;
        for (size_t k = 0; k < set->local_count && !seen; k++)
            seen = same_local(set->locals[k], &locals[i]);
        if (!seen)
            set->locals[set->local_count++] = &locals[i];
    }
}

/* Puts destination i among order[0..i) of the destinations that have a source. */
static void insert_destination(const struct set *set, uint8_t order[], size_t count, uint8_t i)
{
    size_t at = count;

    for (; at > 0 && compare_destinations(set, &set->destinations[i], &set->destinations[order[at - 1]]) > 0;
         at--)
        order[at] = order[at - 1];
    order[at] = i;
}

/* ---- pairs ---- */

/* `b` may leave the interface open: whoever asks a socket for its addresses is not told it. */
static bool same_pair(const struct ns_pair *a, const struct ns_pair *b)
{
    return (a->ifindex == b->ifindex || b->ifindex == 0) && ns_address_equal(&a->source, &b->source) &&
           ns_address_equal(&a->destination, &b->destination);
}

/* Round k: every destination with its k-th source. */
static size_t write_pairs(const struct set *set, const uint8_t order[], size_t count,
                          const struct ns_pair *avoid, struct ns_pair *out, size_t max)
{
    struct ns_pair last;
    bool avoided = false, more = true;
    size_t written = 0;

    for (size_t round = 0; more && written < max; round++) {
        more = false;
        for (size_t i = 0; i < count && written < max; i++) {
            const struct candidates *to = &set->destinations[order[i]];
            if (round >= to->count)
                continue;
            more = true;
            const struct ns_local *from = set->locals[to->sources[round]];
            struct ns_pair pair = { from->address, *to->address, from->ifindex };
            if (avoid && !avoided && same_pair(&pair, avoid)) {
                last = pair;
                avoided = true;
            } else {
                out[written++] = pair;
            }
        }
    }
    if (avoided && written < max)
        out[written++] = last;
    return written;
}

size_t ns_path_pairs_traced(const struct ns_local *locals, size_t n, const struct ns_address *destinations,
                            size_t m, const struct ns_pair *avoid, struct ns_pair *out, size_t max,
                            const struct ns_path_trace *trace)
{
    struct set set;
    uint8_t order[NS_PATH_DESTINATIONS_MAX];
    size_t count = 0;

    set.local_count = set.destination_count = 0;
    collect_locals(&set, locals, n);
    for (size_t i = 0; i < m && set.destination_count < NS_PATH_DESTINATIONS_MAX; i++) {
        if (known_destination(&set, &destinations[i]))
            continue;
        struct candidates *to = &set.destinations[set.destination_count++];
        to->address = &destinations[i];
        to->own = is_own(locals, n, &destinations[i]);
        to->count = 0;
        find_sources(&set, to);
        if (trace)
            tell(&set, to, trace);
        if (to->count > 0)
            insert_destination(&set, order, count++, (uint8_t)(to - set.destinations));
    }
    return write_pairs(&set, order, count, avoid, out, max);
}

size_t ns_path_pairs(const struct ns_local *locals, size_t n, const struct ns_address *destinations, size_t m,
                     const struct ns_pair *avoid, struct ns_pair *out, size_t max)
{
    return ns_path_pairs_traced(locals, n, destinations, m, avoid, out, max, NULL);
}
