/* Medians, quartiles and pairwise ratios of bench/stats.c. */
#include "../bench/stats.h"

#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

START_TEST(quantiles_interpolate)
{
    const double five[] = { 1, 2, 3, 4, 10 }, four[] = { 1, 2, 3, 4 };

    ck_assert_double_eq(ns_quantile(five, 5, 0.5), 3);
    ck_assert_double_eq(ns_quantile(five, 5, 0.25), 2);
    ck_assert_double_eq(ns_quantile(five, 5, 0), 1);
    ck_assert_double_eq(ns_quantile(five, 5, 1), 10);
    /* Even count: between the middle two; quartiles at rank 0.75 and 2.25. */
    ck_assert_double_eq_tol(ns_quantile(four, 4, 0.5), 2.5, 1e-12);
    ck_assert_double_eq_tol(ns_quantile(four, 4, 0.25), 1.75, 1e-12);
    ck_assert_double_eq_tol(ns_quantile(four, 4, 0.75), 3.25, 1e-12);
}
END_TEST

START_TEST(spread_sorts_a_copy)
{
    double samples[] = { 9, 1, 5, 3, 7 };
    struct ns_spread s;

    ck_assert_int_eq(ns_spread(samples, COUNT(samples), &s), 0);
    ck_assert_double_eq(s.low, 3);
    ck_assert_double_eq(s.median, 5);
    ck_assert_double_eq(s.high, 7);
    ck_assert_double_eq(samples[0], 9);
    ck_assert_double_eq(samples[4], 7);
}
END_TEST

START_TEST(spread_of_one)
{
    const double one = 42;
    struct ns_spread s;

    ck_assert_int_eq(ns_spread(&one, 1, &s), 0);
    ck_assert_double_eq(s.low, 42);
    ck_assert_double_eq(s.median, 42);
    ck_assert_double_eq(s.high, 42);
}
END_TEST

START_TEST(spread_refuses)
{
    const double bad[] = { 1, NAN, 2 }, endless[] = { INFINITY };
    struct ns_spread s = { -1, -1, -1 };

    ck_assert_int_eq(ns_spread(bad, 0, &s), -EINVAL);
    ck_assert_int_eq(ns_spread(bad, COUNT(bad), &s), -EINVAL);
    ck_assert_int_eq(ns_spread(endless, 1, &s), -EINVAL);
    ck_assert_double_eq(s.median, -1);
}
END_TEST

/* The machine halves its speed in the middle of the run: the medians of the two
 * series say nothing about their ratio, the pairs do. */
START_TEST(ratio_is_pairwise)
{
    const double base[] = { 100, 100, 50, 50, 50 }, samples[] = { 90, 90, 45, 45, 45 };
    const double mixed_base[] = { 10, 20, 40 }, mixed[] = { 20, 20, 20 };
    struct ns_spread s;

    ck_assert_int_eq(ns_ratio_spread(samples, base, COUNT(base), &s), 0);
    ck_assert_double_eq_tol(s.low, 0.9, 1e-12);
    ck_assert_double_eq_tol(s.median, 0.9, 1e-12);
    ck_assert_double_eq_tol(s.high, 0.9, 1e-12);

    ck_assert_int_eq(ns_ratio_spread(mixed, mixed_base, 3, &s), 0);
    ck_assert_double_eq_tol(s.low, 0.75, 1e-12);
    ck_assert_double_eq_tol(s.median, 1, 1e-12);
    ck_assert_double_eq_tol(s.high, 1.5, 1e-12);
}
END_TEST

START_TEST(ratio_refuses)
{
    const double samples[] = { 1, 2 }, zero[] = { 1, 0 }, negative[] = { -1, 1 };
    struct ns_spread s;

    ck_assert_int_eq(ns_ratio_spread(samples, zero, 2, &s), -EINVAL);
    ck_assert_int_eq(ns_ratio_spread(samples, negative, 2, &s), -EINVAL);
    ck_assert_int_eq(ns_ratio_spread(samples, zero, 0, &s), -EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench stats");
    TCase *tc = tcase_create("stats");
    SRunner *runner;
    int failed;

    tcase_add_test(tc, quantiles_interpolate);
    tcase_add_test(tc, spread_sorts_a_copy);
    tcase_add_test(tc, spread_of_one);
    tcase_add_test(tc, spread_refuses);
    tcase_add_test(tc, ratio_is_pairwise);
    tcase_add_test(tc, ratio_refuses);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
