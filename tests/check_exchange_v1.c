/* Version 1's exchange: 32-bit counters (thesis 4.2.3) for 64-bit offsets. */
#include "session_pair.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

START_TEST(counters)
{
    static const uint64_t offsets[] = { 0,           1,           0x7fffffff,  0x80000000,    0xffffffff,
                                        0x100000000, 0x100000001, 0x7ffffffff, 0x123456789abc };

    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++)
        for (uint64_t behind = 0; behind <= offsets[i] && behind < 0x80000000; behind = behind * 3 + 1)
            ck_assert_uint_eq(ns_v1_offset(ns_v1_counter(offsets[i] - behind), offsets[i]),
                              offsets[i] - behind);
}
END_TEST

/* A ring across 2^32: each counter stands for the one byte that it can. */
START_TEST(wraps)
{
    const uint64_t tail = ((uint64_t)1 << 32) - 100;
    struct ns_session s;

    for (int role = NS_CLIENT; role <= NS_SERVER; role++) {
        ns_session_init(&s, (enum ns_role)role, 1);
        ns_ring_init(&s.ring, tail);
        ns_pair_write(&s, 300);
        for (uint64_t at = tail; at <= tail + 300; at++) {
            ck_assert_int_eq(ns_session_resume_v1(&s, (uint32_t)at, 77, 20, 8), 0);
            ck_assert_uint_eq(s.carrier.tx_start, at);
            ck_assert_uint_eq(s.carrier.tx_position, at);
            ck_assert_uint_eq(s.carrier.rx_start, 77);
            ck_assert_uint_eq(s.carrier.rx_floor, 77);
            ck_assert_uint_eq(s.carrier.tx_header_bytes, 20);
            ck_assert_uint_eq(s.carrier.rx_header_bytes, 8);
            ck_assert(s.carrier.adopted);
            ck_assert_int_eq(s.carrier.opener, role == NS_CLIENT);
        }
        ck_assert_int_eq(ns_session_resume_v1(&s, (uint32_t)(tail - 1), 77, 20, 8), -ENODATA);
        ck_assert_int_eq(ns_session_resume_v1(&s, (uint32_t)(tail + 301), 77, 20, 8), -EPROTO);
        s.tx_ended = true;
        ck_assert_int_eq(ns_session_resume_v1(&s, (uint32_t)(tail + 301), 77, 20, 8), 0);
        ck_assert_uint_eq(s.carrier.tx_start, tail + 300);
        ck_assert_int_eq(ns_session_resume_v1(&s, (uint32_t)(tail + 302), 77, 20, 8), 0); /* FIN, twice */
        ck_assert_int_eq(ns_session_resume_v1(&s, (uint32_t)(tail + 304), 77, 20, 8), -EPROTO);
        ns_session_destroy(&s);
    }
}
END_TEST

/* Before the first 2^31 bytes, a counter below zero was never an offset. */
START_TEST(below_zero)
{
    struct ns_session s;

    ns_session_init(&s, NS_CLIENT, 1);
    ns_pair_write(&s, 10);
    ck_assert_int_lt(ns_session_resume_v1(&s, UINT32_MAX, 0, 20, 8), 0);
    ck_assert_int_eq(ns_session_resume_v1(&s, 0, 0, 20, 8), 0);
    ns_session_destroy(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exchange_v1");
    TCase *tests = tcase_create("version 1");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, counters);
    tcase_add_test(tests, wraps);
    tcase_add_test(tests, below_zero);
    tcase_set_timeout(tests, 60); /* sanitizers and valgrind are slow */
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
