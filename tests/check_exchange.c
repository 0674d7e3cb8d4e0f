/* The RESUME exchange, packet by packet (docs/protocol.md). Version 1's is in
 * check_exchange_v1.c. */
#include "session_pair.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Both sides in the middle of a stream each way. The client has written 1000
 * bytes, of which it still holds 200..999; the server 2000, holding 500..1999.
 * The client's kernel has 1500 of the server's, the server's 700 of the client's.
 */
enum {
    CLIENT_TAIL = 200,
    CLIENT_HEAD = 1000,
    SERVER_HAS = 700,
    SERVER_TAIL = 500,
    SERVER_HEAD = 2000,
    CLIENT_HAS = 1500,
};

struct scene {
    struct ns_pair_of_sessions p;
    struct ns_exchange client, server;
    uint8_t resume[NS_PACKET_BYTES_RESUME], ack[NS_PACKET_BYTES_RESUME_ACK];
    uint8_t confirm[NS_PACKET_BYTES_CONFIRM], done[NS_PACKET_BYTES_DONE];
};

static void set(struct scene *t)
{
    memset(t, 0, sizeof *t);
    ns_pair_make(&t->p, 2);
    ns_pair_meet(&t->p);
    ns_pair_write(&t->p.client, CLIENT_HEAD);
    ns_pair_forget(&t->p.client, CLIENT_TAIL);
    ns_pair_write(&t->p.server, SERVER_HEAD);
    ns_pair_forget(&t->p.server, SERVER_TAIL);
}

static void strike(struct scene *t)
{
    ns_exchange_end(&t->client);
    ns_exchange_end(&t->server);
    ck_assert_uint_eq(t->p.client.pins, 0);
    ck_assert_uint_eq(t->p.server.pins, 0);
    ns_pair_part(&t->p);
}

static void begin(struct scene *t, uint64_t received)
{
    uint8_t nonce[16];

    ns_pair_nonce(nonce, 1);
    ck_assert_uint_eq(ns_exchange_begin(&t->client, &t->p.client, nonce, received, t->resume),
                      sizeof t->resume);
}

static enum ns_refusal answer(struct scene *t)
{
    enum ns_refusal refusal = NS_REFUSED_LATER;
    uint8_t nonce[16];

    ns_pair_nonce(nonce, 2);
    ck_assert_uint_eq(ns_exchange_answer(&t->server, &t->p.server, t->resume, nonce, SERVER_HAS,
                                         t->p.server_identity.instance, &refusal, t->ack),
                      sizeof t->ack);
    return refusal;
}

/* The exchange up to RESUME_ACK and up to CONFIRM. */
static void prove(struct scene *t)
{
    begin(t, CLIENT_HAS);
    ck_assert_int_eq(answer(t), NS_GO_ON);
    ck_assert_uint_eq(ns_exchange_wants(&t->client), NS_PACKET_BYTES_RESUME_ACK);
    ck_assert_int_eq(ns_exchange_input(&t->client, t->ack), NS_STEP_PROVED);
}

static void confirm(struct scene *t)
{
    prove(t);
    ck_assert_int_eq(ns_exchange_confirm(&t->client, CLIENT_HAS + 20, t->confirm), NS_PACKET_BYTES_CONFIRM);
}

static void adopt(struct scene *t)
{
    confirm(t);
    ck_assert_uint_eq(ns_exchange_wants(&t->server), NS_PACKET_BYTES_CONFIRM);
    ck_assert_int_eq(ns_exchange_input(&t->server, t->confirm), NS_STEP_CONFIRMED);
    ck_assert_int_eq(ns_exchange_done(&t->server, SERVER_HAS + 30, t->done), NS_PACKET_BYTES_DONE);
    ck_assert_uint_eq(ns_exchange_wants(&t->client), NS_PACKET_BYTES_DONE);
}

/* A packet of the test's own making, with a good tag. */
static void make_resume(struct scene *t, uint64_t epoch, uint64_t received)
{
    struct ns_resume r = { .epoch = epoch, .receive_offset = received };

    memcpy(r.session_id, t->p.client.id, 16);
    ns_wire_put_resume(t->resume, &r);
    ns_auth_sign(t->resume, sizeof t->resume, t->p.client.keys.c2s, NULL);
}

static void make_confirm(struct scene *t, uint64_t received, uint64_t start)
{
    struct ns_confirm c = { .receive_offset = received, .start_offset = start };

    ns_wire_put_confirm(t->confirm, &c);
    ns_auth_sign(t->confirm, sizeof t->confirm, t->p.client.keys.c2s, t->server.server_nonce);
}

static void make_ack(struct scene *t, uint64_t received)
{
    struct ns_resume_ack a = { .status = NS_GO_ON, .epoch = t->client.epoch, .receive_offset = received };

    ns_wire_put_resume_ack(t->ack, &a);
    ns_auth_sign(t->ack, sizeof t->ack, t->p.client.keys.s2c, t->client.client_nonce);
}

static void make_done(struct scene *t, uint64_t received)
{
    struct ns_done d = { .receive_offset = received };

    ns_wire_put_done(t->done, &d);
    ns_auth_sign(t->done, sizeof t->done, t->p.client.keys.s2c, t->client.client_nonce);
}

/* ---- as it should go ---- */

START_TEST(whole_exchange)
{
    struct ns_carrier *c, *s;
    struct scene t;

    set(&t);
    adopt(&t);
    ck_assert_uint_eq(t.client.peer_received, SERVER_HAS);
    ck_assert_uint_eq(t.client.peer_sent, SERVER_HEAD);
    c = &t.p.client.carrier;
    s = &t.p.server.carrier;
    ck_assert(!c->adopted && s->adopted && c->opener && !s->opener);
    ck_assert_int_eq(ns_exchange_input(&t.client, t.done), NS_STEP_ADOPTED);
    ck_assert(c->adopted);
    ck_assert_uint_eq(c->tx_start, SERVER_HAS);
    ck_assert_uint_eq(c->tx_position, SERVER_HAS);
    ck_assert_uint_eq(c->rx_start, CLIENT_HAS + 20);
    ck_assert_uint_eq(c->rx_floor, CLIENT_HAS + 20);
    ck_assert_uint_eq(c->tx_header_bytes, NS_PACKET_BYTES_RESUME + NS_PACKET_BYTES_CONFIRM);
    ck_assert_uint_eq(c->rx_header_bytes, NS_PACKET_BYTES_RESUME_ACK + NS_PACKET_BYTES_DONE);
    ck_assert_uint_eq(s->tx_start, CLIENT_HAS + 20);
    ck_assert_uint_eq(s->tx_position, CLIENT_HAS + 20);
    ck_assert_uint_eq(s->rx_start, SERVER_HAS);
    ck_assert_uint_eq(s->rx_floor, SERVER_HAS + 30);
    ck_assert_uint_eq(s->tx_header_bytes, c->rx_header_bytes);
    ck_assert_uint_eq(s->rx_header_bytes, c->tx_header_bytes);
    ck_assert_uint_eq(t.p.client.pins, 0);
    ck_assert_uint_eq(t.p.server.pins, 0);
    ck_assert_uint_eq(ns_exchange_wants(&t.client), 0);
    ck_assert_uint_eq(ns_exchange_wants(&t.server), 0);
    strike(&t);
}
END_TEST

/* From RESUME to the end, and however often the end is called. */
START_TEST(pins)
{
    struct ns_exchange other;
    uint8_t nonce[16], out[NS_PACKET_BYTES_RESUME];
    struct scene t;

    set(&t);
    begin(&t, CLIENT_HAS);
    ck_assert_uint_eq(t.p.client.pins, 1);
    ns_pair_nonce(nonce, 3);
    ns_exchange_begin(&other, &t.p.client, nonce, CLIENT_HAS, out);
    ck_assert_uint_eq(t.p.client.pins, 2);
    ck_assert_uint_eq(other.epoch, t.client.epoch + 1);
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    ck_assert_uint_eq(t.p.server.pins, 1);
    ns_session_trim(&t.p.client, 0);
    ns_session_trim(&t.p.server, 0);
    ck_assert_uint_eq(t.p.client.ring.tail, CLIENT_TAIL);
    ck_assert_uint_eq(t.p.server.ring.tail, SERVER_TAIL);
    for (int i = 0; i < 3; i++)
        ns_exchange_end(&other);
    ck_assert_uint_eq(t.p.client.pins, 1);
    ns_exchange_end(&t.client);
    ns_exchange_end(&t.server);
    ns_session_trim(&t.p.client, 0);
    ck_assert_uint_eq(t.p.client.ring.tail, CLIENT_HEAD);
    strike(&t);
}
END_TEST

/* ---- RESUME ---- */

static void refused_with(struct scene *t, enum ns_refusal why, const char *what)
{
    static const uint8_t no_tag[16];
    struct ns_session before = t->p.server;
    struct ns_resume_ack a;

    ck_assert_msg(answer(t) == why, "%s", what);
    ck_assert_msg(memcmp(&before, &t->p.server, sizeof before) == 0, "%s: changed something", what);
    ck_assert_uint_eq(ns_exchange_wants(&t->server), 0);
    ck_assert_int_gt(ns_wire_get_resume_ack(t->ack, sizeof t->ack, &a), 0);
    ck_assert_uint_eq(a.status, why);
    ck_assert_uint_eq(a.receive_offset, 0);
    ck_assert_uint_eq(a.send_offset, 0);
    ck_assert_mem_eq(a.nonce, t->p.server_identity.instance, 16);
    ck_assert_mem_eq(a.tag, no_tag, 16);
}

START_TEST(resume_with_a_bit_wrong)
{
    struct scene t;

    set(&t);
    begin(&t, CLIENT_HAS);
    for (size_t bit = 0; bit < sizeof t.resume * 8; bit++) {
        char what[40];

        snprintf(what, sizeof what, "bit %zu", bit);
        t.resume[bit / 8] ^= (uint8_t)(1 << bit % 8);
        refused_with(&t, NS_REFUSED_UNKNOWN, what);
        t.resume[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    strike(&t);
}
END_TEST

START_TEST(resume_in_other_states)
{
    struct scene t;

    set(&t);
    begin(&t, CLIENT_HAS);
    for (int state = 0; state < NS_STATES; state++) {
        if (state == NS_CONNECTED || state == NS_SUSPENDED)
            continue;
        t.p.server.state = (enum ns_state)state;
        refused_with(&t, NS_REFUSED_UNKNOWN, ns_state_name((enum ns_state)state));
    }
    t.p.server.state = NS_CONNECTED;
    t.p.server.role = NS_CLIENT; /* a RESUME that comes back to who made it */
    refused_with(&t, NS_REFUSED_UNKNOWN, "reflected");
    t.p.server.role = NS_SERVER;
    t.p.server.state = NS_SUSPENDED;
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    strike(&t);
}
END_TEST

START_TEST(resume_epochs)
{
    struct scene t;

    set(&t);
    make_resume(&t, 0, CLIENT_HAS);
    refused_with(&t, NS_REFUSED_EPOCH, "epoch 0");
    make_resume(&t, 5, CLIENT_HAS);
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    ns_exchange_end(&t.server);
    refused_with(&t, NS_REFUSED_EPOCH, "replayed");
    make_resume(&t, 4, CLIENT_HAS);
    refused_with(&t, NS_REFUSED_EPOCH, "older");
    make_resume(&t, UINT64_MAX, CLIENT_HAS);
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    strike(&t);
}
END_TEST

/* A refused RESUME must not raise the epoch: the next good one has to pass. */
START_TEST(resume_offsets)
{
    static const uint64_t never_sent[] = { SERVER_HEAD + 1, SERVER_HEAD + 2, (uint64_t)1 << 32, UINT64_MAX };
    struct scene t;

    set(&t);
    for (size_t i = 0; i < sizeof never_sent / sizeof *never_sent; i++) {
        make_resume(&t, 1, never_sent[i]);
        refused_with(&t, NS_REFUSED_GAP, "never sent");
    }
    make_resume(&t, 1, SERVER_HEAD);
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    ns_exchange_end(&t.server);
    /* No longer held: the client's kernel has acknowledged it since; CONFIRM counts. */
    make_resume(&t, 2, SERVER_TAIL - 1);
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    ck_assert_uint_eq(t.server.peer_received, SERVER_TAIL - 1);
    strike(&t);
}
END_TEST

/* FIN as one byte past the end: where a stream has ended, and only there. */
START_TEST(end_counted_as_a_byte)
{
    struct scene t;

    set(&t);
    make_resume(&t, 1, SERVER_HEAD + 1);
    refused_with(&t, NS_REFUSED_GAP, "not ended");
    t.p.server.tx_ended = true;
    make_resume(&t, 1, SERVER_HEAD + 2);
    refused_with(&t, NS_REFUSED_GAP, "two past the end");
    make_resume(&t, 1, SERVER_HEAD + 1);
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    ck_assert_uint_eq(t.server.peer_received, SERVER_HEAD);
    make_confirm(&t, SERVER_HEAD + 1, SERVER_HAS);
    ck_assert_int_eq(ns_exchange_input(&t.server, t.confirm), NS_STEP_CONFIRMED);
    ck_assert_int_eq(ns_exchange_done(&t.server, SERVER_HAS, t.done), NS_PACKET_BYTES_DONE);
    ck_assert_uint_eq(t.p.server.carrier.tx_start, SERVER_HEAD);
    strike(&t);

    set(&t);
    t.p.client.tx_ended = true;
    begin(&t, CLIENT_HAS);
    make_ack(&t, CLIENT_HEAD + 1);
    ck_assert_int_eq(ns_exchange_input(&t.client, t.ack), NS_STEP_PROVED);
    ck_assert_int_eq(ns_exchange_confirm(&t.client, CLIENT_HAS, t.confirm), NS_PACKET_BYTES_CONFIRM);
    ck_assert_uint_eq(t.p.client.carrier.tx_start, CLIENT_HEAD);
    make_done(&t, CLIENT_HEAD + 1);
    ck_assert_int_eq(ns_exchange_input(&t.client, t.done), NS_STEP_ADOPTED);
    strike(&t);
}
END_TEST

/* A peer that never learns that it was FIN counts one more on each connection. */
START_TEST(ends_counted_again_and_again)
{
    struct scene t;

    set(&t);
    t.p.server.tx_ended = true;
    for (uint64_t n = 1; n < 5; n++) {
        make_resume(&t, 2 * n - 1, SERVER_HEAD + n + 1);
        refused_with(&t, NS_REFUSED_GAP, "one too many");
        make_resume(&t, 2 * n - 1, SERVER_HEAD + n);
        ck_assert_int_eq(answer(&t), NS_GO_ON);
        ns_exchange_end(&t.server); /* RESUME alone counts nothing */
        make_resume(&t, 2 * n, SERVER_HEAD + n + 1);
        refused_with(&t, NS_REFUSED_GAP, "one too many, again");
        make_resume(&t, 2 * n, SERVER_HEAD + n);
        ck_assert_int_eq(answer(&t), NS_GO_ON);
        make_confirm(&t, SERVER_HEAD + n, SERVER_HAS);
        ck_assert_int_eq(ns_exchange_input(&t.server, t.confirm), NS_STEP_CONFIRMED);
        ck_assert_int_eq(ns_exchange_done(&t.server, SERVER_HAS, t.done), NS_PACKET_BYTES_DONE);
        ck_assert_uint_eq(t.p.server.carrier.tx_start, SERVER_HEAD);
    }
    strike(&t);
}
END_TEST

/* ---- RESUME_ACK ---- */

START_TEST(ack_with_a_bit_wrong)
{
    struct scene t;

    set(&t);
    begin(&t, CLIENT_HAS);
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    for (size_t bit = 0; bit < sizeof t.ack * 8; bit++) {
        struct ns_exchange x = t.client;
        struct ns_session before = t.p.client;
        bool status = bit / 8 == NS_PACKET_BYTES_HEADER;

        t.ack[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_msg(ns_exchange_input(&x, t.ack) == (status ? NS_STEP_REFUSED : NS_STEP_BROKEN), "bit %zu",
                      bit);
        ck_assert_msg(memcmp(&before, &t.p.client, sizeof before) == 0, "bit %zu", bit);
        t.ack[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    strike(&t);
}
END_TEST

START_TEST(ack_of_another_attempt)
{
    struct ns_exchange later;
    uint8_t nonce[16], out[NS_PACKET_BYTES_RESUME];
    struct scene t;

    set(&t);
    begin(&t, CLIENT_HAS);
    ck_assert_int_eq(answer(&t), NS_GO_ON);
    ns_pair_nonce(nonce, 1); /* even with the same nonce, the epoch differs */
    ns_exchange_begin(&later, &t.p.client, nonce, CLIENT_HAS, out);
    ck_assert_int_eq(ns_exchange_input(&later, t.ack), NS_STEP_BROKEN);
    ns_exchange_end(&later);
    strike(&t);
}
END_TEST

START_TEST(ack_that_refuses)
{
    static const enum ns_refusal all[] = { NS_REFUSED_UNKNOWN, NS_REFUSED_GAP, NS_REFUSED_EPOCH,
                                           NS_REFUSED_LATER };
    struct scene t;

    set(&t);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        begin(&t, CLIENT_HAS);
        ns_exchange_refuse(all[i], t.client.epoch, t.p.server_identity.instance, t.ack);
        ck_assert_int_eq(ns_exchange_input(&t.client, t.ack), NS_STEP_REFUSED);
        ck_assert_uint_eq(t.client.refusal, all[i]);
        ck_assert_mem_eq(t.client.refuser, t.p.server_identity.instance, 16);
        ns_exchange_end(&t.client);
        begin(&t, CLIENT_HAS); /* a refusal of an earlier attempt */
        ck_assert_int_eq(ns_exchange_input(&t.client, t.ack), NS_STEP_BROKEN);
        ns_exchange_end(&t.client);
    }
    strike(&t);
}
END_TEST

static void confirm_fails(uint64_t told, int error)
{
    struct ns_carrier before;
    struct scene t;

    set(&t);
    begin(&t, CLIENT_HAS);
    make_ack(&t, told);
    ck_assert_int_eq(ns_exchange_input(&t.client, t.ack), NS_STEP_PROVED);
    before = t.p.client.carrier;
    ck_assert_int_eq(ns_exchange_confirm(&t.client, CLIENT_HAS, t.confirm), error);
    ck_assert_mem_eq(&before, &t.p.client.carrier, sizeof before);
    strike(&t);
}

START_TEST(ack_with_impossible_offsets)
{
    confirm_fails(CLIENT_TAIL - 1, -ENODATA);
    confirm_fails(0, -ENODATA);
    confirm_fails(CLIENT_HEAD + 1, -EPROTO);
    confirm_fails(UINT64_MAX, -EPROTO);
}
END_TEST

/* ---- CONFIRM ---- */

START_TEST(confirm_with_a_bit_wrong)
{
    struct scene t;

    set(&t);
    confirm(&t);
    for (size_t bit = 0; bit < sizeof t.confirm * 8; bit++) {
        struct ns_session before = t.p.server;
        struct ns_exchange x = t.server;

        t.confirm[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_msg(ns_exchange_input(&x, t.confirm) == NS_STEP_BROKEN, "bit %zu", bit);
        ck_assert_msg(memcmp(&before, &t.p.server, sizeof before) == 0, "bit %zu", bit);
        t.confirm[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_eq(ns_exchange_input(&t.server, t.confirm), NS_STEP_CONFIRMED);
    strike(&t);
}
END_TEST

/* Two attempts on two paths; the older one's CONFIRM is late, or is first. */
START_TEST(confirms_out_of_order)
{
    for (int newer_first = 0; newer_first < 2; newer_first++) {
        struct scene t;
        struct ns_exchange older;
        uint8_t late[NS_PACKET_BYTES_CONFIRM], done[NS_PACKET_BYTES_DONE];

        set(&t);
        confirm(&t);
        ns_exchange_end(&t.client);
        older = t.server;
        memcpy(late, t.confirm, sizeof late);
        confirm(&t);
        if (newer_first) {
            ck_assert_int_eq(ns_exchange_input(&t.server, t.confirm), NS_STEP_CONFIRMED);
            ck_assert_int_gt(ns_exchange_done(&t.server, SERVER_HAS, t.done), 0);
            ck_assert_int_eq(ns_exchange_input(&older, late), NS_STEP_BROKEN);
        } else {
            ck_assert_int_eq(ns_exchange_input(&older, late), NS_STEP_CONFIRMED);
            ck_assert_int_gt(ns_exchange_done(&older, SERVER_HAS, done), 0);
            ck_assert_int_eq(ns_exchange_input(&t.server, t.confirm), NS_STEP_CONFIRMED);
            ck_assert_int_gt(ns_exchange_done(&t.server, SERVER_HAS, t.done), 0);
        }
        ck_assert_int_eq(ns_exchange_input(&t.client, t.done), NS_STEP_ADOPTED);
        ns_exchange_end(&older);
        strike(&t);
    }
}
END_TEST

static void done_gives(uint64_t received, uint64_t start, int result)
{
    struct ns_carrier before;
    struct scene t;

    set(&t);
    prove(&t);
    make_confirm(&t, received, start);
    ck_assert_int_eq(ns_exchange_input(&t.server, t.confirm), NS_STEP_CONFIRMED);
    before = t.p.server.carrier;
    ck_assert_int_eq(ns_exchange_done(&t.server, SERVER_HAS, t.done), result);
    if (result < 0)
        ck_assert_mem_eq(&before, &t.p.server.carrier, sizeof before);
    strike(&t);
}

START_TEST(confirm_with_impossible_offsets)
{
    done_gives(SERVER_TAIL - 1, SERVER_HAS, -ENODATA);
    done_gives(SERVER_HEAD + 1, SERVER_HAS, -EPROTO);
    done_gives(UINT64_MAX, SERVER_HAS, -EPROTO);
    done_gives(CLIENT_HAS, SERVER_HAS + 1, -EPROTO); /* starts above what we have: a gap */
    done_gives(CLIENT_HAS, UINT64_MAX, -EPROTO);
    done_gives(SERVER_TAIL, SERVER_HAS, NS_PACKET_BYTES_DONE);
    done_gives(SERVER_HEAD, 0, NS_PACKET_BYTES_DONE);
}
END_TEST

/* ---- DONE ---- */

START_TEST(done_with_a_bit_wrong)
{
    struct scene t;

    set(&t);
    adopt(&t);
    for (size_t bit = 0; bit < sizeof t.done * 8; bit++) {
        struct ns_session before = t.p.client;
        struct ns_exchange x = t.client;

        t.done[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_msg(ns_exchange_input(&x, t.done) == NS_STEP_BROKEN, "bit %zu", bit);
        ck_assert_msg(memcmp(&before, &t.p.client, sizeof before) == 0, "bit %zu", bit);
        t.done[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_eq(ns_exchange_input(&t.client, t.done), NS_STEP_ADOPTED);
    strike(&t);
}
END_TEST

START_TEST(done_with_impossible_offsets)
{
    /* Less than it said before, and more than was ever sent. */
    static const uint64_t bad[] = { SERVER_HAS - 1, 0, CLIENT_HEAD + 1, UINT64_MAX };
    struct scene t;

    set(&t);
    adopt(&t);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        make_done(&t, bad[i]);
        ck_assert_int_eq(ns_exchange_input(&t.client, t.done), NS_STEP_BROKEN);
        ck_assert(!t.p.client.carrier.adopted);
    }
    make_done(&t, SERVER_HAS);
    ck_assert_int_eq(ns_exchange_input(&t.client, t.done), NS_STEP_ADOPTED);
    strike(&t);
}
END_TEST

/* Packets where none is awaited. */
START_TEST(out_of_turn)
{
    struct scene t;

    set(&t);
    prove(&t);
    ck_assert_uint_eq(ns_exchange_wants(&t.client), 0); /* its own move now */
    make_confirm(&t, CLIENT_HAS, SERVER_HAS);
    ck_assert_int_eq(ns_exchange_input(&t.client, t.confirm), NS_STEP_BROKEN); /* its own, reflected */
    ck_assert_uint_eq(t.p.client.confirmed, 0);
    ns_exchange_end(&t.client);
    ck_assert_int_eq(ns_exchange_input(&t.client, t.ack), NS_STEP_BROKEN);
    strike(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exchange");
    TCase *tests = tcase_create("RESUME");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, whole_exchange);
    tcase_add_test(tests, pins);
    tcase_add_test(tests, resume_with_a_bit_wrong);
    tcase_add_test(tests, resume_in_other_states);
    tcase_add_test(tests, resume_epochs);
    tcase_add_test(tests, resume_offsets);
    tcase_add_test(tests, end_counted_as_a_byte);
    tcase_add_test(tests, ends_counted_again_and_again);
    tcase_add_test(tests, ack_with_a_bit_wrong);
    tcase_add_test(tests, ack_of_another_attempt);
    tcase_add_test(tests, ack_that_refuses);
    tcase_add_test(tests, ack_with_impossible_offsets);
    tcase_add_test(tests, confirm_with_a_bit_wrong);
    tcase_add_test(tests, confirms_out_of_order);
    tcase_add_test(tests, confirm_with_impossible_offsets);
    tcase_add_test(tests, done_with_a_bit_wrong);
    tcase_add_test(tests, done_with_impossible_offsets);
    tcase_add_test(tests, out_of_turn);
    tcase_set_timeout(tests, 60); /* sanitizers and valgrind are slow */
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
