#include <arpa/inet.h>
#include <check.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/link.h"
#include "engine/sys.h"
#include "namespace.h"

/*
 * Everything happens in a network namespace of the test's own:
 *
 *     [ left ]----------------[ right ]     one veth pair, both ends here,
 *                                           made afresh for each test
 */

#define EVENTS_MAX 2048

/* Longer than any event takes, duplicate address detection (a second or two) included. */
#define PATIENCE_MS 15000

struct seen {
    size_t n;
    struct ns_link_event event[EVENTS_MAX];
};

static struct seen seen;
static int fd;

static void note(void *ctx, const struct ns_link_event *event)
{
    struct seen *s = ctx;

    ck_assert_uint_lt(s->n, EVENTS_MAX);
    s->event[s->n++] = *event;
}

static uint32_t left(void)
{
    return if_nametoindex("left");
}

static bool is_address(const struct ns_address *a, const char *text)
{
    uint8_t bytes[16] = { 0 };
    int family = strchr(text, ':') ? AF_INET6 : AF_INET;

    ck_assert_int_eq(inet_pton(family, text, bytes), 1);
    return a->family == family && memcmp(a->bytes, bytes, sizeof(bytes)) == 0;
}

/* The place of the first such event from `from` on, or -1. `address` NULL: any. */
static int find(size_t from, enum ns_link_kind kind, uint32_t ifindex, const char *address)
{
    for (size_t i = from; i < seen.n; i++) {
        const struct ns_link_event *e = &seen.event[i];

        if (e->kind == kind && e->ifindex == ifindex && (!address || is_address(&e->address, address)))
            return (int)i;
    }
    return -1;
}

/* Waits for an event on the descriptor, and only there. */
static int await(size_t from, enum ns_link_kind kind, uint32_t ifindex, const char *address)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int at;

    while ((at = find(from, kind, ifindex, address)) < 0) {
        if (poll(&p, 1, PATIENCE_MS) <= 0)
            ck_abort_msg("no event %d for link %u, address %s", kind, ifindex, address ? address : "any");
        ns_link_read(fd, note, &seen);
    }
    return at;
}

/* Reads off whatever a change of links made so far has announced. */
static void settle(void)
{
    ns_link_read(fd, note, &seen);
    seen.n = 0;
}

static const struct ns_local *local_of(const struct ns_local *list, ssize_t n, const char *address)
{
    for (ssize_t i = 0; i < n; i++) {
        if (is_address(&list[i].address, address))
            return &list[i];
    }
    return NULL;
}

static void make_links(void)
{
    ns_test_run("ip link add left type veth peer name right && ip link set left up && ip link set right up");
    fd = ns_link_open();
    ck_assert_int_ge(fd, 3);
    seen.n = 0;
}

static void delete_links(void)
{
    ns_sys_close(fd);
    system("ip link del left 2>/dev/null");
}

START_TEST(descriptor_is_out_of_the_way)
{
    ck_assert_int_ge(
        fd, (int)(ns_sys_fd_limit() / 2 < NS_SYS_HIGH_MAX ? ns_sys_fd_limit() / 2 : NS_SYS_HIGH_MAX));
    ck_assert_int_eq(ns_sys_fcntl(fd, F_GETFD, 0), FD_CLOEXEC);
    ck_assert_int_ne(ns_sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK, 0);
    /* With nothing to read it returns and calls nobody. */
    ns_link_read(fd, note, &seen);
    seen.n = 0;
    ns_link_read(fd, note, &seen);
    ck_assert_uint_eq(seen.n, 0);
}
END_TEST

START_TEST(ipv4_address_comes_and_goes)
{
    int came, gone;

    settle();
    ns_test_run("ip addr add 192.0.2.1/24 dev left");
    came = await(0, NS_LINK_ADDRESS_CAME, left(), "192.0.2.1");
    await(0, NS_LINK_ROUTE_CHANGED, left(), NULL);
    ns_test_run("ip addr del 192.0.2.1/24 dev left");
    gone = await(0, NS_LINK_ADDRESS_GONE, left(), "192.0.2.1");
    ck_assert_int_lt(came, gone);
    ck_assert_int_eq(find(0, NS_LINK_DOWN, left(), NULL), -1);
}
END_TEST

START_TEST(ipv6_address_comes_and_goes)
{
    settle();
    ns_test_run("ip addr add 2001:db8::1/64 dev left nodad");
    await(0, NS_LINK_ADDRESS_CAME, left(), "2001:db8::1");
    ns_test_run("ip addr del 2001:db8::1/64 dev left");
    await(0, NS_LINK_ADDRESS_GONE, left(), "2001:db8::1");
}
END_TEST

START_TEST(tentative_address_has_not_come)
{
    struct ns_local list[32];
    const struct ns_local *local;
    ssize_t n;

    /* Without carrier detection cannot run, so that the address stays tentative. */
    ns_test_run("ip link set right down");
    await(0, NS_LINK_DOWN, left(), NULL);
    ns_test_run("ip addr add 2001:db8::2/64 dev left");
    ns_test_run("ip addr add 192.0.2.2/24 dev left");
    await(0, NS_LINK_ADDRESS_CAME, left(), "192.0.2.2");
    ck_assert_int_eq(find(0, NS_LINK_ADDRESS_CAME, left(), "2001:db8::2"), -1);
    n = ns_link_addresses(list, 32);
    local = local_of(list, n, "2001:db8::2");
    ck_assert_ptr_nonnull(local);
    ck_assert(local->tentative);
    ck_assert(!local->carrier);

    ns_test_run("ip link set right up");
    await(0, NS_LINK_ADDRESS_CAME, left(), "2001:db8::2");
    n = ns_link_addresses(list, 32);
    local = local_of(list, n, "2001:db8::2");
    ck_assert_ptr_nonnull(local);
    ck_assert(!local->tentative);
    ck_assert(local->carrier);
}
END_TEST

START_TEST(link_goes_down_and_up)
{
    size_t down;

    settle();
    ns_test_run("ip link set left down");
    down = (size_t)await(0, NS_LINK_DOWN, left(), NULL);
    ns_test_run("ip link set left up");
    await(down, NS_LINK_UP, left(), NULL);
}
END_TEST

START_TEST(carrier_is_lost_and_found)
{
    struct ns_local list[32];
    size_t down;
    ssize_t n;

    ns_test_run("ip addr add 192.0.2.3/24 dev left");
    settle();
    ns_test_run("ip link set right down");
    down = (size_t)await(0, NS_LINK_DOWN, left(), NULL);
    ck_assert_int_eq(find(0, NS_LINK_ADDRESS_GONE, left(), "192.0.2.3"), -1);
    n = ns_link_addresses(list, 32);
    ck_assert_ptr_nonnull(local_of(list, n, "192.0.2.3"));
    ck_assert(!local_of(list, n, "192.0.2.3")->carrier);
    ns_test_run("ip link set right up");
    await(down, NS_LINK_UP, left(), NULL);
    n = ns_link_addresses(list, 32);
    ck_assert(local_of(list, n, "192.0.2.3")->carrier);
}
END_TEST

START_TEST(deleted_link_is_down)
{
    uint32_t ifindex = left();

    ns_test_run("ip addr add 192.0.2.4/24 dev left");
    settle();
    ns_test_run("ip link del left");
    await(0, NS_LINK_DOWN, ifindex, NULL);
    await(0, NS_LINK_ADDRESS_GONE, ifindex, "192.0.2.4");
}
END_TEST

START_TEST(default_route_comes_and_goes)
{
    size_t last;

    ns_test_run("ip addr add 192.0.2.5/24 dev left");
    settle();
    ns_test_run("ip route add default via 192.0.2.6 dev left");
    last = (size_t)await(0, NS_LINK_ROUTE_CHANGED, left(), NULL);
    ns_test_run("ip route del default via 192.0.2.6 dev left");
    await(last + 1, NS_LINK_ROUTE_CHANGED, left(), NULL);
}
END_TEST

/* 250 addresses of left, in a file for ip -batch. */
static void write_batch(const char *path, const char *verb)
{
    char text[16384] = "";
    size_t len = 0;

    for (int i = 1; i <= 250; i++)
        len +=
            (size_t)snprintf(text + len, sizeof(text) - len, "addr %s 198.51.100.%d/32 dev left\n", verb, i);
    ns_test_write_file(path, text);
}

START_TEST(overrun_is_told)
{
    int bytes = 1;

    ck_assert_int_eq(ns_sys_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
    write_batch("/etc/add", "add");
    ns_test_run("ip -batch /etc/add");
    await(0, NS_LINK_OVERRUN, 0, NULL);
    /* It goes on working. */
    ns_test_run("ip addr add 192.0.2.7/24 dev left");
    await(0, NS_LINK_ADDRESS_CAME, left(), "192.0.2.7");
}
END_TEST

START_TEST(snapshot_tells_all_of_an_address)
{
    struct ns_local list[64];
    const struct ns_local *local;
    ssize_t n;

    ns_test_run("ip addr add 192.0.2.8/22 dev left;"
                "ip addr add 203.0.113.1 peer 203.0.113.2/31 dev left;"
                "ip addr add fe80::8/64 dev left nodad;"
                "ip addr add 2001:db8:1::8/56 dev left nodad;"
                "ip addr add 2001:db8:2::8/64 dev left nodad preferred_lft 0");
    n = ns_link_addresses(list, 64);
    ck_assert_int_gt(n, 6);

    local = local_of(list, n, "192.0.2.8");
    ck_assert_ptr_nonnull(local);
    ck_assert_uint_eq(local->ifindex, left());
    ck_assert_uint_eq(local->prefix_length, 22);
    ck_assert(local->carrier && !local->tentative && !local->deprecated && !local->loopback);
    /* Of a point-to-point address the local end. */
    ck_assert_ptr_nonnull(local_of(list, n, "203.0.113.1"));
    ck_assert_ptr_null(local_of(list, n, "203.0.113.2"));

    local = local_of(list, n, "fe80::8");
    ck_assert_ptr_nonnull(local);
    ck_assert_uint_eq(local->address.scope_id, left());
    local = local_of(list, n, "2001:db8:1::8");
    ck_assert_ptr_nonnull(local);
    ck_assert_uint_eq(local->address.scope_id, 0);
    ck_assert_uint_eq(local->prefix_length, 56);
    ck_assert(local->carrier && !local->tentative && !local->deprecated && !local->temporary);
    local = local_of(list, n, "2001:db8:2::8");
    ck_assert_ptr_nonnull(local);
    ck_assert(local->deprecated);

    local = local_of(list, n, "127.0.0.1");
    ck_assert_ptr_nonnull(local);
    ck_assert(local->loopback && local->carrier);
    ck_assert_ptr_nonnull(local_of(list, n, "::1"));
}
END_TEST

START_TEST(temporary_address_is_told_from_others)
{
    struct ns_local list[64];
    ssize_t n, temporary = 0;

    ns_test_write_file("/proc/sys/net/ipv6/conf/left/use_tempaddr", "2");
    ns_test_run("ip addr add 2001:db8:3::8/64 dev left nodad mngtmpaddr valid_lft 7200 preferred_lft 7200");
    /* The kernel makes the temporary one beside it, within the same call. */
    n = ns_link_addresses(list, 64);
    for (ssize_t i = 0; i < n; i++)
        temporary += list[i].temporary && list[i].ifindex == left();
    ck_assert_int_eq(temporary, 1);
    ck_assert(!local_of(list, n, "2001:db8:3::8")->temporary);
    /* A second address of one IPv4 subnet carries the same bit with another meaning. */
    ns_test_run("ip addr add 192.0.2.9/24 dev left; ip addr add 192.0.2.10/24 dev left");
    n = ns_link_addresses(list, 64);
    ck_assert(!local_of(list, n, "192.0.2.10")->temporary);
}
END_TEST

START_TEST(snapshot_of_many_and_of_none)
{
    static struct ns_local list[512];
    int before = ns_test_count_fds();
    ssize_t n;

    write_batch("/etc/add", "add");
    ns_test_run("ip -batch /etc/add");
    n = ns_link_addresses(list, 512);
    ck_assert_int_gt(n, 250);
    ck_assert_ptr_nonnull(local_of(list, n, "198.51.100.250"));
    ck_assert_int_eq(ns_link_addresses(list, 7), 7);
    ck_assert_int_eq(ns_link_addresses(list, 0), 0);
    ck_assert_int_eq(ns_test_count_fds(), before);
}
END_TEST

static Suite *link_suite(void)
{
    Suite *s = suite_create("link");
    TCase *events = tcase_create("events");
    TCase *snapshot = tcase_create("snapshot");

    tcase_add_checked_fixture(events, make_links, delete_links);
    tcase_set_timeout(events, 60);
    tcase_add_test(events, descriptor_is_out_of_the_way);
    tcase_add_test(events, ipv4_address_comes_and_goes);
    tcase_add_test(events, ipv6_address_comes_and_goes);
    tcase_add_test(events, tentative_address_has_not_come);
    tcase_add_test(events, link_goes_down_and_up);
    tcase_add_test(events, carrier_is_lost_and_found);
    tcase_add_test(events, deleted_link_is_down);
    tcase_add_test(events, default_route_comes_and_goes);
    tcase_add_test(events, overrun_is_told);
    suite_add_tcase(s, events);

    tcase_add_checked_fixture(snapshot, make_links, delete_links);
    tcase_set_timeout(snapshot, 60);
    tcase_add_test(snapshot, snapshot_tells_all_of_an_address);
    tcase_add_test(snapshot, temporary_address_is_told_from_others);
    tcase_add_test(snapshot, snapshot_of_many_and_of_none);
    suite_add_tcase(s, snapshot);
    return s;
}

int main(void)
{
    SRunner *runner;
    int failed;

    if (!ns_test_enter_namespace())
        return NS_TEST_SKIPPED;
    if (system("ip link add left type veth peer name right && ip link del left") != 0) {
        fprintf(stderr, "skipped: no veth pair, or no ip(8) to make one\n");
        return NS_TEST_SKIPPED;
    }
    runner = srunner_create(link_suite());
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
