/* core/policy: what can be set, what is refused and in which words, and what follows for a destination. */
#include "core/policy.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ns_policy policy;
static char error[512];

static void fresh(void)
{
    ns_policy_defaults(&policy);
    error[0] = '\0';
}

static void set(const char *key, const char *value)
{
    int result = ns_policy_set(&policy, key, value, error, sizeof error);

    ck_assert_msg(result == 0, "%s=%s: %s", key, value, error);
}

/* Refused, in one line that starts with the variable's name, and nothing is changed. */
static void refused(const char *key, const char *value)
{
    static struct ns_policy before;

    memcpy(&before, &policy, sizeof policy);
    memset(error, 'x', sizeof error);
    ck_assert_msg(ns_policy_set(&policy, key, value, error, sizeof error) == -EINVAL, "%s=%s", key, value);
    ck_assert_msg(memcmp(&before, &policy, sizeof policy) == 0, "%s=%s", key, value);
    ck_assert_ptr_nonnull(memchr(error, '\0', sizeof error));
    ck_assert_int_eq(strncmp(error, "NAMESOCKET_", 11), 0);
    ck_assert_int_eq(strncmp(error + 11, key, strlen(key)), 0);
    for (const char *c = error; *c; c++)
        ck_assert_int_ge((unsigned char)*c, 0x20);
    ck_assert_int_eq(ns_policy_set(&policy, key, value, NULL, 0), -EINVAL);
}

static enum ns_verdict verdict(const char *text, uint16_t port, const char *name)
{
    struct ns_address a;

    ck_assert_int_eq(ns_address_parse(&a, text), 0);
    return ns_policy_for(&policy, &a, port, name);
}

START_TEST(defaults)
{
    fresh();
    ck_assert_int_eq(policy.ask, NS_ASK_PROBE);
    ck_assert_uint_eq(policy.version, 2);
    ck_assert_int_eq(policy.give_up_ms, 600000);
    ck_assert_int_eq(policy.park_ms, 600000);
    ck_assert_uint_eq(policy.ring_bytes, 64 << 20);
    ck_assert_uint_eq(policy.psk_bytes, 0);
    ck_assert_str_eq(policy.log_file, "");
    ck_assert(!policy.verbose);
}
END_TEST

START_TEST(every_key_sets_its_own)
{
    static const struct {
        const char *key, *value;
    } rows[] = {
        { "ASK", "known" },       { "VERSION", "1" },
        { "GIVE_UP", "7" },       { "PARK", "8" },
        { "KNOWN", "a.example" }, { "NEVER", "b.example" },
        { "LOG_LEVEL", "debug" }, { "LOG_FILE", "/tmp/x" },
        { "VERBOSE", "1" },       { "PSK", "sixteen bytes at" },
        { "RING", "128k" },       { "HOLD", "200ms" },
        { "BROKER", "@x" },       { "LOG_TIME", "us" },
        { "NEAR", "0" },
    };
    const char *const *keys = ns_policy_keys();
    size_t n = 0;

    fresh();
    for (; n < sizeof rows / sizeof rows[0]; n++) {
        ck_assert_str_eq(keys[n], rows[n].key);
        set(rows[n].key, rows[n].value);
    }
    ck_assert_ptr_null(keys[n]);
    ck_assert_int_eq(policy.ask, NS_ASK_KNOWN);
    ck_assert_uint_eq(policy.version, 1);
    ck_assert_int_eq(policy.give_up_ms, 7000);
    ck_assert_int_eq(policy.park_ms, 8000);
    ck_assert_int_eq(policy.hold_margin_ms, 200);
    ck_assert_int_eq(policy.near_ms, 0);
    ck_assert_str_eq(policy.broker, "@x");
    ck_assert(policy.log_microseconds);
    ck_assert_uint_eq(policy.known.count, 1);
    ck_assert_str_eq(policy.known.entries[0].name, "a.example");
    ck_assert_uint_eq(policy.never.count, 1);
    ck_assert_str_eq(policy.never.entries[0].name, "b.example");
    ck_assert_int_eq(policy.log_level, NS_LOG_DEBUG);
    ck_assert_str_eq(policy.log_file, "/tmp/x");
    ck_assert(policy.verbose);
    ck_assert_uint_eq(policy.psk_bytes, 16);
    ck_assert_int_eq(memcmp(policy.psk, "sixteen bytes at", 16), 0);
    ck_assert_uint_eq(policy.ring_bytes, 128 << 10);
}
END_TEST

START_TEST(an_unknown_key)
{
    fresh();
    ck_assert_int_eq(ns_policy_set(&policy, "GIVEUP", "1", error, sizeof error), -ENOENT);
    ck_assert_int_eq(strncmp(error, "NAMESOCKET_GIVEUP: no such setting", 34), 0);
    for (const char *const *key = ns_policy_keys(); *key; key++)
        ck_assert_ptr_nonnull(strstr(error, *key));
    ck_assert_int_eq(ns_policy_set(&policy, "ask", "never", NULL, 0), -ENOENT);
    ck_assert_int_eq(ns_policy_set(&policy, "", "", error, sizeof error), -ENOENT);
}
END_TEST

START_TEST(words)
{
    static const char *const asks[] = { "probe", "always", "never", "known" };
    static const char *const levels[] = { "error", "info", "debug" };

    fresh();
    for (int i = 0; i < 4; i++) {
        set("ASK", asks[i]);
        ck_assert_int_eq((int)policy.ask, i);
    }
    for (int i = 0; i < 3; i++) {
        set("LOG_LEVEL", levels[i]);
        ck_assert_int_eq((int)policy.log_level, i);
    }
    set("VERSION", "2");
    ck_assert_uint_eq(policy.version, 2);
    set("VERBOSE", "1");
    set("VERBOSE", "0");
    ck_assert(!policy.verbose);
    set("LOG_TIME", "us");
    set("LOG_TIME", "s");
    ck_assert(!policy.log_microseconds);
    refused("LOG_TIME", "ms");
    refused("ASK", "Probe");
    refused("ASK", "");
    refused("LOG_LEVEL", "warn");
    ck_assert_str_eq(error, "NAMESOCKET_LOG_LEVEL: 'warn' is not a log level; write error, info or debug");
    refused("VERSION", "3");
    refused("VERSION", "2 ");
    refused("VERBOSE", "yes");
    refused("VERBOSE", "\n\x1b[2Jx");
}
END_TEST

START_TEST(times)
{
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
    } rows[] = {
        { "0", 0 },
        { "90", 90000 },
        { "90s", 90000 },
        { "1500ms", 1500 },
        { "10min", 600000 },
        { "525600min", INT64_C(31536000000) },
        { "525601min", -1 },
        { "31536000", INT64_C(31536000000) },
        { "31536001s", -1 },
        { "18446744073709551615ms", -1 },
        { "18446744073709551616", -1 },
        { "99999999999999999999999999", -1 },
        { "", -1 },
        { "-1", -1 },
        { "+1", -1 },
        { " 1", -1 },
        { "1 s", -1 },
        { "1.5", -1 },
        { "1h", -1 },
        { "min", -1 },
        { "0x10", -1 },
    };

    fresh();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].ms < 0) {
            refused("GIVE_UP", rows[i].text);
            refused("PARK", rows[i].text);
            continue;
        }
        set("GIVE_UP", rows[i].text);
        set("PARK", rows[i].text);
        ck_assert_int_eq(policy.give_up_ms, rows[i].ms);
        ck_assert_int_eq(policy.park_ms, rows[i].ms);
    }
    refused("PARK", "soon");
    ck_assert_str_eq(error, "NAMESOCKET_PARK: 'soon' is not a time; write seconds, or a number with ms, s or "
                            "min, such as 10min");
}
END_TEST

START_TEST(sizes)
{
    static const struct {
        const char *text;
        size_t bytes; /* 0: refused */
    } rows[] = {
        { "65536", 65536 },
        { "64k", 65536 },
        { "64K", 65536 },
        { "1M", 1 << 20 },
        { "1G", 1 << 30 },
        { "1024M", 1 << 30 },
        { "65535", 0 },
        { "63k", 0 },
        { "2G", 0 },
        { "1073741825", 0 },
        { "0", 0 },
        { "", 0 },
        { "64kB", 0 },
        { "-64k", 0 },
        { "17179869184G", 0 },
        { "18446744073709551615k", 0 },
    };

    fresh();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].bytes == 0) {
            refused("RING", rows[i].text);
            continue;
        }
        set("RING", rows[i].text);
        ck_assert_uint_eq(policy.ring_bytes, rows[i].bytes);
    }
}
END_TEST

START_TEST(keys_shared_by_the_peers)
{
    char text[140];

    fresh();
    set("PSK", "hex:000102030405060708090a0B0C0d0e0fF0");
    ck_assert_uint_eq(policy.psk_bytes, 17);
    for (int i = 0; i < 16; i++)
        ck_assert_uint_eq(policy.psk[i], i);
    ck_assert_uint_eq(policy.psk[16], 0xf0);
    set("PSK", "sixteen bytes at"); /* nothing of the longer one stays */
    ck_assert_uint_eq(policy.psk[16], 0);

    refused("PSK", "");
    refused("PSK", "hex:");
    refused("PSK", "secret");
    ck_assert_ptr_null(strstr(error, "secret"));
    refused("PSK", "hex:000102030405060708090a0b0c0d0e");
    refused("PSK", "hex:000102030405060708090a0b0c0d0e0f0");
    refused("PSK", "hex:000102030405060708090a0b0c0d0eSS");
    ck_assert_ptr_null(strstr(error, "0102"));
    ck_assert_ptr_nonnull(strstr(error, "character 31 "));
    memset(text, 'k', sizeof text);
    text[64] = '\0';
    set("PSK", text);
    ck_assert_uint_eq(policy.psk_bytes, 64);
    text[64] = 'k';
    text[65] = '\0';
    refused("PSK", text);
    memcpy(text, "hex:", 4);
    memset(text + 4, 'a', 128);
    text[132] = '\0';
    set("PSK", text);
    ck_assert_uint_eq(policy.psk_bytes, 64);
}
END_TEST

START_TEST(log_files)
{
    char path[NS_POLICY_PATH_BYTES + 1];

    fresh();
    memset(path, 'p', sizeof path);
    path[NS_POLICY_PATH_BYTES] = '\0';
    refused("LOG_FILE", path);
    path[NS_POLICY_PATH_BYTES - 1] = '\0';
    set("LOG_FILE", path);
    ck_assert_str_eq(policy.log_file, path);
    set("LOG_FILE", "");
    ck_assert_str_eq(policy.log_file, "");
}
END_TEST

START_TEST(lists)
{
    static const char *const bad[] = {
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:http",
        "host:8 0",
        "host:80:90",
        "192.0.2.1:",
        "192.0.2.256",
        "1234",
        "a.1",
        "[2001:db8::1",
        "[2001:db8::1]80",
        "[2001:db8::1]:",
        "[host]:80",
        "[]",
        "2001:db8::g",
        "a b",
        "a/24",
        "*.example",
        "**",
        "fe80::1%eth0",
        ".",
        "a,:80",
        "[fe80::1%lo]:80",
        "host\n:80",
    };
    char name[300];

    fresh();
    set("KNOWN", "old.example");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused("KNOWN", bad[i]);
    memset(name, 'n', sizeof name);
    name[NS_POLICY_NAME_BYTES] = '\0';
    refused("NEVER", name);
    name[NS_POLICY_NAME_BYTES - 1] = '\0';
    set("NEVER", name);

    set("KNOWN",
        " tage , troels.example.org.:1234,, 192.0.2.1:80 ,192.0.2.2,\t2001:db8::1 , [2001:db8::2]:22,"
        "[2001:db8::3], [fe80::1%2]:9, *:7, *, host:*, b\xc3\xa5t_1-x:65535,");
    ck_assert_uint_eq(policy.known.count, 12);
    const struct ns_destination *d = policy.known.entries;
    ck_assert_str_eq(d[0].name, "tage");
    ck_assert_uint_eq(d[0].port, 0);
    ck_assert_str_eq(d[1].name, "troels.example.org");
    ck_assert_uint_eq(d[1].port, 1234);
    ck_assert_int_eq(d[2].kind, NS_DESTINATION_ADDRESS);
    ck_assert_uint_eq(d[2].port, 80);
    ck_assert_int_eq(d[4].address.family, 10);
    ck_assert_uint_eq(d[5].port, 22);
    ck_assert_uint_eq(d[7].address.scope_id, 2);
    ck_assert_int_eq(d[8].kind, NS_DESTINATION_ANY);
    ck_assert_uint_eq(d[8].port, 7);
    ck_assert_int_eq(d[9].kind, NS_DESTINATION_ANY);
    ck_assert_uint_eq(d[10].port, 0);
    ck_assert_uint_eq(d[11].port, 65535);
    set("KNOWN", "");
    ck_assert_uint_eq(policy.known.count, 0);
    set("KNOWN", " , ,");
    ck_assert_uint_eq(policy.known.count, 0);
}
END_TEST

START_TEST(lists_end_at_64)
{
    char text[64 * 16] = "";

    fresh();
    for (int i = 0; i < 64; i++)
        sprintf(text + strlen(text), "h%d,", i);
    set("KNOWN", text);
    ck_assert_uint_eq(policy.known.count, 64);
    ck_assert_str_eq(policy.known.entries[63].name, "h63");
    strcat(text, "h64");
    refused("KNOWN", text);
    ck_assert_str_eq(error, "NAMESOCKET_KNOWN: more than 64 destinations; shorten the list");
}
END_TEST

START_TEST(errors_fit_their_buffer)
{
    char small[16];
    char long_value[4000];

    fresh();
    memset(long_value, 'v', sizeof long_value - 1);
    long_value[sizeof long_value - 1] = '\0';
    for (size_t room = 1; room <= sizeof small; room++) {
        memset(small, '#', sizeof small);
        ck_assert_int_eq(ns_policy_set(&policy, "ASK", long_value, small, room), -EINVAL);
        ck_assert_uint_lt(strlen(small), room);
        if (room < sizeof small)
            ck_assert_int_eq(small[room], '#');
    }
    for (const char *const *key = ns_policy_keys(); *key; key++)
        if (strcmp(*key, "KNOWN") && strcmp(*key, "NEVER"))
            refused(*key, long_value);
    ck_assert_int_eq(ns_policy_set(&policy, long_value, "x", error, sizeof error), -ENOENT);
    ck_assert_uint_lt(strlen(error), sizeof error);
}
END_TEST

START_TEST(verdicts_by_asking)
{
    static const struct {
        const char *ask, *version;
        enum ns_verdict unknown, unknown_ephemeral, known, never;
    } rows[] = {
        { "probe", "2", NS_VERDICT_ASK, NS_VERDICT_PLAIN, NS_VERDICT_TRUST, NS_VERDICT_PLAIN },
        { "always", "2", NS_VERDICT_TRUST, NS_VERDICT_TRUST, NS_VERDICT_TRUST, NS_VERDICT_PLAIN },
        { "never", "2", NS_VERDICT_PLAIN, NS_VERDICT_PLAIN, NS_VERDICT_PLAIN, NS_VERDICT_PLAIN },
        { "known", "2", NS_VERDICT_PLAIN, NS_VERDICT_PLAIN, NS_VERDICT_TRUST, NS_VERDICT_PLAIN },
        { "probe", "1", NS_VERDICT_PLAIN, NS_VERDICT_PLAIN, NS_VERDICT_TRUST, NS_VERDICT_PLAIN },
        { "always", "1", NS_VERDICT_TRUST, NS_VERDICT_TRUST, NS_VERDICT_TRUST, NS_VERDICT_PLAIN },
        { "never", "1", NS_VERDICT_PLAIN, NS_VERDICT_PLAIN, NS_VERDICT_PLAIN, NS_VERDICT_PLAIN },
        { "known", "1", NS_VERDICT_PLAIN, NS_VERDICT_PLAIN, NS_VERDICT_TRUST, NS_VERDICT_PLAIN },
    };

    fresh();
    set("KNOWN", "192.0.2.1,192.0.2.2:40000,192.0.2.3");
    set("NEVER", "192.0.2.3");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        set("ASK", rows[i].ask);
        set("VERSION", rows[i].version);
        ck_assert_int_eq(verdict("192.0.2.9", 23, NULL), rows[i].unknown);
        ck_assert_int_eq(verdict("192.0.2.9", 40000, NULL), rows[i].unknown_ephemeral);
        ck_assert_int_eq(verdict("192.0.2.1", 23, NULL), rows[i].known);
        ck_assert_int_eq(verdict("192.0.2.2", 40000, NULL), rows[i].known);
        ck_assert_int_eq(verdict("192.0.2.2", 23, NULL), rows[i].unknown);
        ck_assert_int_eq(verdict("192.0.2.3", 23, NULL), rows[i].never);
    }
}
END_TEST

START_TEST(ephemeral_ports)
{
    fresh();
    policy.ephemeral_low = 2000;
    policy.ephemeral_high = 2001;
    ck_assert_int_eq(verdict("192.0.2.9", 1999, NULL), NS_VERDICT_ASK);
    ck_assert_int_eq(verdict("192.0.2.9", 2000, NULL), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("192.0.2.9", 2001, NULL), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("192.0.2.9", 2002, NULL), NS_VERDICT_ASK);
    set("KNOWN", "*:2001");
    ck_assert_int_eq(verdict("192.0.2.9", 2000, NULL), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("192.0.2.9", 2001, NULL), NS_VERDICT_TRUST);
}
END_TEST

START_TEST(matching)
{
    fresh();
    set("ASK", "known");
    set("KNOWN", "Tage.Example.:23, fe80::1, fe80::2%3, ::ffff:192.0.2.7, *:9");
    ck_assert_int_eq(verdict("192.0.2.9", 23, "tage.example"), NS_VERDICT_TRUST);
    ck_assert_int_eq(verdict("192.0.2.9", 23, "TAGE.EXAMPLE."), NS_VERDICT_TRUST);
    ck_assert_int_eq(verdict("192.0.2.9", 24, "tage.example"), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("192.0.2.9", 23, "tage.example.."), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("192.0.2.9", 23, "tage.example.org"), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("192.0.2.9", 23, "tage"), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("192.0.2.9", 23, ""), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("192.0.2.9", 23, NULL), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("fe80::1%8", 23, NULL), NS_VERDICT_TRUST);
    ck_assert_int_eq(verdict("fe80::2%3", 23, NULL), NS_VERDICT_TRUST);
    ck_assert_int_eq(verdict("fe80::2%4", 23, NULL), NS_VERDICT_PLAIN);
    ck_assert_int_eq(verdict("192.0.2.7", 23, NULL), NS_VERDICT_TRUST);
    ck_assert_int_eq(verdict("2001:db8::9", 9, NULL), NS_VERDICT_TRUST);
}
END_TEST

/* ---- environments ---- */

static char complaints[8][320];
static size_t complained;

static void complain(void *ctx, const char *key, int code, const char *line)
{
    ck_assert_ptr_eq(ctx, &policy);
    ck_assert_uint_lt(complained, 8);
    snprintf(complaints[complained++], sizeof complaints[0], "%s %d %s", key, code, line);
}

static void read_environment(char *const environment[])
{
    fresh();
    complained = 0;
    ns_policy_read(&policy, environment, complain, &policy);
}

START_TEST(an_environment)
{
    char *const environment[] = { "HOME=/",
                                  "NAMESOCKET_ASK=known",
                                  "NAMESOCKET_ASK=never", /* getenv gives the first */
                                  "NAMESOCKETD_STARTED=1",
                                  "XNAMESOCKET_VERBOSE=1",
                                  "NAMESOCKET_HEIRLOOM=7",
                                  "NAMESOCKET_ADOPTER=1",
                                  "NAMESOCKET_RING",
                                  "NAMESOCKET_PARK=3min",
                                  NULL };

    read_environment(environment);
    ck_assert_uint_eq(complained, 0);
    ck_assert_int_eq(policy.ask, NS_ASK_KNOWN);
    ck_assert_int_eq(policy.park_ms, 180000);
    ck_assert(!policy.verbose);
    ns_policy_read(&policy, NULL, complain, &policy); /* after clearenv(3) */
}
END_TEST

START_TEST(a_bad_environment)
{
    char *const environment[] = { "NAMESOCKET_ASK=maybe",
                                  "NAMESOCKET_VERSION=3",
                                  "NAMESOCKET_GIVE_UP=soon",
                                  "NAMESOCKET_HOLD=now",
                                  "NAMESOCKET_KNOWN=a:b",
                                  "NAMESOCKET_PSK=short",
                                  "NAMESOCKET_FOO=1",
                                  "NAMESOCKET_RING=0",
                                  "NAMESOCKET_VERBOSE=1",
                                  "NAMESOCKET_NEVER=one",
                                  NULL };
    char long_name[400] = "NAMESOCKET_";
    char *const another[] = { long_name, NULL };

    read_environment(environment);
    ck_assert_uint_eq(complained, 8);
    ck_assert_int_eq(strncmp(complaints[0], "ASK -22 NAMESOCKET_ASK: 'maybe'", 31), 0);
    ck_assert_int_eq(strncmp(complaints[5], "PSK -22 NAMESOCKET_PSK: ", 24), 0);
    ck_assert_ptr_null(strstr(complaints[5], "short"));
    ck_assert_int_eq(strncmp(complaints[6], "FOO -2 NAMESOCKET_FOO: no such", 30), 0);
    ck_assert(policy.verbose); /* what follows is set all the same */
    ck_assert_uint_eq(policy.never.count, 1);

    memset(long_name + strlen(long_name), 'A', 300);
    strcat(long_name, "=1");
    read_environment(another);
    ck_assert_uint_eq(complained, 1);
}
END_TEST

START_TEST(any_text)
{
    static const char alphabet[] = "0189afkMGmsin:[]%*.,- \t\nhex_\xc3";
    char text[64];

    fresh();
    srand(5);
    for (int i = 0; i < 20000; i++) {
        size_t len = (size_t)rand() % sizeof text;
        for (size_t k = 0; k < len; k++)
            text[k] = alphabet[(size_t)rand() % (sizeof alphabet - 1)];
        text[len] = '\0';
        for (const char *const *key = ns_policy_keys(); *key; key++) {
            int result = ns_policy_set(&policy, *key, text, error, sizeof error);
            ck_assert(result == 0 || result == -EINVAL);
        }
        verdict("192.0.2.1", (uint16_t)rand(), text);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("policy");
    TCase *t = tcase_create("policy");

    tcase_add_test(t, defaults);
    tcase_add_test(t, every_key_sets_its_own);
    tcase_add_test(t, an_unknown_key);
    tcase_add_test(t, words);
    tcase_add_test(t, times);
    tcase_add_test(t, sizes);
    tcase_add_test(t, keys_shared_by_the_peers);
    tcase_add_test(t, log_files);
    tcase_add_test(t, lists);
    tcase_add_test(t, lists_end_at_64);
    tcase_add_test(t, errors_fit_their_buffer);
    tcase_add_test(t, verdicts_by_asking);
    tcase_add_test(t, ephemeral_ports);
    tcase_add_test(t, matching);
    tcase_add_test(t, an_environment);
    tcase_add_test(t, a_bad_environment);
    tcase_add_test(t, any_text);
    tcase_set_timeout(t, 60);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
