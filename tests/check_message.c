/* Messages to and from the broker: what is written is read, and nothing else is. */
#include "core/message.h"
#include "core/session.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct ns_message sample(enum ns_message_type type)
{
    struct ns_message m;
    memset(&m, 0, sizeof m);
    m.type = type;
    m.role = NS_MESSAGE_SERVER;
    m.serial = 0x01020304;
    m.status = -110;
    for (int i = 0; i < 16; i++)
        m.id[i] = (uint8_t)(0xf0 + i);
    switch (type) {
    case NS_MESSAGE_JOIN:
        strcpy(m.program, "fifteen-letters");
        break;
    case NS_MESSAGE_SESSION:
        m.session = (struct ns_message_session){ .proof = { 9, 8, 7 },
                                                 .inherited = true,
                                                 .state = NS_SUSPENDED,
                                                 .local = { { 1, 2, 3 }, 80 },
                                                 .peer = { { 0xfe, 0x80 }, 65535 },
                                                 .established_s = 1700000000,
                                                 .sent = UINT64_MAX,
                                                 .received = 5,
                                                 .resumes = 7 };
        memset(m.session.name, 'n', sizeof m.session.name - 1);
        break;
    case NS_MESSAGE_HOLDER:
        m.holder = (struct ns_message_holder){ .pid = 4711, .uid = 33, .program = "nginx" };
        break;
    case NS_MESSAGE_RESUME:
        m.payload.bytes = NS_MESSAGE_READ_BYTES;
        memset(m.payload.data, 0xa5, m.payload.bytes);
        break;
    case NS_MESSAGE_TELL:
        m.payload.kind = 31;
        m.payload.bytes = NS_MESSAGE_TELL_BYTES;
        memset(m.payload.data, 0x5a, m.payload.bytes);
        break;
    case NS_MESSAGE_ANSWER:
        m.count = 12;
        break;
    default:
        break;
    }
    return m;
}

START_TEST(test_round_trip)
{
    enum ns_message_type type = (enum ns_message_type)_i;
    uint8_t out[NS_MESSAGE_BYTES_MAX], again[NS_MESSAGE_BYTES_MAX];
    struct ns_message m = sample(type), read;
    size_t n = ns_message_put(out, &m);

    ck_assert_uint_le(n, sizeof out);
    memset(&read, 0xee, sizeof read);
    ck_assert(ns_message_get(out, n, &read));
    ck_assert_int_eq(read.type, type);
    ck_assert_uint_eq(read.serial, m.serial);
    ck_assert_int_eq(read.status, m.status);
    ck_assert_mem_eq(read.id, m.id, 16);
    ck_assert_uint_eq(ns_message_put(again, &read), n);
    ck_assert_mem_eq(again, out, n);
}
END_TEST

/* No part of a message is one, nor is one with something behind it. */
START_TEST(test_length)
{
    uint8_t out[NS_MESSAGE_BYTES_MAX + 1];
    struct ns_message m = sample((enum ns_message_type)_i), read;
    size_t n = ns_message_put(out, &m);

    for (size_t i = 0; i < n; i++) {
        uint8_t *part = malloc(i ? i : 1); /* so that ASan sees a step beyond */
        memcpy(part, out, i);
        ck_assert_msg(!ns_message_get(part, i, &read), "%zu of %zu bytes", i, n);
        free(part);
    }
    out[n] = 0;
    ck_assert(!ns_message_get(out, n + 1, &read));
}
END_TEST

START_TEST(test_fields)
{
    uint8_t out[NS_MESSAGE_BYTES_MAX];
    struct ns_message m = sample(NS_MESSAGE_SESSION), read;
    size_t n = ns_message_put(out, &m);

    ck_assert(ns_message_get(out, n, &read));
    ck_assert_int_eq(read.role, NS_MESSAGE_SERVER);
    ck_assert(read.session.inherited);
    ck_assert_int_eq(read.session.state, NS_SUSPENDED);
    ck_assert_uint_eq(read.session.local.port, 80);
    ck_assert_uint_eq(read.session.peer.port, 65535);
    ck_assert_uint_eq(read.session.sent, UINT64_MAX);
    ck_assert_uint_eq(read.session.received, 5);
    ck_assert_uint_eq(read.session.resumes, 7);
    ck_assert_str_eq(read.session.name, m.session.name);
    m = sample(NS_MESSAGE_HOLDER);
    ck_assert(ns_message_get(out, ns_message_put(out, &m), &read));
    ck_assert_uint_eq(read.holder.pid, 4711);
    ck_assert_str_eq(read.holder.program, "nginx");
}
END_TEST

/* Values that index tables, and lengths, are within bounds or refused. */
START_TEST(test_bounds)
{
    uint8_t out[NS_MESSAGE_BYTES_MAX];
    struct ns_message m = sample(NS_MESSAGE_SESSION), read;
    size_t n = ns_message_put(out, &m);

    out[4] = NS_MESSAGE_ROLES;
    ck_assert(!ns_message_get(out, n, &read));
    out[4] = NS_MESSAGE_CLIENT;
    out[NS_MESSAGE_HEADER_BYTES + 16 + 1] = NS_STATES;
    ck_assert(!ns_message_get(out, n, &read));
    m = sample(NS_MESSAGE_JOIN);
    n = ns_message_put(out, &m);
    out[n - 1] = 0; /* a NUL inside a string */
    ck_assert(!ns_message_get(out, n, &read));
    out[3] = NS_MESSAGE_TYPES;
    ck_assert(!ns_message_get(out, n, &read));
    out[3] = 0;
    ck_assert(!ns_message_get(out, n, &read));
    /* Too long to be kept is cut, not spilled. */
    memset(m.program, 'x', sizeof m.program);
    m.type = NS_MESSAGE_JOIN;
    ck_assert(ns_message_get(out, ns_message_put(out, &m), &read));
    ck_assert_uint_eq(strlen(read.program), sizeof read.program - 1);
    m = sample(NS_MESSAGE_TELL);
    m.payload.bytes = UINT16_MAX;
    ck_assert(ns_message_get(out, ns_message_put(out, &m), &read));
    ck_assert_uint_eq(read.payload.bytes, NS_MESSAGE_TELL_BYTES);
}
END_TEST

/* One byte changed anywhere: refused, or read within bounds and written as it came. */
START_TEST(test_damaged)
{
    uint8_t out[NS_MESSAGE_BYTES_MAX], again[NS_MESSAGE_BYTES_MAX];
    struct ns_message m = sample((enum ns_message_type)_i), read;
    size_t n = ns_message_put(out, &m);

    for (size_t i = 0; i < n; i++)
        for (int value = 0; value < 256; value += 5) {
            uint8_t was = out[i];
            out[i] = (uint8_t)value;
            memset(&read, 0, sizeof read);
            if (ns_message_get(out, n, &read)) {
                ck_assert_uint_eq(ns_message_put(again, &read), n);
                ck_assert_mem_eq(again, out, n);
            }
            out[i] = was;
        }
}
END_TEST

START_TEST(test_address)
{
    struct sockaddr_un a;
    char longest[sizeof a.sun_path + 1];

    ck_assert_uint_eq(ns_message_address(&a, "@abc"), offsetof(struct sockaddr_un, sun_path) + 4);
    ck_assert_mem_eq(a.sun_path, "\0abc", 5);
    ck_assert_uint_eq(ns_message_address(&a, "/run/x"), sizeof a);
    ck_assert_str_eq(a.sun_path, "/run/x");
    ck_assert_uint_eq(ns_message_address(&a, ""), 0);
    ck_assert_uint_eq(ns_message_address(&a, "@"), 0);
    ck_assert_uint_eq(ns_message_address(&a, "relative"), 0);
    memset(longest, '/', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    ck_assert_uint_eq(ns_message_address(&a, longest), 0);
    longest[sizeof longest - 2] = '\0';
    ck_assert_uint_eq(ns_message_address(&a, longest), sizeof a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("message");
    TCase *tcase = tcase_create("message");
    tcase_add_loop_test(tcase, test_round_trip, NS_MESSAGE_JOIN, NS_MESSAGE_TYPES);
    tcase_add_loop_test(tcase, test_length, NS_MESSAGE_JOIN, NS_MESSAGE_TYPES);
    tcase_add_test(tcase, test_fields);
    tcase_add_test(tcase, test_bounds);
    tcase_add_loop_test(tcase, test_damaged, NS_MESSAGE_JOIN, NS_MESSAGE_TYPES);
    tcase_add_test(tcase, test_address);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
