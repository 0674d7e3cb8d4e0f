/* core/ring: what goes in comes out, at its offset, whatever the buffer does underneath. */
#include "core/ring.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#define FIRST NS_RING_FIRST_BYTES
#define LIMIT ((size_t)1 << 20)

/* The byte that the tests put at an offset: differs between neighbours and between laps. */
static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)((offset * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

static void put(struct ns_ring *r, size_t len)
{
    uint8_t *bytes = malloc(len ? len : 1);

    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_at(r->head + i);
    ns_ring_put(r, bytes, len);
    free(bytes);
}

/* Returns the number of pieces, after looking at every byte of them. */
static int verify(const struct ns_ring *r, uint64_t from)
{
    struct iovec piece[2];
    int n = ns_ring_get(r, from, piece);
    uint64_t at = from;

    for (int i = 0; i < n; i++) {
        const uint8_t *bytes = piece[i].iov_base;
        ck_assert_uint_gt(piece[i].iov_len, 0);
        for (size_t k = 0; k < piece[i].iov_len; k++, at++)
            if (bytes[k] != byte_at(at))
                ck_abort_msg("wrong byte at offset %llu", (unsigned long long)at);
    }
    ck_assert_uint_eq(at, r->head);
    return n;
}

START_TEST(empty_takes_no_memory)
{
    struct ns_ring r;
    struct iovec piece[2];

    ns_ring_init(&r, 77);
    ck_assert_ptr_null(r.data);
    ck_assert_uint_eq(r.capacity, 0);
    ck_assert_uint_eq(ns_ring_free(&r), 0);
    ck_assert_uint_eq(ns_ring_used(&r), 0);
    ck_assert_int_eq(ns_ring_get(&r, 77, piece), 0);
    ck_assert_int_eq(ns_ring_reserve(&r, 0, 0), 0);
    ns_ring_put(&r, NULL, 0);
    ck_assert_uint_eq(r.head, 77);
    ns_ring_release(&r);
    ns_ring_destroy(&r);
}
END_TEST

START_TEST(grows_to_powers_of_two_within_the_limit)
{
    struct ns_ring r;

    ns_ring_init(&r, 0);
    ck_assert_int_eq(ns_ring_reserve(&r, 1, LIMIT), 0);
    ck_assert_uint_eq(r.capacity, FIRST);
    ck_assert_int_eq(ns_ring_reserve(&r, FIRST, LIMIT), 0);
    ck_assert_uint_eq(r.capacity, FIRST);
    ck_assert_int_eq(ns_ring_reserve(&r, FIRST + 1, LIMIT), 0);
    ck_assert_uint_eq(r.capacity, 2 * FIRST);
    ck_assert_int_eq(ns_ring_reserve(&r, LIMIT, LIMIT), 0);
    ck_assert_uint_eq(r.capacity, LIMIT);
    ck_assert_int_eq(ns_ring_reserve(&r, LIMIT + 1, LIMIT), -EFBIG);
    ck_assert_uint_eq(r.capacity, LIMIT);
    ck_assert_int_eq(ns_ring_reserve(&r, LIMIT, 0), 0); /* it is there already */
    ns_ring_destroy(&r);

    ns_ring_init(&r, 0);
    ck_assert_int_eq(ns_ring_reserve(&r, 1, FIRST - 1), -EFBIG);
    ck_assert_int_eq(ns_ring_reserve(&r, 1, 0), -EFBIG);
    ck_assert_int_eq(ns_ring_reserve(&r, FIRST + 1, 2 * FIRST - 1), -EFBIG); /* counts as FIRST */
    ck_assert_int_eq(ns_ring_reserve(&r, FIRST, 2 * FIRST - 1), 0);
    ck_assert_int_eq(ns_ring_reserve(&r, SIZE_MAX, SIZE_MAX), -EFBIG);
    ns_ring_destroy(&r);
}
END_TEST

START_TEST(wraps_in_two_pieces)
{
    struct ns_ring r;

    ns_ring_init(&r, 5 * FIRST - 10);
    ck_assert_int_eq(ns_ring_reserve(&r, FIRST, LIMIT), 0);
    put(&r, 10); /* up to the very end */
    ck_assert_int_eq(verify(&r, r.tail), 1);
    put(&r, FIRST - 10); /* full */
    ck_assert_uint_eq(ns_ring_free(&r), 0);
    ck_assert_int_eq(verify(&r, r.tail), 2);
    ck_assert_int_eq(verify(&r, r.tail + 9), 2);
    ck_assert_int_eq(verify(&r, r.tail + 10), 1);
    ck_assert_int_eq(verify(&r, r.head - 1), 1);
    ck_assert_int_eq(verify(&r, r.head), 0);
    ns_ring_trim(&r, r.tail + 15);
    put(&r, 15); /* crosses nothing */
    ck_assert_int_eq(verify(&r, r.tail), 2);
    ns_ring_trim(&r, r.head - 3);
    put(&r, FIRST - 3); /* one memcpy would cross */
    ck_assert_int_eq(verify(&r, r.tail), 2);
    ns_ring_destroy(&r);
}
END_TEST

START_TEST(growing_keeps_the_content)
{
    for (size_t shift = 0; shift < 4; shift++) {
        struct ns_ring r;
        uint64_t start = (UINT64_C(1) << 32) - 7 + shift * FIRST / 4;
        ns_ring_init(&r, start);
        ck_assert_int_eq(ns_ring_reserve(&r, FIRST, LIMIT), 0);
        put(&r, FIRST);
        ck_assert_int_eq(ns_ring_reserve(&r, 1, LIMIT), 0);
        ck_assert_uint_eq(r.capacity, 2 * FIRST);
        ck_assert_uint_eq(r.tail, start);
        verify(&r, start);
        put(&r, FIRST);
        verify(&r, start);
        ns_ring_destroy(&r);
    }
}
END_TEST

static bool is_mapped(void *page)
{
    unsigned char resident;

    return mincore(page, 1, &resident) == 0;
}

START_TEST(narrow_goes_back_to_the_beginning)
{
    for (size_t shift = 0; shift < 8; shift++) {
        struct ns_ring r;
        ns_ring_init(&r, 12345 + shift * FIRST / 8);
        ck_assert_int_eq(ns_ring_reserve(&r, LIMIT, LIMIT), 0);
        uint8_t *pages = r.data;
        put(&r, LIMIT - shift * FIRST);
        ns_ring_narrow(&r); /* a peak */
        ck_assert_uint_eq(r.capacity, LIMIT);
        ns_ring_trim(&r, r.head - FIRST / 4);
        ns_ring_narrow(&r);
        int pieces = verify(&r, r.tail);
        ck_assert_uint_eq(r.capacity, pieces == 1 ? FIRST : LIMIT); /* not over the end */
        ck_assert_ptr_eq(r.data, pages);
        put(&r, FIRST / 2);
        ns_ring_trim(&r, r.tail + FIRST / 2);
        put(&r, FIRST / 2); /* goes on at the beginning */
        verify(&r, r.tail);
        ck_assert_int_eq(ns_ring_reserve(&r, FIRST, LIMIT), 0); /* the next peak */
        ck_assert_uint_eq(r.capacity, pieces == 1 ? 2 * FIRST : LIMIT);
        verify(&r, r.tail);
        put(&r, FIRST);
        ck_assert_int_eq(ns_ring_reserve(&r, LIMIT - ns_ring_used(&r), LIMIT), 0);
        ck_assert_ptr_eq(r.data, pages);
        put(&r, LIMIT - ns_ring_used(&r));
        verify(&r, r.tail);
        ns_ring_trim(&r, r.head);
        ns_ring_release(&r);
        ck_assert(!is_mapped(pages + LIMIT - FIRST));
        ns_ring_destroy(&r);
    }
}
END_TEST

START_TEST(a_failed_growth_changes_nothing)
{
    struct ns_ring r, before;

    ns_ring_init(&r, FIRST - 100);
    ck_assert_int_eq(ns_ring_reserve(&r, 1, LIMIT), 0);
    put(&r, 1000);
    before = r;
    errno = 1234;
    /* More than any address space of ours. */
    ck_assert_int_eq(ns_ring_reserve(&r, (size_t)1 << 60, SIZE_MAX), -ENOMEM);
    ck_assert_int_eq(errno, 1234);
    ck_assert_int_eq(memcmp(&r, &before, sizeof r), 0);
    ck_assert_int_eq(ns_ring_reserve(&r, FIRST, FIRST), -EFBIG);
    ck_assert_int_eq(ns_ring_reserve(&r, SIZE_MAX, SIZE_MAX), -EFBIG);
    ck_assert_int_eq(memcmp(&r, &before, sizeof r), 0);
    verify(&r, r.tail);
    ns_ring_destroy(&r);
}
END_TEST

START_TEST(trimming_never_goes_back)
{
    struct ns_ring r;

    ns_ring_init(&r, 0);
    ck_assert_int_eq(ns_ring_reserve(&r, 100, LIMIT), 0);
    put(&r, 100);
    ns_ring_trim(&r, 60);
    ns_ring_trim(&r, 40);
    ck_assert_uint_eq(r.tail, 60);
    ck_assert_uint_eq(ns_ring_used(&r), 40);
    ns_ring_trim(&r, 100);
    ck_assert_uint_eq(ns_ring_used(&r), 0);
    ck_assert_uint_eq(ns_ring_free(&r), FIRST);
    ns_ring_destroy(&r);
}
END_TEST

START_TEST(release_returns_the_memory_of_an_empty_ring)
{
    struct ns_ring r;

    ns_ring_init(&r, 0);
    ck_assert_int_eq(ns_ring_reserve(&r, LIMIT, LIMIT), 0);
    uint8_t *pages = r.data;
    put(&r, 100);
    ns_ring_release(&r); /* holds bytes: stays */
    ck_assert_ptr_eq(r.data, pages);
    verify(&r, 0);
    ns_ring_trim(&r, 100);
    ck_assert(is_mapped(pages));
    ns_ring_release(&r);
    ck_assert(!is_mapped(pages));
    ck_assert_uint_eq(r.head, 100);
    ck_assert_uint_eq(r.tail, 100);
    ck_assert_uint_eq(ns_ring_free(&r), 0);

    ck_assert_int_eq(ns_ring_reserve(&r, 50, LIMIT), 0); /* and it can be used again */
    ck_assert_uint_eq(r.capacity, FIRST);
    put(&r, 50);
    verify(&r, 100);
    ns_ring_destroy(&r);
    ck_assert_uint_eq(r.head, 0);
    ck_assert_ptr_null(r.data);
}
END_TEST

START_TEST(any_sequence_keeps_every_byte)
{
    struct ns_ring r;

    srand(20);
    ns_ring_init(&r, UINT64_C(0xfffffffffff) - 12345);
    for (int i = 0; i < 4000; i++) {
        size_t len = (size_t)rand() % (i % 8 ? 9000 : 70000);
        int error = ns_ring_reserve(&r, len, LIMIT);
        if (error) {
            ck_assert_int_eq(error, -EFBIG);
            ck_assert_uint_gt(ns_ring_used(&r) + len, LIMIT);
        } else {
            put(&r, len);
        }
        ck_assert_uint_le(r.capacity, LIMIT);
        if (i % 16 == 0)
            verify(&r, r.tail + (uint64_t)rand() % (ns_ring_used(&r) + 1));
        uint64_t step = (uint64_t)rand() % (i % 64 ? 8000 : 600000);
        ns_ring_trim(&r, r.head - r.tail > step ? r.tail + step : r.head);
        if (rand() % 4 == 0)
            ns_ring_narrow(&r);
        if (i % 100 == 0)
            ns_ring_release(&r);
    }
    verify(&r, r.tail);
    ns_ring_destroy(&r);
}
END_TEST

#ifndef NDEBUG
START_TEST(trimming_what_was_never_sent_aborts)
{
    struct ns_ring r;

    ns_ring_init(&r, 10);
    ns_ring_trim(&r, 11);
}
END_TEST

START_TEST(getting_what_was_forgotten_aborts)
{
    struct ns_ring r;
    struct iovec piece[2];

    ns_ring_init(&r, 10);
    ns_ring_get(&r, 9, piece);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("ring");
    TCase *t = tcase_create("ring");

    tcase_add_test(t, empty_takes_no_memory);
    tcase_add_test(t, grows_to_powers_of_two_within_the_limit);
    tcase_add_test(t, wraps_in_two_pieces);
    tcase_add_test(t, growing_keeps_the_content);
    tcase_add_test(t, narrow_goes_back_to_the_beginning);
    tcase_add_test(t, a_failed_growth_changes_nothing);
    tcase_add_test(t, trimming_never_goes_back);
    tcase_add_test(t, release_returns_the_memory_of_an_empty_ring);
    tcase_add_test(t, any_sequence_keeps_every_byte);
#ifndef NDEBUG
    tcase_add_test_raise_signal(t, trimming_what_was_never_sent_aborts, SIGABRT);
    tcase_add_test_raise_signal(t, getting_what_was_forgotten_aborts, SIGABRT);
#endif
    tcase_set_timeout(t, 60);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
