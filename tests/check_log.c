/* core/log: the thesis's lines, byte for byte, and how many of them. */
#include "core/log.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct capture {
    char line[2 * NS_LOG_LINE_BYTES];
    enum ns_log_level level;
    int lines;
    int64_t wall_us;
};

static void keep(void *ctx, enum ns_log_level level, const char *line, size_t bytes)
{
    struct capture *c = ctx;

    ck_assert_uint_eq(strlen(line), bytes);
    ck_assert_uint_lt(bytes, NS_LOG_LINE_BYTES);
    ck_assert_int_eq(line[bytes - 1], '\n');
    ck_assert_ptr_eq(strchr(line, '\n'), line + bytes - 1);
    memcpy(c->line, line, bytes + 1);
    c->level = level;
    c->lines++;
    errno = EBADF; /* sinks write, and writes fail */
}

static int64_t wall(void *ctx)
{
    return ((struct capture *)ctx)->wall_us;
}

/* 1999-12-09 01:53:25, an hour east of Greenwich, as on the thesis's desk. */
#define THESIS_S  INT64_C(944700805)
#define SECOND_US INT64_C(1000000)

static struct ns_log log_to(struct capture *c, enum ns_log_level level)
{
    static const int32_t pid = 646;

    *c = (struct capture){ .wall_us = THESIS_S * SECOND_US };
    return (struct ns_log){
        .level = level, .sink = keep, .wall_us = wall, .ctx = c, .utc_offset_s = 3600, .pid = &pid
    };
}

START_TEST(the_thesis_line)
{
    struct capture c;
    struct ns_log log = log_to(&c, NS_LOG_INFO);

    ns_log(&log, NS_LOG_INFO, "Successfully resumed at server\n");
    ck_assert_str_eq(c.line, "Info: 646 - Thu Dec  9 01:53:25 1999 - Successfully resumed at server\n");
    ck_assert_int_eq(c.level, NS_LOG_INFO);
    log.pid = &(const int32_t){ 415 };
    c.wall_us = (THESIS_S - 311) * SECOND_US;
    ns_log_error(&log, NS_LOG_ERROR, "connect", EHOSTUNREACH);
    ck_assert_str_eq(c.line, "Error: 415 - Thu Dec  9 01:48:14 1999 - connect: No route to host\n");
    log.level = NS_LOG_DEBUG;
    ns_log(&log, NS_LOG_DEBUG, "nrecv: got %d bytes", 5);
    ck_assert_str_eq(c.line, "Debug: 415 - Thu Dec  9 01:48:14 1999 - nrecv: got 5 bytes\n");
}
END_TEST

START_TEST(levels_are_kept)
{
    struct capture c;

    for (int level = NS_LOG_ERROR; level <= NS_LOG_DEBUG; level++) {
        struct ns_log log = log_to(&c, (enum ns_log_level)level);
        ns_log(&log, NS_LOG_ERROR, "a");
        ns_log(&log, NS_LOG_INFO, "b");
        ns_log(&log, NS_LOG_DEBUG, "c");
        ck_assert_int_eq(c.lines, level + 1);
        ck_assert(ns_log_wanted(&log, NS_LOG_ERROR));
        ck_assert_int_eq(ns_log_wanted(&log, NS_LOG_DEBUG), level == NS_LOG_DEBUG);
    }
    struct ns_log mute = log_to(&c, NS_LOG_DEBUG);
    mute.sink = NULL;
    ns_log(&mute, NS_LOG_ERROR, "a");
    ns_log(NULL, NS_LOG_ERROR, "a");
    ns_log_error(NULL, NS_LOG_ERROR, "a", EIO);
    ck_assert_int_eq(c.lines, 0);
}
END_TEST

START_TEST(errno_is_left_alone)
{
    struct capture c;
    struct ns_log log = log_to(&c, NS_LOG_INFO);

    errno = EAGAIN;
    ns_log(&log, NS_LOG_INFO, "x");
    ck_assert_int_eq(errno, EAGAIN);
    ns_log_error(&log, NS_LOG_INFO, "x", EIO);
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_int_eq(c.lines, 2);
}
END_TEST

START_TEST(errors_of_either_sign)
{
    struct capture c;
    struct ns_log log = log_to(&c, NS_LOG_INFO);

    ns_log_error(&log, NS_LOG_INFO, "send", -ETIMEDOUT);
    ck_assert_ptr_nonnull(strstr(c.line, " - send: Connection timed out\n"));
    ns_log_error(&log, NS_LOG_INFO, "send", 99999);
    ck_assert_ptr_nonnull(strstr(c.line, " - send: error 99999\n"));
    ns_log_error(&log, NS_LOG_INFO, "send", INT32_MIN);
    ck_assert_ptr_nonnull(strstr(c.line, " - send: error 2147483648\n"));
}
END_TEST

START_TEST(a_line_stays_a_line)
{
    struct capture c;
    struct ns_log log = log_to(&c, NS_LOG_INFO);

    ns_log(&log, NS_LOG_INFO, "from %s", "evil\nError: 1 - \x1b[2J\r\x7f");
    ck_assert_ptr_nonnull(strstr(c.line, " - from evil?Error: 1 - ?[2J??\n"));
    ns_log(&log, NS_LOG_INFO, "%s", "");
    ck_assert_ptr_nonnull(strstr(c.line, "1999 - \n"));
    ns_log(&log, NS_LOG_INFO, "\n");
    ck_assert_ptr_nonnull(strstr(c.line, "1999 - \n"));
    ns_log(&log, NS_LOG_INFO, "bl\xc3\xa5");
    ck_assert_ptr_nonnull(strstr(c.line, " - bl\xc3\xa5\n"));
}
END_TEST

START_TEST(long_lines_are_cut)
{
    struct capture c;
    struct ns_log log = log_to(&c, NS_LOG_INFO);
    const size_t prefix = strlen("Info: 646 - Thu Dec  9 01:53:25 1999 - ");
    const size_t fits = NS_LOG_LINE_BYTES - prefix - 2;
    char text[3000];

    for (size_t len = fits - 3; len < fits + 3; len++) {
        memset(text, 'x', len);
        text[len] = '\0';
        ns_log(&log, NS_LOG_INFO, "%s", text);
        ck_assert_uint_eq(strlen(c.line), prefix + (len < fits ? len : fits) + 1);
        ck_assert_int_eq(strstr(c.line, "xxx...\n") != NULL, len > fits);
    }
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    ns_log(&log, NS_LOG_INFO, "%s", text);
    ck_assert_uint_eq(strlen(c.line), NS_LOG_LINE_BYTES - 1);
}
END_TEST

/* The date in the line, against libc's. */
static void check_date(int64_t wall_s, int32_t utc_offset_s)
{
    struct capture c;
    struct ns_log log = log_to(&c, NS_LOG_INFO);
    time_t local = (time_t)(wall_s + utc_offset_s);
    struct tm tm;
    char expected[128], date[64];

    c.wall_us = wall_s * SECOND_US;
    log.utc_offset_s = utc_offset_s;
    ns_log(&log, NS_LOG_INFO, "x");
    gmtime_r(&local, &tm);
    strftime(date, sizeof date, "%a %b %e %H:%M:%S", &tm);
    snprintf(expected, sizeof expected, "Info: 646 - %s %d - x\n", date, tm.tm_year + 1900);
    ck_assert_str_eq(c.line, expected);
}

START_TEST(dates_are_the_calendars)
{
    const int64_t day = 86400, four_centuries = 146097 * day;

    check_date(0, 0);
    check_date(-1, 0);
    check_date(951782399, 1);  /* into 2000-02-29 */
    check_date(951868799, 1);  /* into 2000-03-01 */
    check_date(4107542399, 1); /* into 2100-03-01: 2100 has no leap day */
    check_date(THESIS_S, -12 * 3600);
    check_date(THESIS_S, 14 * 3600);
    for (int64_t s = -four_centuries; s < four_centuries; s += 5 * day + 12345)
        check_date(s, 0);
}
END_TEST

START_TEST(without_a_clock)
{
    struct capture c;
    struct ns_log log = log_to(&c, NS_LOG_INFO);

    log.wall_us = NULL;
    log.utc_offset_s = 0;
    ns_log(&log, NS_LOG_INFO, "x");
    ck_assert_str_eq(c.line, "Info: 646 - Thu Jan  1 00:00:00 1970 - x\n");
}
END_TEST

START_TEST(microseconds_when_asked_for)
{
    struct capture c;
    struct ns_log log = log_to(&c, NS_LOG_INFO);

    log.microseconds = true;
    c.wall_us += 42;
    ns_log(&log, NS_LOG_INFO, "x");
    ck_assert_str_eq(c.line, "Info: 646 - Thu Dec  9 01:53:25.000042 1999 - x\n");
    c.wall_us = -1;
    ns_log(&log, NS_LOG_INFO, "x");
    ck_assert_str_eq(c.line, "Info: 646 - Thu Jan  1 00:59:59.999999 1970 - x\n");
    log.microseconds = false; /* 999999 of them are no second */
    ns_log(&log, NS_LOG_INFO, "x");
    ck_assert_str_eq(c.line, "Info: 646 - Thu Jan  1 00:59:59 1970 - x\n");
}
END_TEST

static int burst(struct ns_log_limit *limit, int64_t now_ms, int tries)
{
    int allowed = 0;

    for (int i = 0; i < tries; i++)
        allowed += ns_log_allowed(limit, ns_time_ms(now_ms));
    return allowed;
}

START_TEST(the_bucket)
{
    struct ns_log_limit limit = { 0 };
    const int64_t start = 1000000;

    ck_assert_int_eq(burst(&limit, start, 100), NS_LOG_BURST);
    ck_assert_uint_eq(limit.suppressed, 100 - NS_LOG_BURST);
    ck_assert_int_eq(burst(&limit, start + NS_LOG_INTERVAL_MS - 1, 3), 0);
    ck_assert_int_eq(burst(&limit, start + NS_LOG_INTERVAL_MS, 3), 1);
    ck_assert_int_eq(burst(&limit, start + 3 * NS_LOG_INTERVAL_MS, 9), 2);
    ck_assert_uint_eq(limit.suppressed, 95 + 3 + 2 + 7);
    ck_assert_int_eq(burst(&limit, start + 1000 * NS_LOG_INTERVAL_MS, 100), NS_LOG_BURST);

    struct ns_log_limit early = { 0 }; /* from the clock's own beginning */
    ck_assert_int_eq(burst(&early, 0, 100), NS_LOG_BURST);

    struct ns_log_limit slow = { 0 };
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(burst(&slow, start + i * NS_LOG_INTERVAL_MS, 1), 1);
    ck_assert_uint_eq(slow.suppressed, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *t = tcase_create("log");

    tcase_add_test(t, the_thesis_line);
    tcase_add_test(t, levels_are_kept);
    tcase_add_test(t, errno_is_left_alone);
    tcase_add_test(t, errors_of_either_sign);
    tcase_add_test(t, a_line_stays_a_line);
    tcase_add_test(t, long_lines_are_cut);
    tcase_add_test(t, dates_are_the_calendars);
    tcase_add_test(t, without_a_clock);
    tcase_add_test(t, microseconds_when_asked_for);
    tcase_add_test(t, the_bucket);
    tcase_set_timeout(t, 60);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
