/* What the shim finds behind it, against what the dynamic linker says. */
#include "preload/next.h"
#include "preload/real.h"

#include <check.h>
#include <dlfcn.h>
#include <stdlib.h>

static const char *const names[] = {
#define X(result, name, args) #name,
    NS_REAL_PLAIN(X)
#undef X
#define X(result, failure, name, params, args) #name,
        NS_REAL_WHOLE(X)
#undef X
            "quick_exit",
};

#define COUNT ((int)(sizeof names / sizeof *names))

/* Behind the program itself, as behind the shim: whatever was loaded with it. */
START_TEST(it_is_what_the_linker_finds)
{
    unsigned found = 0;

    ck_assert_ptr_nonnull(ns_next_begin(names));
    for (int i = 0; i < COUNT; i++) {
        void *f = ns_next_find(names[i]);

        ck_assert_msg(!f || f == dlsym(RTLD_NEXT, names[i]), "%s", names[i]);
        found += f != NULL;
    }
    /* All but what libc lacks, or another library has in a form that is the linker's. */
    ck_assert_uint_gt(found, (unsigned)COUNT / 2);
}
END_TEST

/* Data, an indirect function, one that was a default version once, and none at all. */
START_TEST(what_is_no_plain_function_is_left_to_the_linker)
{
    ck_assert_ptr_nonnull(ns_next_begin(names));
    ck_assert_ptr_null(ns_next_find("environ"));
    ck_assert_ptr_null(ns_next_find("memcpy"));
    ck_assert_ptr_null(ns_next_find("no_such_function"));
    ck_assert_ptr_null(ns_next_find(""));
}
END_TEST

/* posix_spawn has two versions; dlvsym tells the old one. */
START_TEST(of_two_versions_it_is_the_default_one)
{
    void *old = dlvsym(RTLD_NEXT, "posix_spawn", "GLIBC_2.2.5");

    ck_assert_ptr_nonnull(ns_next_begin(names));
    if (old)
        ck_assert_ptr_ne(ns_next_find("posix_spawn"), old);
}
END_TEST

START_TEST(nothing_is_found_before_it_was_learnt)
{
    ck_assert_ptr_null(ns_next_find("read"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("next");
    TCase *tcase = tcase_create("next");
    tcase_add_test(tcase, it_is_what_the_linker_finds);
    tcase_add_test(tcase, what_is_no_plain_function_is_left_to_the_linker);
    tcase_add_test(tcase, of_two_versions_it_is_the_default_one);
    tcase_add_test(tcase, nothing_is_found_before_it_was_learnt);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
