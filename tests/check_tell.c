/* Which addresses a server tells whom. */
#include "core/tell.h"

#include <check.h>
#include <stdlib.h>

static struct ns_address address(const char *text)
{
    struct ns_address a;
    ck_assert_int_eq(ns_address_parse(&a, text), 0);
    return a;
}

static struct ns_local local(const char *text, uint8_t prefix_length)
{
    return (struct ns_local){ .address = address(text), .prefix_length = prefix_length, .carrier = true };
}

static const struct {
    const char *text;
    bool private;
} ranges[] = {
    { "9.255.255.255", false },   { "10.0.0.0", true },          { "10.255.255.255", true },
    { "11.0.0.0", false },        { "172.15.255.255", false },   { "172.16.0.0", true },
    { "172.31.255.255", true },   { "172.32.0.0", false },       { "192.167.255.255", false },
    { "192.168.0.0", true },      { "192.169.0.0", false },      { "100.63.255.255", false },
    { "100.64.0.0", true },       { "100.127.255.255", true },   { "100.128.0.0", false },
    { "169.254.7.7", true },      { "127.9.9.9", true },         { "203.0.113.9", false },
    { "fbff::1", false },         { "fc00::1", true },           { "fdff::1", true },
    { "fe00::1", false },         { "fe80::1%2", true },         { "febf::1%2", true },
    { "fec0::1", true },          { "ff05::1", false },          { "2001:db8::1", false },
    { "3ffe:2a00::1", false },    { "::1", true },               { "::2", false },
    { "a00::1", false },
};

START_TEST(ranges_end_where_they_end)
{
    struct ns_address a = address(ranges[_i].text);
    ck_assert_msg(ns_address_private(&a) == ranges[_i].private, "%s", ranges[_i].text);
}
END_TEST

/* A server with a public side, an inside, and a link to its neighbours. */
static const struct {
    const char *peer;
    bool public, inside;
} peers[] = {
    { "198.51.100.1", true, false },   /* from far away */
    { "2001:db8:9::1", true, false },
    { "10.200.0.1", true, true },      /* from an inside, whichever */
    { "fd12::1", true, true },
    { "fe80::5%2", true, true },
    { "203.0.113.77", true, true },    /* on the public side's own network */
    { "203.0.114.77", true, false },
    { "2001:db8:1::77", true, true },
    { "127.0.0.1", true, true },       /* from here */
    { "203.0.113.9", true, true },
};

START_TEST(the_inside_is_told_to_the_inside)
{
    struct ns_local all[] = { local("203.0.113.9", 24), local("2001:db8:1::9", 64), local("192.168.1.9", 24),
                              local("fd00::9", 64), local("192.0.2.1", 0) };
    struct ns_address peer = address(peers[_i].peer);
    for (size_t i = 0; i < 5; i++) {
        bool wanted = i == 2 || i == 3 ? peers[_i].inside : peers[_i].public;
        ck_assert_msg(ns_local_may_be_told(&all[i], &peer, all, 5) == wanted, "%s, address %zu", peers[_i].peer, i);
    }
}
END_TEST

START_TEST(what_is_of_no_use_is_told_to_nobody)
{
    struct ns_address peer = address("10.0.0.1");
    struct ns_local good = local("203.0.113.9", 24), l = good;
    ck_assert(ns_local_may_be_told(&l, &peer, &l, 1));
    l.carrier = false;
    ck_assert(!ns_local_may_be_told(&l, &peer, &l, 1));
    l = good;
    l.tentative = true;
    ck_assert(!ns_local_may_be_told(&l, &peer, &l, 1));
    l = good;
    l.deprecated = true;
    ck_assert(!ns_local_may_be_told(&l, &peer, &l, 1));
    l = good;
    l.loopback = true;
    ck_assert(!ns_local_may_be_told(&l, &peer, &l, 1));
    l = local("fe80::9%2", 64);
    ck_assert(!ns_local_may_be_told(&l, &peer, &l, 1));
    l = local("169.254.1.1", 16);
    ck_assert(!ns_local_may_be_told(&l, &peer, &l, 1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tell");
    TCase *t = tcase_create("tell");
    tcase_add_loop_test(t, ranges_end_where_they_end, 0, sizeof ranges / sizeof ranges[0]);
    tcase_add_loop_test(t, the_inside_is_told_to_the_inside, 0, sizeof peers / sizeof peers[0]);
    tcase_add_test(t, what_is_of_no_use_is_told_to_nobody);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
