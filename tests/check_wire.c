/* Packets: the vectors both ways, what must be refused, and the fuzzing corpus. */
#include "packets.h"
#include "vector.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct ns_packet_format *format_of(const struct ns_vector *v)
{
    for (const struct ns_packet_format *f = ns_packet_formats; f->name; f++)
        if (strcmp(f->name, v->name) == 0)
            return f;
    return NULL;
}

/* ---- fields as text to a struct, and a struct against fields ---- */

static void store(void *at, size_t bytes, uint64_t value)
{
    switch (bytes) {
    case 1:
        *(uint8_t *)at = (uint8_t)value;
        break;
    case 2:
        *(uint16_t *)at = (uint16_t)value;
        break;
    case 4:
        *(uint32_t *)at = (uint32_t)value;
        break;
    case 8:
        *(uint64_t *)at = value;
        break;
    default:
        ck_abort_msg("a number of %zu bytes", bytes);
    }
}

static void fill_addresses(struct ns_hello_ack *packet, const struct ns_vector *v)
{
    const char *text;

    for (size_t i = 0; (text = ns_vector_get(v, "address", i)); i++) {
        struct ns_hello_address *a = &packet->addresses[i];
        char hex[33];

        ck_assert_int_eq(sscanf(text, "%hhu %hhu %hhu %32s", &a->family, &a->scope, &a->priority, hex), 4);
        ck_assert_uint_eq(ns_vector_unhex(hex, a->address, sizeof a->address), sizeof a->address);
    }
}

static void fill(const struct ns_packet_format *f, const struct ns_vector *v, union ns_any_packet *packet)
{
    memset(packet, 0, sizeof *packet);
    for (const struct ns_packet_field *field = f->fields; field < f->fields + NS_PACKET_FIELDS; field++) {
        uint8_t *at = (uint8_t *)packet + field->offset;

        if (!field->name)
            break;
        if (field->number)
            store(at, field->bytes, ns_vector_number(v, field->name));
        else
            ck_assert_uint_gt(ns_vector_bytes(v, field->name, at, field->bytes), 0);
    }
    if (strcmp(f->name, "hello_ack") == 0)
        fill_addresses(&packet->hello_ack, v);
    if (strcmp(f->name, "v1_resume6") == 0)
        packet->v1_resume.ipv6 = true;
}

/* ---- vectors ---- */

static void check_vector(const struct ns_packet_format *f, const struct ns_vector *v, const char *file)
{
    uint8_t wire[NS_PACKET_BYTES_MAX + 1], out[NS_PACKET_BYTES_MAX + 1];
    union ns_any_packet expected, packet;
    size_t bytes = ns_vector_bytes(v, "hex", wire, NS_PACKET_BYTES_MAX);

    fill(f, v, &expected);
    memset(&packet, 0, sizeof packet);
    ck_assert_msg(ns_wire_length(wire, bytes) == (int)bytes, "%s:%u: length", file, v->line);
    ck_assert_msg(f->get(wire, bytes, &packet) == (int)bytes, "%s:%u: get", file, v->line);
    ck_assert_msg(memcmp(&packet, &expected, sizeof packet) == 0, "%s:%u: fields", file, v->line);
    if (!ns_vector_get(v, "reserved", 0)) {
        memset(out, 0xa5, sizeof out);
        ck_assert_msg(f->put(out, &expected) == bytes, "%s:%u: put", file, v->line);
        ck_assert_msg(memcmp(out, wire, bytes) == 0, "%s:%u: bytes", file, v->line);
        ck_assert_msg(out[bytes] == 0xa5, "%s:%u: wrote beyond the packet", file, v->line);
    }
    /* the stream that follows is not ours */
    wire[bytes] = 'N';
    ck_assert_msg(f->get(wire, bytes + 1, &packet) == (int)bytes, "%s:%u: took more", file, v->line);
    for (size_t have = 0; have < bytes; have++)
        ck_assert_msg(f->get(wire, have, &packet) == 0, "%s:%u: %zu bytes", file, v->line, have);
}

static void check_vectors(const char *name, uint8_t version)
{
    unsigned seen = 0, all = 0;
    struct ns_vector_file file;

    ns_vector_open(&file, name);
    for (size_t i = 0; i < file.count; i++) {
        const struct ns_packet_format *f = format_of(&file.vectors[i]);

        if (!f)
            continue;
        ck_assert_uint_eq(f->version, version);
        check_vector(f, &file.vectors[i], name);
        seen |= 1U << (f - ns_packet_formats);
    }
    ns_vector_close(&file);
    for (const struct ns_packet_format *f = ns_packet_formats; f->name; f++)
        if (f->version == version)
            all |= 1U << (f - ns_packet_formats);
    ck_assert_msg(seen == all, "%s: a packet has no vector", name);
}

START_TEST(vectors_of_version_1)
{
    check_vectors("vectors/v1.txt", 1);
}
END_TEST

START_TEST(vectors_of_version_2)
{
    check_vectors("vectors/v2.txt", 2);
}
END_TEST

static int result_named(const struct ns_vector *v, const char *key)
{
    const char *value = ns_vector_get(v, key, 0);

    ck_assert_ptr_nonnull(value);
    if (strcmp(value, "more") == 0)
        return 0;
    if (strcmp(value, "refused") == 0)
        return -EPROTO;
    return (int)ns_vector_number(v, key);
}

START_TEST(vectors_of_what_is_no_packet)
{
    struct ns_vector_file file;

    ns_vector_open(&file, "vectors/bad.txt");
    ck_assert_uint_gt(file.count, 0);
    for (size_t i = 0; i < file.count; i++) {
        const struct ns_vector *v = &file.vectors[i];
        const struct ns_packet_format *f = format_of(v);
        const char *about = ns_vector_get(v, "about", 0);
        union ns_any_packet packet;
        uint8_t wire[8192], *exact;
        size_t bytes = ns_vector_bytes(v, "hex", wire, sizeof wire);

        ck_assert_msg(f != NULL, "bad.txt:%u: %s", v->line, v->name);
        exact = malloc(bytes + !bytes); /* a read beyond is for AddressSanitizer to see */
        memcpy(exact, wire, bytes);
        ck_assert_msg(f->get(exact, bytes, &packet) == result_named(v, "result"), "bad.txt:%u: %s", v->line,
                      about);
        ck_assert_msg(ns_wire_length(exact, bytes) == result_named(v, "length"), "bad.txt:%u: length: %s",
                      v->line, about);
        free(exact);
    }
    ns_vector_close(&file);
}
END_TEST

/* ---- what no vector says ---- */

/* Two bytes for every version and type: nothing but the table is ours. */
START_TEST(every_version_and_type)
{
    uint8_t in[NS_PACKET_BYTES_MAX] = { 'N', 'S' };

    for (unsigned both = 0; both < 0x10000; both++) {
        int expected = -EPROTO;

        in[2] = (uint8_t)(both >> 8);
        in[3] = (uint8_t)both;
        for (const struct ns_packet_format *f = ns_packet_formats; f->name; f++)
            if (in[2] == f->version && in[3] < 8 && f->types >> in[3] & 1)
                expected = (int)f->bytes;
        if (in[2] == 1 && in[3] == NS_PACKET_RESUME)
            expected = NS_V1_BYTES_RESUME6;
        ck_assert_int_eq(ns_wire_length(in, sizeof in), expected);
    }
}
END_TEST

/* Application bytes are given back at the first byte that does not fit. */
START_TEST(other_first_bytes)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t in[] = { (uint8_t)byte };

        ck_assert_int_eq(ns_wire_length(in, 1), byte == 'N' ? 0 : -EPROTO);
        for (const struct ns_packet_format *f = ns_packet_formats; f->name; f++) {
            union ns_any_packet packet;

            ck_assert_int_eq(f->get(in, 1, &packet), byte == 'N' ? 0 : -EPROTO);
        }
    }
    ck_assert_int_eq(ns_wire_length((const uint8_t *)"GET / HTTP/1.1", 14), -EPROTO);
    ck_assert_int_eq(ns_wire_length((const uint8_t *)"NSLOOKUP", 8), -EPROTO);
    ck_assert_int_eq(ns_wire_length(NULL, 0), 0);
}
END_TEST

START_TEST(hello_ack_that_cannot_be)
{
    struct ns_hello_ack packet = { .highest_version = 2, .count = 1, .addresses = { { .family = 6 } } };
    uint8_t out[NS_PACKET_BYTES_MAX];

    memset(out, 0xa5, sizeof out);
    packet.addresses[0].family = 5;
    ck_assert_uint_eq(ns_wire_put_hello_ack(out, &packet), 0);
    packet.addresses[0].family = 4; /* :: is no IPv4 address */
    ck_assert_uint_eq(ns_wire_put_hello_ack(out, &packet), 0);
    packet.addresses[0].family = 6;
    packet.count = NS_HELLO_ADDRESSES + 1;
    ck_assert_uint_eq(ns_wire_put_hello_ack(out, &packet), 0);
    for (size_t i = 0; i < sizeof out; i++)
        ck_assert_uint_eq(out[i], 0xa5);
    packet.count = 1;
    ck_assert_uint_eq(ns_wire_put_hello_ack(out, &packet),
                      NS_PACKET_BYTES_HELLO_ACK + NS_HELLO_ADDRESS_BYTES);
}
END_TEST

/* ---- the fuzzing corpus, and each input cut short at every byte ---- */

static void replay(const char *path)
{
    uint8_t data[8192];
    FILE *in = fopen(path, "rb");
    size_t bytes;

    ck_assert_msg(in != NULL, "%s", path);
    bytes = fread(data, 1, sizeof data, in);
    fclose(in);
    for (size_t have = 0; have <= bytes; have++)
        LLVMFuzzerTestOneInput(data, have);
}

START_TEST(corpus)
{
    DIR *directory = opendir(NS_TESTS_DIRECTORY "/corpus/packet");
    unsigned replayed = 0;
    struct dirent *entry;

    ck_assert_ptr_nonnull(directory);
    while ((entry = readdir(directory))) {
        char path[4096];

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/corpus/packet/%s", NS_TESTS_DIRECTORY, entry->d_name);
        replay(path);
        replayed++;
    }
    closedir(directory);
    ck_assert_uint_gt(replayed, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wire");
    TCase *tests = tcase_create("packets");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, vectors_of_version_1);
    tcase_add_test(tests, vectors_of_version_2);
    tcase_add_test(tests, vectors_of_what_is_no_packet);
    tcase_add_test(tests, every_version_and_type);
    tcase_add_test(tests, other_first_bytes);
    tcase_add_test(tests, hello_ack_that_cannot_be);
    tcase_add_test(tests, corpus);
    tcase_set_timeout(tests, 60); /* sanitizers and valgrind are slow */
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
