/* core/path: RFC 6724's own examples, the thesis's demonstration, and what holds for any addresses. */
#include "core/path.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANY 512

static struct ns_address address(const char *text)
{
    struct ns_address a;

    if (ns_address_parse(&a, text))
        ck_abort_msg("bad address in the test: %s", text);
    return a;
}

/*
 * A local address from "address/bits if", with letters for flags: d deprecated,
 * t temporary, T tentative, n no carrier.
 */
static struct ns_local local(const char *text)
{
    char host[64], flags[8] = "";
    unsigned bits, ifindex;

    ck_assert_int_ge(sscanf(text, "%63[^/]/%u %u %7s", host, &bits, &ifindex, flags), 3);
    struct ns_local l = { .address = address(host),
                          .ifindex = ifindex,
                          .prefix_length = (uint8_t)bits,
                          .carrier = !strchr(flags, 'n'),
                          .deprecated = strchr(flags, 'd'),
                          .temporary = strchr(flags, 't'),
                          .tentative = strchr(flags, 'T'),
                          .loopback = ifindex == 1 };
    return l;
}

static size_t locals_of(const char *const texts[], struct ns_local *out)
{
    size_t n = 0;

    for (; texts[n]; n++)
        out[n] = local(texts[n]);
    return n;
}

static size_t destinations_of(const char *const texts[], struct ns_address *out)
{
    size_t n = 0;

    for (; texts[n]; n++)
        out[n] = address(texts[n]);
    return n;
}

/* "source > destination" for each pair, in lines. */
static const char *text_of(const struct ns_pair *pairs, size_t n)
{
    static char text[MANY * 128];
    char from[NS_ADDRESS_TEXT_BYTES], to[NS_ADDRESS_TEXT_BYTES];
    size_t at = 0;

    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        ns_address_format(&pairs[i].source, from, sizeof from);
        ns_address_format(&pairs[i].destination, to, sizeof to);
        at += (size_t)sprintf(text + at, "%s > %s\n", from, to);
    }
    return text;
}

struct vector {
    const char *name;
    const char *locals[8];
    const char *destinations[8];
    const char *expected; /* pairs, the whole list */
};

static void check_vector(const struct vector *v)
{
    struct ns_local locals[8];
    struct ns_address destinations[8];
    struct ns_pair pairs[MANY];
    size_t n = locals_of(v->locals, locals), m = destinations_of(v->destinations, destinations);
    size_t count = ns_path_pairs(locals, n, destinations, m, NULL, pairs, MANY);

    if (strcmp(text_of(pairs, count), v->expected) != 0)
        ck_abort_msg("%s: expected\n%sgot\n%s", v->name, v->expected, text_of(pairs, count));
}

/* RFC 6724, 10.1. */
static const struct vector source_vectors[] = {
    { "prefer appropriate scope (destination global)",
      { "fe80::1%2/64 2", "2001:db8:3::1/64 2" },
      { "2001:db8:1::1" },
      "2001:db8:3::1 > 2001:db8:1::1\n" },
    { "prefer appropriate scope (destination site-local multicast)",
      { "fe80::1%2/64 2", "2001:db8:3::1/64 2" },
      { "ff05::1" },
      "2001:db8:3::1 > ff05::1\n" },
    { "prefer same address",
      { "2001:db8:2::1/64 2", "2001:db8:1::1/64 2 d" },
      { "2001:db8:1::1" },
      "2001:db8:1::1 > 2001:db8:1::1\n2001:db8:2::1 > 2001:db8:1::1\n" },
    { "prefer appropriate scope, deprecated or not",
      { "2001:db8:1::1/64 2", "fe80::2%2/64 2 d" },
      { "fe80::1%2" },
      "fe80::2%2 > fe80::1%2\n" },
    { "longest matching prefix",
      { "2001:db8:3::2/64 2", "2001:db8:1::2/64 2" },
      { "2001:db8:1::1" },
      "2001:db8:1::2 > 2001:db8:1::1\n2001:db8:3::2 > 2001:db8:1::1\n" },
    { "prefer matching label",
      { "2001:db8:1::2/64 2", "2002:c633:6401::d5e3:7953:13eb:22e8/64 2 t" },
      { "2002:c633:6401::1" },
      "2002:c633:6401:0:d5e3:7953:13eb:22e8 > 2002:c633:6401::1\n2001:db8:1::2 > 2002:c633:6401::1\n" },
    { "prefer temporary address",
      { "2001:db8:1::2/64 2", "2001:db8:1::d5e3:7953:13eb:22e8/64 2 t" },
      { "2001:db8:1::d5e3:0:0:1" },
      "2001:db8:1:0:d5e3:7953:13eb:22e8 > 2001:db8:1:0:d5e3::1\n"
      "2001:db8:1::2 > 2001:db8:1:0:d5e3::1\n" },
};

/* RFC 6724, 10.2; destinations that we have no way to reach are left out, not last. */
static const struct vector destination_vectors[] = {
    { "prefer matching scope",
      { "2001:db8:1::2/64 2", "fe80::1%2/64 2", "169.254.13.78/16 2" },
      { "198.51.100.121", "2001:db8:1::1" },
      "2001:db8:1::2 > 2001:db8:1::1\n169.254.13.78 > 198.51.100.121\n" },
    { "no source of the destination's scope",
      { "fe80::1%2/64 2", "198.51.100.117/24 2" },
      { "2001:db8:1::1", "198.51.100.121" },
      "198.51.100.117 > 198.51.100.121\n" },
    { "prefer higher precedence",
      { "2001:db8:1::2/64 2", "fe80::1%2/64 2", "10.1.2.4/24 2" },
      { "10.1.2.3", "2001:db8:1::1" },
      "2001:db8:1::2 > 2001:db8:1::1\n10.1.2.4 > 10.1.2.3\n" },
    { "prefer smaller scope",
      { "2001:db8:1::2/64 2", "fe80::2%2/64 2" },
      { "2001:db8:1::1", "fe80::1%2" },
      "fe80::2%2 > fe80::1%2\n2001:db8:1::2 > 2001:db8:1::1\n" },
    { "avoid deprecated addresses",
      { "2001:db8:1::2/64 2", "fe80::2%2/64 2 d" },
      { "fe80::1%2", "2001:db8:1::1" },
      "2001:db8:1::2 > 2001:db8:1::1\nfe80::2%2 > fe80::1%2\n" },
    { "longest matching prefix",
      { "2001:db8:1::2/64 2", "2001:db8:3f44::2/64 2", "fe80::2%2/64 2" },
      { "2001:db8:3ffe::1", "2001:db8:1::1" },
      "2001:db8:1::2 > 2001:db8:1::1\n2001:db8:3f44::2 > 2001:db8:3ffe::1\n"
      "2001:db8:3f44::2 > 2001:db8:1::1\n2001:db8:1::2 > 2001:db8:3ffe::1\n" },
    { "prefer matching label",
      { "2002:c633:6401::2/64 2", "fe80::2%2/64 2" },
      { "2001:db8:1::1", "2002:c633:6401::1" },
      "2002:c633:6401::2 > 2002:c633:6401::1\n2002:c633:6401::2 > 2001:db8:1::1\n" },
    { "prefer higher precedence, labels alike",
      { "2002:c633:6401::2/64 2", "2001:db8:1::2/64 2", "fe80::2%2/64 2" },
      { "2002:c633:6401::1", "2001:db8:1::1" },
      "2001:db8:1::2 > 2001:db8:1::1\n2002:c633:6401::2 > 2002:c633:6401::1\n"
      "2002:c633:6401::2 > 2001:db8:1::1\n2001:db8:1::2 > 2002:c633:6401::1\n" },
};

static const struct vector own_vectors[] = {
    { "nothing to go on", { NULL }, { "192.0.2.1" }, "" },
    { "nowhere to go", { "192.0.2.9/24 2" }, { NULL }, "" },
    { "no carrier, tentative",
      { "192.0.2.9/24 2 n", "192.0.2.10/24 2 T", "198.51.100.9/24 3" },
      { "192.0.2.1" },
      "198.51.100.9 > 192.0.2.1\n" },
    { "another interface before another address of the same",
      { "192.0.2.9/24 2", "192.0.2.10/24 2", "198.51.100.9/24 3" },
      { "192.0.2.1" },
      "192.0.2.9 > 192.0.2.1\n198.51.100.9 > 192.0.2.1\n192.0.2.10 > 192.0.2.1\n" },
    { "IPv4 destinations keep their order, whatever the prefix",
      { "192.0.2.9/24 2" },
      { "203.0.113.1", "192.0.2.1", "198.51.100.1" },
      "192.0.2.9 > 203.0.113.1\n192.0.2.9 > 192.0.2.1\n192.0.2.9 > 198.51.100.1\n" },
    { "duplicates",
      { "192.0.2.9/24 2", "192.0.2.9/24 2" },
      { "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1" },
      "192.0.2.9 > 192.0.2.1\n" },
    { "the same address on two interfaces is two paths",
      { "192.0.2.9/24 2", "192.0.2.9/24 3" },
      { "192.0.2.1" },
      "192.0.2.9 > 192.0.2.1\n192.0.2.9 > 192.0.2.1\n" },
    { "link-local stays on its link",
      { "fe80::2%2/64 2", "fe80::3%3/64 3", "2001:db8::2/64 3" },
      { "fe80::9%3", "fe80::9", "2001:db8::9" },
      "fe80::3%3 > fe80::9%3\n2001:db8::2 > 2001:db8::9\n" },
    { "loopback to loopback",
      { "192.0.2.9/24 2", "127.0.0.1/8 1", "::1/128 1" },
      { "127.0.0.1", "127.1.2.3", "::1" },
      "::1 > ::1\n127.0.0.1 > 127.0.0.1\n127.0.0.1 > 127.1.2.3\n" },
    { "loopback to others never", { "127.0.0.1/8 1", "::1/128 1" }, { "192.0.2.1", "2001:db8::1" }, "" },
    { "own address, from itself first",
      { "127.0.0.1/8 1", "198.51.100.9/24 3", "192.0.2.9/24 2" },
      { "192.0.2.9" },
      "192.0.2.9 > 192.0.2.9\n198.51.100.9 > 192.0.2.9\n127.0.0.1 > 192.0.2.9\n" },
    { "own address whose link is down",
      { "127.0.0.1/8 1", "192.0.2.9/24 2 n" },
      { "192.0.2.9" },
      "127.0.0.1 > 192.0.2.9\n" },
    { "a global address on the loopback interface comes after the others",
      { "192.0.2.1/32 1", "192.0.2.9/25 2" },
      { "192.0.2.3" },
      "192.0.2.9 > 192.0.2.3\n192.0.2.1 > 192.0.2.3\n" },
    { "the source's prefix bounds the match",
      { "192.0.2.1/24 2", "192.0.2.130/24 3" },
      { "192.0.2.129" },
      "192.0.2.1 > 192.0.2.129\n192.0.2.130 > 192.0.2.129\n" },
    { "scope before prefix",
      { "169.254.1.1/16 2", "10.1.2.4/24 2" },
      { "170.0.0.1" },
      "10.1.2.4 > 170.0.0.1\n169.254.1.1 > 170.0.0.1\n" },
    { "the smallest scope that reaches",
      { "2001:db8::1/64 2", "fec0::2/64 2 d" },
      { "ff05::1" },
      "fec0::2 > ff05::1\n2001:db8::1 > ff05::1\n" },
    { "the largest scope where none reaches",
      { "2001:db8::9/64 2 n", "::1/128 1", "fec0::2/64 2" },
      { "2001:db8::9" },
      "fec0::2 > 2001:db8::9\n::1 > 2001:db8::9\n" },
    { "a destination of its source's scope before one whose source is not deprecated",
      { "fec0::2/64 2", "198.51.100.117/24 2 d" },
      { "2001:db8:1::1", "198.51.100.121" },
      "198.51.100.117 > 198.51.100.121\nfec0::2 > 2001:db8:1::1\n" },
    { "unique local to unique local",
      { "2001:db8::2/64 2", "fd00:1::2/64 2" },
      { "2001:db8::1", "fd00:1::1" },
      "2001:db8::2 > 2001:db8::1\nfd00:1::2 > fd00:1::1\n"
      "fd00:1::2 > 2001:db8::1\n2001:db8::2 > fd00:1::1\n" },
    { "figure 6.1 of the thesis",
      { "fe80::260:b0ff:feb5:6643%2/64 2", "3ffe:2a00:100:3100::f00d:cafe/64 2",
        "fe80::220:18ff:fe3a:1355%3/64 3", "3ffe:2a00:100:3200::f00d:cafe/64 3", "::1/128 1" },
      { "3ffe:2a00:100:3100::dead:beef", "3ffe:2a00:100:3200::dead:beef" },
      "3ffe:2a00:100:3100::f00d:cafe > 3ffe:2a00:100:3100::dead:beef\n"
      "3ffe:2a00:100:3200::f00d:cafe > 3ffe:2a00:100:3200::dead:beef\n"
      "3ffe:2a00:100:3200::f00d:cafe > 3ffe:2a00:100:3100::dead:beef\n"
      "3ffe:2a00:100:3100::f00d:cafe > 3ffe:2a00:100:3200::dead:beef\n" },
    { "figure 6.1 with the first cable pulled",
      { "3ffe:2a00:100:3100::f00d:cafe/64 2 n", "3ffe:2a00:100:3200::f00d:cafe/64 3" },
      { "3ffe:2a00:100:3100::dead:beef", "3ffe:2a00:100:3200::dead:beef" },
      "3ffe:2a00:100:3200::f00d:cafe > 3ffe:2a00:100:3200::dead:beef\n"
      "3ffe:2a00:100:3200::f00d:cafe > 3ffe:2a00:100:3100::dead:beef\n" },
};

START_TEST(rfc_6724_sources)
{
    check_vector(&source_vectors[_i]);
}
END_TEST

START_TEST(rfc_6724_destinations)
{
    check_vector(&destination_vectors[_i]);
}
END_TEST

START_TEST(own_cases)
{
    check_vector(&own_vectors[_i]);
}
END_TEST

START_TEST(the_failing_pair_goes_last)
{
    struct ns_local locals[] = { local("192.0.2.9/24 2"), local("198.51.100.9/24 3") };
    struct ns_address destinations[] = { address("192.0.2.1"), address("198.51.100.1") };
    struct ns_pair avoid = { locals[0].address, destinations[0], 2 }, pairs[8];
    const char *last_is_first = "198.51.100.9 > 198.51.100.1\n198.51.100.9 > 192.0.2.1\n"
                                "192.0.2.9 > 198.51.100.1\n192.0.2.9 > 192.0.2.1\n";

    size_t n = ns_path_pairs(locals, 2, destinations, 2, &avoid, pairs, 8);
    ck_assert_str_eq(text_of(pairs, n), last_is_first);
    avoid.ifindex = 0;
    n = ns_path_pairs(locals, 2, destinations, 2, &avoid, pairs, 8);
    ck_assert_str_eq(text_of(pairs, n), last_is_first);
    n = ns_path_pairs(locals, 2, destinations, 2, &avoid, pairs, 3);
    ck_assert_uint_eq(n, 3);
    ck_assert(!ns_address_equal(&pairs[2].source, &avoid.source) ||
              !ns_address_equal(&pairs[2].destination, &avoid.destination));

    avoid.ifindex = 7; /* was there, is on another interface now */
    n = ns_path_pairs(locals, 2, destinations, 2, &avoid, pairs, 8);
    ck_assert_str_eq(text_of(pairs, 1), "192.0.2.9 > 192.0.2.1\n");

    avoid.ifindex = 2; /* the only one there is */
    n = ns_path_pairs(locals, 1, destinations, 1, &avoid, pairs, 8);
    ck_assert_str_eq(text_of(pairs, n), "192.0.2.9 > 192.0.2.1\n");
    ck_assert_uint_eq(pairs[0].ifindex, 2);
}
END_TEST

static char told[4096];

static void say(void *ctx, const char *what, const struct ns_address *a)
{
    char text[NS_ADDRESS_TEXT_BYTES] = "";
    size_t at = strlen(told);

    ck_assert_ptr_eq(ctx, told);
    if (a)
        ns_address_format(a, text, sizeof text);
    snprintf(told + at, sizeof told - at, a ? "%s: %s\n" : "%s%s\n", what, text);
}

/* Word for word what the thesis prints in 6.2, with scopes as Linux writes them. */
START_TEST(the_trace_of_the_thesis)
{
    const char *const texts[] = { "fe80::260:b0ff:feb5:6643%2/64 2",
                                  "3ffe:2a00:100:3001:260:b0ff:feb5:6643/64 2",
                                  "3ffe:2a00:100:3100::f00d:cafe/64 2",
                                  "3ffe:2a00:100:3200::f00d:cafe/64 3",
                                  "fe80::220:18ff:fe3a:1355%3/64 3",
                                  "fe80::1%1/64 1",
                                  "::1/128 1",
                                  "192.0.2.1/24 2",
                                  NULL };
    struct ns_address destination = address("3ffe:2a00:100:3100::dead:beef");
    const struct ns_path_trace trace = { say, told };
    struct ns_local locals[8];
    struct ns_pair pairs[8];
    size_t n = locals_of(texts, locals);

    told[0] = '\0';
    size_t count = ns_path_pairs_traced(locals, n, &destination, 1, NULL, pairs, 8, &trace);
    ck_assert_str_eq(told, "Destination address: 3ffe:2a00:100:3100::dead:beef\n"
                           "Candidate source address: fe80::260:b0ff:feb5:6643%2\n"
                           "Chosen by default\n"
                           "Candidate source address: 3ffe:2a00:100:3001:260:b0ff:feb5:6643\n"
                           "Chosen by scope\n"
                           "Candidate source address: 3ffe:2a00:100:3100::f00d:cafe\n"
                           "Chosen by prefix match length\n"
                           "Candidate source address: 3ffe:2a00:100:3200::f00d:cafe\n"
                           "Candidate source address: fe80::220:18ff:fe3a:1355%3\n"
                           "Candidate source address: fe80::1%1\n"
                           "Candidate source address: ::1\n");
    ck_assert_uint_eq(count, 3);
    ck_assert_str_eq(text_of(pairs, 1), "3ffe:2a00:100:3100::f00d:cafe > 3ffe:2a00:100:3100::dead:beef\n");
}
END_TEST

START_TEST(the_trace_says_why)
{
    struct ns_address destination = address("2001:db8::1");
    const struct ns_path_trace trace = { say, told };
    const char *const texts[] = { "2002::1/64 2 dt",      "2002::2/64 2 t",     "2001:db8:8::3/64 2",
                                  "2001:db8:9::4/64 2 t", "2001:db8::1/64 2 d", NULL };
    const char *const links[] = { "fe80::3%3/64 3", "fe80::2%2/64 2", "fe80::4%2/64 2", NULL };
    const char *const lone[] = { "::1/128 1", NULL };
    struct ns_local locals[8];
    struct ns_pair pairs[8];

    told[0] = '\0';
    ns_path_pairs_traced(locals, locals_of(texts, locals), &destination, 1, NULL, pairs, 8, &trace);
    ck_assert_str_eq(told, "Destination address: 2001:db8::1\n"
                           "Candidate source address: 2002::1\nChosen by default\n"
                           "Candidate source address: 2002::2\nChosen by address flags\n"
                           "Candidate source address: 2001:db8:8::3\nChosen by label\n"
                           "Candidate source address: 2001:db8:9::4\nChosen by address flags\n"
                           "Candidate source address: 2001:db8::1\nChosen by same address\n");
    told[0] = '\0';
    struct ns_address near = address("fe80::9%2");
    ns_path_pairs_traced(locals, locals_of(links, locals), &near, 1, NULL, pairs, 8, &trace);
    ck_assert_str_eq(told, "Destination address: fe80::9%2\n"
                           "Candidate source address: fe80::3%3\nChosen by default\n"
                           "Candidate source address: fe80::2%2\nChosen by scope\n"
                           "Candidate source address: fe80::4%2\n");
    told[0] = '\0';
    ns_path_pairs_traced(locals, locals_of(lone, locals), &destination, 1, NULL, pairs, 8, &trace);
    ck_assert_str_eq(told, "Destination address: 2001:db8::1\n"
                           "Candidate source address: ::1\nChosen by default\n"
                           "No usable source address\n");
}
END_TEST

static struct ns_address random_address(void)
{
    static const char *const stock[] = {
        "192.0.2.0",    "198.51.100.0", "127.0.0.0", "169.254.1.0", "10.1.0.0", "::",     "2001:db8::",
        "2001:db8:1::", "2002:c0::",    "fd00:7::",  "fe80::",      "fe80::",   "fec0::", "3ffe:2a00::"
    };
    struct ns_address a = address(stock[(size_t)rand() % (sizeof stock / sizeof stock[0])]);

    a.bytes[a.family == AF_INET ? 3 : 15] = (uint8_t)(1 + rand() % 4);
    if (ns_scope_of(&a) == NS_SCOPE_LINK && a.family == AF_INET6)
        a.scope_id = (uint32_t)(rand() % 5);
    return a;
}

static struct ns_local random_local(void)
{
    struct ns_local l = { .address = random_address(), .ifindex = (uint32_t)(1 + rand() % 4) };

    l.prefix_length = (uint8_t)(rand() % 4 ? (l.address.family == AF_INET ? 24 : 64) : rand() % 256);
    l.carrier = rand() % 4;
    l.deprecated = rand() % 4 == 0;
    l.temporary = rand() % 4 == 0;
    l.tentative = rand() % 8 == 0;
    l.loopback = l.ifindex == 1;
    if (l.address.scope_id)
        l.address.scope_id = l.ifindex;
    return l;
}

static bool is_among(const struct ns_pair *p, const struct ns_pair *pairs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (pairs[i].ifindex == p->ifindex && ns_address_equal(&pairs[i].source, &p->source) &&
            ns_address_equal(&pairs[i].destination, &p->destination))
            return true;
    return false;
}

static void check_pair(const struct ns_pair *p, const struct ns_local *locals, size_t n)
{
    bool from_locals = false;

    for (size_t i = 0; i < n && !from_locals; i++)
        from_locals = locals[i].carrier && !locals[i].tentative && locals[i].ifindex == p->ifindex &&
                      ns_address_equal(&locals[i].address, &p->source);
    ck_assert(from_locals);
    ck_assert_uint_eq(p->source.family, p->destination.family);
    if (p->source.family == AF_INET6 && !ns_address_loopback(&p->destination) &&
        ns_scope_of(&p->destination) == NS_SCOPE_LINK)
        ck_assert_uint_eq(p->destination.scope_id, p->ifindex);
}

START_TEST(any_addresses)
{
    struct ns_local locals[40];
    struct ns_address destinations[12];
    struct ns_pair pairs[MANY], again[MANY];

    srand(6724);
    for (int round = 0; round < 3000; round++) {
        size_t n = (size_t)rand() % 40, m = (size_t)rand() % 12;
        for (size_t i = 0; i < n; i++)
            locals[i] = random_local();
        for (size_t i = 0; i < m; i++)
            destinations[i] = random_address();
        size_t count = ns_path_pairs(locals, n, destinations, m, NULL, pairs, MANY);
        ck_assert_uint_le(count, n * m);
        for (size_t i = 0; i < count; i++) {
            check_pair(&pairs[i], locals, n);
            ck_assert(!is_among(&pairs[i], pairs, i));
        }
        size_t max = (size_t)rand() % (count + 1);
        ck_assert_uint_eq(ns_path_pairs(locals, n, destinations, m, NULL, again, max), max);
        ck_assert_int_eq(memcmp(pairs, again, max * sizeof pairs[0]), 0);
        if (count == 0)
            continue;
        struct ns_pair avoid = pairs[(size_t)rand() % count];
        ck_assert_uint_eq(ns_path_pairs(locals, n, destinations, m, &avoid, again, MANY), count);
        ck_assert(is_among(&avoid, again + count - 1, 1));
        for (size_t i = 0; i < count; i++)
            ck_assert(is_among(&pairs[i], again, count));
    }
}
END_TEST

START_TEST(too_many_are_cut)
{
    static struct ns_local locals[1000];
    static struct ns_address destinations[1000];
    static struct ns_pair pairs[NS_PATH_LOCALS_MAX * NS_PATH_DESTINATIONS_MAX + 1];

    for (size_t i = 0; i < 1000; i++) {
        locals[i] = local("192.0.2.0/24 2");
        locals[i].address.bytes[2] = (uint8_t)(i >> 8);
        locals[i].address.bytes[3] = (uint8_t)i;
        locals[i].carrier = i % 2;
        destinations[i] = locals[i].address;
        destinations[i].bytes[0] = 198;
    }
    size_t count =
        ns_path_pairs(locals, 1000, destinations, 1000, NULL, pairs, sizeof pairs / sizeof pairs[0]);
    ck_assert_uint_eq(count, NS_PATH_LOCALS_MAX * NS_PATH_DESTINATIONS_MAX);
    ck_assert_uint_eq(ns_path_pairs(locals, 1000, destinations, 1000, NULL, pairs, 0), 0);
}
END_TEST

START_TEST(scopes)
{
    static const struct {
        const char *text;
        int scope;
    } rows[] = {
        { "127.0.0.1", 2 },    { "169.254.0.1", 2 }, { "169.253.0.1", 14 }, { "10.0.0.1", 14 },
        { "192.168.0.1", 14 }, { "192.0.2.1", 14 },  { "::1", 2 },          { "fe80::1%1", 2 },
        { "febf::1%1", 2 },    { "fec0::1", 5 },     { "fd00::1", 14 },     { "ff01::1", 1 },
        { "ff02::1", 2 },      { "ff0e::1", 14 },    { "2001:db8::1", 14 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ns_address a = address(rows[i].text);
        ck_assert_msg(ns_scope_of(&a) == rows[i].scope, "%s", rows[i].text);
    }
}
END_TEST

START_TEST(text_and_back)
{
    static const struct {
        const char *text, *canonical; /* NULL: refused */
    } rows[] = {
        { "192.0.2.1", "192.0.2.1" },
        { "::ffff:192.0.2.1", "192.0.2.1" },
        { "2001:DB8:0:0::1", "2001:db8::1" },
        { "fe80::1%4294967295", "fe80::1%4294967295" },
        { "ff02::1%3", "ff02::1%3" },
        { "2001:db8::1%3", "2001:db8::1" }, /* an interface means nothing there */
        { "::1", "::1" },
        { "::", "::" },
        { "fe80::1%eth0", NULL },
        { "fe80::1%", NULL },
        { "fe80::1%0", NULL },
        { "fe80::1%4294967296", NULL },
        { "fe80::1%99999999999999999999", NULL },
        { "192.0.2.1%1", NULL },
        { "::ffff:192.0.2.1%1", NULL },
        { "192.0.2", NULL },
        { "192.0.2.256", NULL },
        { "", NULL },
        { "%1", NULL },
        { " 192.0.2.1", NULL },
        { "host", NULL },
        { "2001:db8:0000:0000:0000:0000:0000:0000:0000:0001:2001:db8::1", NULL },
    };
    char text[NS_ADDRESS_TEXT_BYTES];
    struct ns_address a;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int result = ns_address_parse(&a, rows[i].text);
        ck_assert_msg(result == (rows[i].canonical ? 0 : -EINVAL), "%s", rows[i].text);
        if (result)
            continue;
        ck_assert_uint_eq(ns_address_format(&a, text, sizeof text), strlen(rows[i].canonical));
        ck_assert_str_eq(text, rows[i].canonical);
    }
    a = address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    ck_assert_uint_eq(ns_address_format(&a, text, 39), 0);
    ck_assert_str_eq(text, "");
    ck_assert_uint_eq(ns_address_format(&a, text, 40), 39);
    ck_assert_uint_eq(ns_address_format(&a, NULL, 0), 0);
}
END_TEST

START_TEST(socket_addresses)
{
    static const char *const texts[] = { "192.0.2.1", "2001:db8::1", "fe80::1%7" };
    struct sockaddr_storage ss;
    struct ns_address a, b;
    uint16_t port;

    for (size_t i = 0; i < 3; i++) {
        for (int mapped = 0; mapped < 2; mapped++) {
            a = address(texts[i]);
            socklen_t len = ns_address_to_sockaddr(&a, 1234, mapped, &ss);
            bool v4 = i == 0 && !mapped;
            ck_assert_int_eq(ss.ss_family, v4 ? AF_INET : AF_INET6);
            ck_assert_uint_eq(len, v4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
            memset(&b, 0xa5, sizeof b);
            ck_assert_int_eq(ns_address_from_sockaddr(&b, &port, (struct sockaddr *)&ss, len), 0);
            ck_assert(ns_address_equal(&a, &b));
            ck_assert_uint_eq(b.scope_id, i == 2 ? 7 : 0);
            ck_assert_uint_eq(port, 1234);
            ck_assert_int_eq(ns_address_from_sockaddr(&b, NULL, (struct sockaddr *)&ss, len), 0);
            /* A sockaddr_in6 may come without its scope. */
            int shorter = ns_address_from_sockaddr(&b, &port, (struct sockaddr *)&ss, len - 1);
            ck_assert_int_eq(shorter, v4 ? -EINVAL : 0);
            ck_assert_int_eq(ns_address_from_sockaddr(&b, &port, (struct sockaddr *)&ss, 8), -EINVAL);
            ck_assert_int_eq(ns_address_from_sockaddr(&b, &port, (struct sockaddr *)&ss, 0), -EINVAL);
        }
    }
    a = address("2001:db8::1%3");
    ns_address_to_sockaddr(&a, 1, false, &ss);
    ck_assert_uint_eq(((struct sockaddr_in6 *)&ss)->sin6_scope_id, 0);
    ss.ss_family = AF_UNIX;
    ck_assert_int_eq(ns_address_from_sockaddr(&b, &port, (struct sockaddr *)&ss, sizeof ss), -EAFNOSUPPORT);
}
END_TEST

START_TEST(equality)
{
    struct ns_address a = address("fe80::1%2"), b = address("fe80::1%3");
    struct ns_address c = address("2001:db8::1"), d = c, v4 = address("0.0.0.0"), v6 = address("::");

    ck_assert(!ns_address_equal(&a, &b));
    ck_assert(ns_address_equal(&a, &a));
    d.scope_id = 5;
    ck_assert(ns_address_equal(&c, &d));
    ck_assert(!ns_address_equal(&v4, &v6));
    ck_assert(ns_address_wildcard(&v4) && ns_address_wildcard(&v6));
    ck_assert(!ns_address_wildcard(&c) && !ns_address_loopback(&c));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("path");
    TCase *t = tcase_create("path");

    tcase_add_loop_test(t, rfc_6724_sources, 0, sizeof source_vectors / sizeof source_vectors[0]);
    tcase_add_loop_test(t, rfc_6724_destinations, 0,
                        sizeof destination_vectors / sizeof destination_vectors[0]);
    tcase_add_loop_test(t, own_cases, 0, sizeof own_vectors / sizeof own_vectors[0]);
    tcase_add_test(t, the_failing_pair_goes_last);
    tcase_add_test(t, the_trace_of_the_thesis);
    tcase_add_test(t, the_trace_says_why);
    tcase_add_test(t, any_addresses);
    tcase_add_test(t, too_many_are_cut);
    tcase_add_test(t, scopes);
    tcase_add_test(t, text_and_back);
    tcase_add_test(t, socket_addresses);
    tcase_add_test(t, equality);
    tcase_set_timeout(t, 60);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
