/* Whole lives of sessions: by seed, and the stored corpus of fuzz/fuzz_session.c.
 *
 * NS_SIMULATE=first,last runs other seeds than the usual ones, NS_SIMULATE=seed
 * a single one. */
#include "simulation.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define SEEDS         400
#define RESUMES_LEAST 2 /* a life, on average: else nothing has been tested */

START_TEST(seeds)
{
    uint64_t first = 0, last = SEEDS - 1, resumes = 0;
    const char *given = getenv("NS_SIMULATE");

    if (given) {
        char *rest;

        first = last = strtoull(given, &rest, 0);
        if (*rest == ',')
            last = strtoull(rest + 1, NULL, 0);
    }
    for (uint64_t seed = first; seed <= last; seed++) {
        struct ns_simulation s = ns_simulate_seed(seed);

        ck_assert_msg(!s.failure, "seed %llu: %s, at %.6f s, after %u resumes", (unsigned long long)seed,
                      s.failure, (double)s.at_ns / 1e9, s.resumes);
        resumes += s.resumes;
    }
    if (!given)
        ck_assert_uint_gt(resumes, (uint64_t)RESUMES_LEAST * SEEDS);
}
END_TEST

/* The same seed is the same life: a failure can be looked at again. */
START_TEST(repeatable)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct ns_simulation one = ns_simulate_seed(seed), two = ns_simulate_seed(seed);

        ck_assert_int_eq(one.at_ns, two.at_ns);
        ck_assert_uint_eq(one.resumes, two.resumes);
        ck_assert_uint_eq(one.bytes, two.bytes);
    }
}
END_TEST

START_TEST(corpus)
{
    DIR *directory = opendir(NS_TESTS_DIRECTORY "/corpus/session");
    unsigned replayed = 0;
    struct dirent *entry;

    ck_assert_ptr_nonnull(directory);
    while ((entry = readdir(directory))) {
        uint8_t data[4096];
        char path[4096];

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/corpus/session/%s", NS_TESTS_DIRECTORY, entry->d_name);
        FILE *in = fopen(path, "rb");
        ck_assert_msg(in != NULL, "%s", path);
        size_t bytes = fread(data, 1, sizeof data, in);
        fclose(in);
        struct ns_simulation s = ns_simulate_input(data, bytes);
        ck_assert_msg(!s.failure, "%s: %s", entry->d_name, s.failure);
        replayed++;
    }
    closedir(directory);
    ck_assert_uint_gt(replayed, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("simulation");
    TCase *tests = tcase_create("lives of sessions");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, seeds);
    tcase_add_test(tests, repeatable);
    tcase_add_test(tests, corpus);
    tcase_set_timeout(tests, 600); /* sanitizers and valgrind are slow */
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
