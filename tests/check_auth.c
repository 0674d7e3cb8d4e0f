/* Keys and tags: the vectors, and everything that a tag must not let through. */
#include "core/auth.h"
#include "core/wire.h"
#include "vector.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a [keys] record says, and what we make of the same random bytes. */
struct keys {
    uint8_t client_random[48], server_random[48], psk[NS_PSK_BYTES_MAX], session_id[16];
    size_t psk_bytes;
    uint8_t version;
    struct ns_identity client, server;
    struct ns_master master;
    struct ns_session_keys session;
};

static void exact_bytes(const struct ns_vector *v, const char *key, uint8_t *out, size_t size)
{
    ck_assert_msg(ns_vector_bytes(v, key, out, size) == size, "line %u: %s", v->line, key);
}

static void expect(const struct ns_vector *v, const char *key, const uint8_t *is, size_t bytes)
{
    uint8_t should_be[64];

    exact_bytes(v, key, should_be, bytes);
    ck_assert_msg(memcmp(is, should_be, bytes) == 0, "line %u: %s differs", v->line, key);
}

/* The master key as client and as server, which have to agree. */
static void agree(struct keys *k, const struct ns_vector *v)
{
    const uint8_t *psk = k->psk_bytes ? k->psk : NULL;
    struct ns_master servers;

    ck_assert_int_eq(ns_auth_master(&k->master, k->client.secret_key, k->server.public_key,
                                    k->client.public_key, k->server.public_key, psk, k->psk_bytes),
                     0);
    ck_assert_int_eq(ns_auth_master(&servers, k->server.secret_key, k->client.public_key,
                                    k->client.public_key, k->server.public_key, psk, k->psk_bytes),
                     0);
    ck_assert_mem_eq(&servers, &k->master, sizeof servers);
    expect(v, "master", k->master.key, sizeof k->master.key);
}

static void check_keys(struct keys *k, const struct ns_vector *v)
{
    memset(k, 0, sizeof *k);
    exact_bytes(v, "client_random", k->client_random, sizeof k->client_random);
    exact_bytes(v, "server_random", k->server_random, sizeof k->server_random);
    exact_bytes(v, "session_id", k->session_id, sizeof k->session_id);
    k->psk_bytes = ns_vector_bytes(v, "psk", k->psk, sizeof k->psk);
    k->version = (uint8_t)ns_vector_number(v, "version");

    ck_assert_int_eq(ns_auth_identity(&k->client, k->client_random), 0);
    ck_assert_int_eq(ns_auth_identity(&k->server, k->server_random), 0);
    expect(v, "client_key", k->client.public_key, sizeof k->client.public_key);
    expect(v, "server_key", k->server.public_key, sizeof k->server.public_key);
    expect(v, "instance", k->server.instance, sizeof k->server.instance);
    agree(k, v);
    ns_auth_session_keys(&k->session, &k->master, k->session_id, k->server.instance, k->version);
    expect(v, "c2s", k->session.c2s, sizeof k->session.c2s);
    expect(v, "s2c", k->session.s2c, sizeof k->session.s2c);
}

/* ---- tags ---- */

struct tagged {
    uint8_t packet[NS_PACKET_BYTES_MAX], nonce[16];
    size_t bytes;
    const uint8_t *key, *other_key, *over; /* over: nonce or NULL */
};

static void tagged_from(struct tagged *t, const struct keys *k, const struct ns_vector *v)
{
    bool c2s = strcmp(ns_vector_get(v, "key", 0), "c2s") == 0;

    t->bytes = ns_vector_bytes(v, "hex", t->packet, sizeof t->packet);
    t->over = ns_vector_bytes(v, "over", t->nonce, sizeof t->nonce) ? t->nonce : NULL;
    t->key = c2s ? k->session.c2s : k->session.s2c;
    t->other_key = c2s ? k->session.s2c : k->session.c2s;
}

static bool passes(const struct tagged *t)
{
    return ns_auth_verify(t->key, t->over, t->packet, t->bytes);
}

static void check_true_tag(struct tagged *t, const struct ns_vector *v)
{
    uint8_t again[NS_PACKET_BYTES_MAX], tag[NS_TAG_BYTES];

    expect(v, "tag", t->packet + t->bytes - NS_TAG_BYTES, NS_TAG_BYTES);
    ck_assert_msg(passes(t), "line %u: tag", v->line);
    ns_auth_tag(tag, t->key, t->over, t->packet, t->bytes);
    expect(v, "tag", tag, sizeof tag);
    memcpy(again, t->packet, t->bytes);
    memset(again + t->bytes - NS_TAG_BYTES, 0x5a, NS_TAG_BYTES);
    ns_auth_sign(again, t->bytes, t->key, t->over);
    ck_assert_mem_eq(again, t->packet, t->bytes);
}

/* No bit of packet, tag or nonce may change; no other key or nonce will do. */
static void check_false_tags(struct tagged *t, const struct keys *k)
{
    uint8_t nonce[16] = { 0 };
    struct tagged bent = *t;

    for (size_t bit = 0; bit < t->bytes * 8; bit++) {
        t->packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_msg(!passes(t), "bit %zu", bit);
        t->packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t bit = 0; t->over && bit < sizeof t->nonce * 8; bit++) {
        t->nonce[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_msg(!passes(t), "nonce bit %zu", bit);
        t->nonce[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    bent.key = t->other_key; /* the packet sent back to who made it */
    ck_assert(!passes(&bent));
    bent.key = k->master.key;
    ck_assert(!passes(&bent));
    bent = *t;
    bent.over = t->over ? NULL : nonce;
    ck_assert(!passes(&bent));
    bent = *t;
    bent.bytes--;
    ck_assert(!passes(&bent));
    memset(bent.packet + t->bytes - NS_TAG_BYTES, 0, NS_TAG_BYTES);
    bent.bytes = t->bytes;
    ck_assert(!passes(&bent));
    ck_assert(passes(t));
}

START_TEST(vectors)
{
    unsigned agreements = 0, tags = 0, untagged = 0, checks = 0;
    struct ns_vector_file file;
    struct keys k = { 0 };
    struct tagged t;

    ns_vector_open(&file, "vectors/v2.txt");
    for (size_t i = 0; i < file.count; i++) {
        const struct ns_vector *v = &file.vectors[i];

        if (strcmp(v->name, "keys") == 0) {
            check_keys(&k, v);
            agreements++;
        } else if (ns_vector_get(v, "key", 0)) {
            memset(&t, 0, sizeof t);
            tagged_from(&t, &k, v);
            check_true_tag(&t, v);
            check_false_tags(&t, &k);
            tags++;
        } else if (ns_vector_get(v, "key_check", 0)) {
            ck_assert_uint_eq(ns_auth_key_check(k.psk, k.psk_bytes, k.server.instance, k.server.public_key),
                              ns_vector_number(v, "key_check"));
            checks += k.psk_bytes > 0;
        } else if (ns_vector_get(v, "tag", 0)) {
            /* a refusal: its zero tag must not pass for a true one */
            size_t bytes = ns_vector_bytes(v, "hex", t.packet, sizeof t.packet);

            ck_assert(!ns_auth_verify(k.session.s2c, NULL, t.packet, bytes));
            untagged++;
        }
    }
    ns_vector_close(&file);
    ck_assert_uint_ge(agreements, 2);
    ck_assert_uint_ge(tags, 10);
    ck_assert_uint_eq(untagged, 4);
    ck_assert_uint_eq(checks, 3);
}
END_TEST

START_TEST(too_short_for_a_tag)
{
    uint8_t packet[NS_TAG_BYTES] = { 0 }, key[32] = { 0 };

    for (size_t bytes = 0; bytes < NS_TAG_BYTES; bytes++) {
        uint8_t *exact = malloc(bytes + !bytes);

        memcpy(exact, packet, bytes);
        ck_assert(!ns_auth_verify(key, NULL, exact, bytes));
        free(exact);
    }
    ns_auth_sign(packet, sizeof packet, key, NULL);
    ck_assert(ns_auth_verify(key, NULL, packet, sizeof packet));
}
END_TEST

/* ---- agreement ---- */

static void two_identities(struct ns_identity *client, struct ns_identity *server)
{
    uint8_t random[48];

    memset(random, 0x11, sizeof random);
    ck_assert_int_eq(ns_auth_identity(client, random), 0);
    memset(random, 0x22, sizeof random);
    ck_assert_int_eq(ns_auth_identity(server, random), 0);
}

START_TEST(low_order_peer_keys)
{
    struct ns_identity client, server;
    struct ns_vector_file file;
    unsigned refused = 0;

    two_identities(&client, &server);
    ns_vector_open(&file, "vectors/v2.txt");
    for (size_t i = 0; i < file.count; i++) {
        const struct ns_vector *v = &file.vectors[i];
        struct ns_master master, zero = { 0 };
        uint8_t peer[32];

        if (strcmp(v->name, "low_order") != 0)
            continue;
        exact_bytes(v, "peer_key", peer, sizeof peer);
        memset(&master, 0xa5, sizeof master);
        ck_assert_int_eq(ns_auth_master(&master, client.secret_key, peer, client.public_key, peer, NULL, 0),
                         -EBADMSG);
        ck_assert_mem_eq(&master, &zero, sizeof zero);
        refused++;
    }
    ns_vector_close(&file);
    ck_assert_uint_eq(refused, 14);
}
END_TEST

START_TEST(pre_shared_keys)
{
    struct ns_master masters[NS_PSK_BYTES_MAX + 1], refused, zero = { 0 };
    struct ns_identity client, server;
    uint8_t psk[NS_PSK_BYTES_MAX + 1] = { 0 };

    two_identities(&client, &server);
    /* zeros of any length are all different keys, and none is "no key" */
    for (size_t bytes = 0; bytes <= NS_PSK_BYTES_MAX; bytes++) {
        ck_assert_int_eq(ns_auth_master(&masters[bytes], client.secret_key, server.public_key,
                                        client.public_key, server.public_key, psk, bytes),
                         0);
        for (size_t i = 0; i < bytes; i++)
            ck_assert_mem_ne(&masters[i], &masters[bytes], sizeof masters[i]);
    }
    ck_assert_int_eq(ns_auth_master(&refused, client.secret_key, server.public_key, client.public_key,
                                    server.public_key, psk, sizeof psk),
                     -EINVAL);
    ck_assert_mem_eq(&refused, &zero, sizeof zero);
    ck_assert_int_eq(ns_auth_master(&refused, client.secret_key, server.public_key, client.public_key,
                                    server.public_key, NULL, 1),
                     -EINVAL);
}
END_TEST

/* Whoever differs in anything has other keys. */
START_TEST(everything_counts)
{
    struct ns_session_keys base, other;
    struct ns_identity client, server;
    struct ns_master master, swapped;
    uint8_t id[16] = { 1 }, instance[16] = { 2 };

    two_identities(&client, &server);
    ck_assert_int_eq(ns_auth_master(&master, client.secret_key, server.public_key, client.public_key,
                                    server.public_key, NULL, 0),
                     0);
    ck_assert_int_eq(ns_auth_master(&swapped, client.secret_key, server.public_key, server.public_key,
                                    client.public_key, NULL, 0),
                     0);
    ck_assert_mem_ne(&master, &swapped, sizeof master);

    ns_auth_session_keys(&base, &master, id, instance, 2);
    ck_assert_mem_ne(base.c2s, base.s2c, sizeof base.c2s);
    ns_auth_session_keys(&other, &swapped, id, instance, 2);
    ck_assert_mem_ne(&other, &base, sizeof base);
    ns_auth_session_keys(&other, &master, id, instance, 3);
    ck_assert_mem_ne(&other, &base, sizeof base);
    ns_auth_session_keys(&other, &master, instance, id, 2);
    ck_assert_mem_ne(&other, &base, sizeof base);
    id[15] ^= 0x80;
    ns_auth_session_keys(&other, &master, id, instance, 2);
    ck_assert_mem_ne(&other, &base, sizeof base);
    id[15] ^= 0x80;
    instance[15] ^= 1;
    ns_auth_session_keys(&other, &master, id, instance, 2);
    ck_assert_mem_ne(&other, &base, sizeof base);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("auth");
    TCase *tests = tcase_create("keys and tags");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, vectors);
    tcase_add_test(tests, too_short_for_a_tag);
    tcase_add_test(tests, low_order_peer_keys);
    tcase_add_test(tests, pre_shared_keys);
    tcase_add_test(tests, everything_counts);
    tcase_set_timeout(tests, 60); /* sanitizers and valgrind are slow */
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
