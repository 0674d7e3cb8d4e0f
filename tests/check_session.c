/* The session: its states, its offsets, and NEW. The RESUME exchange is in
 * check_exchange.c, whole lives of sessions in check_simulation.c. */
#include "core/session.h"
#include "session_pair.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- states ---- */

/*
 * Thesis figure 4.2 and docs/protocol.md, drawn once more by hand: a row a
 * state, a column an event, '.' where the event means nothing. The letters:
 * C connecting, A asking, O offering, W awaiting, E connected (established),
 * S suspended, P plain, F failed.
 */
static const char letters[NS_STATES + 1] = "CAOWESPF";
static const char *const drawn[NS_STATES] = {
    /*                    established
     *                    | answer yes
     *                    | | answer no
     *                    | | | new
     *                    | | | | not new
     *                    | | | | | lost
     *                    | | | | | | resumed
     *                    | | | | | | | demoted
     *                    | | | | | | | | gave up */
    [NS_CONNECTING] =    "A O P . . . . P .",
    [NS_ASKING] =        ". O P . . . . P .",
    [NS_OFFERING] =      ". . . E . . . P .",
    [NS_AWAITING] =      ". . . E P . . P .",
    [NS_CONNECTED] =     ". . . . . S . P .",
    [NS_SUSPENDED] =     ". . . . . . E . F",
    [NS_PLAIN] =         ". . . . . . . . .",
    [NS_FAILED] =        ". . . . . . . . .",
};

START_TEST(every_state_and_event)
{
    for (int state = 0; state < NS_STATES; state++) {
        ck_assert_uint_eq(strlen(drawn[state]), 2 * NS_EVENTS - 1);
        for (int event = 0; event < NS_EVENTS; event++) {
            struct ns_session s, before;
            char to = drawn[state][2 * event];
            const char *at = strchr(letters, to);

            memset(&s, 0, sizeof s);
            ns_session_init(&s, NS_CLIENT, 2);
            s.state = (enum ns_state)state;
            memcpy(&before, &s, sizeof s);
            ck_assert_msg(ns_session_event(&s, (enum ns_event)event) == (to != '.'), "%s, %s",
                          ns_state_name((enum ns_state)state), ns_event_name((enum ns_event)event));
            if (to != '.')
                before.state = (enum ns_state)(at - letters);
            ck_assert_msg(memcmp(&s, &before, sizeof s) == 0, "%s, %s: is now %s",
                          ns_state_name((enum ns_state)state), ns_event_name((enum ns_event)event),
                          ns_state_name(s.state));
        }
    }
}
END_TEST

START_TEST(beginnings)
{
    struct ns_session s;

    ns_session_init(&s, NS_CLIENT, 2);
    ck_assert_int_eq(s.state, NS_CONNECTING);
    ck_assert(s.carrier.opener && s.carrier.adopted);
    ck_assert_uint_eq(s.version, 2);
    ns_session_init(&s, NS_SERVER, 1);
    ck_assert_int_eq(s.state, NS_AWAITING);
    ck_assert(!s.carrier.opener && s.carrier.adopted);
    ck_assert_uint_eq(s.version, 1);
    ck_assert_uint_eq(s.ring.head, 0);
    ck_assert_uint_eq(s.pins, 0);
}
END_TEST

START_TEST(protection)
{
    struct ns_session s = { 0 };

    for (int state = 0; state < NS_STATES; state++) {
        s.state = (enum ns_state)state;
        ck_assert_int_eq(ns_session_protected(&s), letters[state] == 'E' || letters[state] == 'S');
    }
}
END_TEST

START_TEST(names)
{
    for (int i = 0; i < NS_STATES; i++) {
        ck_assert_str_ne(ns_state_name((enum ns_state)i), "?");
        for (int k = 0; k < i; k++)
            ck_assert_str_ne(ns_state_name((enum ns_state)i), ns_state_name((enum ns_state)k));
    }
    for (int i = 0; i < NS_EVENTS; i++) {
        ck_assert_str_ne(ns_event_name((enum ns_event)i), "?");
        for (int k = 0; k < i; k++)
            ck_assert_str_ne(ns_event_name((enum ns_event)i), ns_event_name((enum ns_event)k));
    }
    ck_assert_str_eq(ns_state_name(NS_STATES), "?");
    ck_assert_str_eq(ns_event_name(NS_EVENTS), "?");
}
END_TEST

/* ---- offsets ---- */

/* By hand from what Linux does: bytes_acked counts our SYN and FIN, SIOCOUTQ and
 * bytes_received count FIN; all three count headers. */

START_TEST(acknowledged)
{
    static const uint64_t starts[] = { 0, 1, 1000, (uint64_t)1 << 32, UINT64_MAX / 2 };
    static const uint32_t headers[] = { 0, 72, 112 };

    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        for (size_t h = 0; h < sizeof headers / sizeof *headers; h++)
            for (uint64_t written = 0; written < 6; written++)
                for (int fin = 0; fin < 2; fin++) {
                    uint64_t all = headers[h] + written + (uint64_t)fin;
                    struct ns_carrier c = { .tx_start = starts[i],
                                            .tx_position = starts[i] + written,
                                            .tx_header_bytes = headers[h],
                                            .adopted = true };

                    for (uint64_t done = 0; done <= all; done++) {
                        uint64_t stream = done > headers[h] ? done - headers[h] : 0;

                        if (stream > written)
                            stream = written;
                        ck_assert_uint_eq(ns_carrier_acknowledged(&c, all - done, fin), starts[i] + stream);
                    }
                }
}
END_TEST

START_TEST(received)
{
    static const uint32_t headers[] = { 0, 80, 96, 112 };

    for (size_t h = 0; h < sizeof headers / sizeof *headers; h++)
        for (int fin = 0; fin < 2; fin++) {
            struct ns_carrier c = { .rx_start = 5000, .rx_floor = 5000, .rx_header_bytes = headers[h] };

            for (uint64_t counted = 0; counted < headers[h] + 6; counted++) {
                uint64_t stream = counted > headers[h] + (uint64_t)fin ? counted - headers[h] - (uint64_t)fin : 0;

                ck_assert_uint_eq(ns_carrier_received(&c, counted, fin), 5000 + stream);
            }
        }
}
END_TEST

/* What is sent again is not received again. */
START_TEST(received_above_the_floor)
{
    struct ns_carrier c = { .rx_start = 1000, .rx_floor = 1010, .rx_header_bytes = 112 };

    ck_assert_uint_eq(ns_carrier_received(&c, 0, false), 1010);
    ck_assert_uint_eq(ns_carrier_received(&c, 112 + 9, false), 1010);
    ck_assert_uint_eq(ns_carrier_received(&c, 112 + 10, false), 1010);
    ck_assert_uint_eq(ns_carrier_received(&c, 112 + 11, false), 1011);
    ck_assert_uint_eq(ns_carrier_received(&c, 112 + 11, true), 1010);
}
END_TEST

START_TEST(faithful)
{
    for (int opener = 0; opener < 2; opener++)
        for (int fin = 0; fin < 2; fin++) {
            struct ns_carrier c = {
                .tx_start = 700, .tx_position = 750, .tx_header_bytes = 80, .opener = opener
            };
            uint64_t all = 80 + 50 + (uint64_t)opener + (uint64_t)fin;

            for (uint64_t queued = 0; queued <= all; queued++) {
                ck_assert(ns_carrier_faithful(&c, all - queued, queued, fin));
                ck_assert(!ns_carrier_faithful(&c, all - queued + 1, queued, fin));
                ck_assert(!ns_carrier_faithful(&c, all - queued, queued + 1, fin));
                if (queued > 0)
                    ck_assert(!ns_carrier_faithful(&c, all - queued, queued - 1, fin));
            }
        }
}
END_TEST

/* ---- somebody else has written ---- */

START_TEST(catches_up)
{
    struct ns_pair_of_sessions p;

    ns_pair_make(&p, 2);
    ns_pair_meet(&p);
    ns_pair_write(&p.client, 1000);
    struct ns_session *s = &p.client;
    uint64_t sent = s->carrier.tx_header_bytes + 1 + 1000; /* SYN among it */

    ck_assert_uint_eq(ns_carrier_written(&s->carrier, sent, 0), 1000);
    ck_assert_uint_eq(ns_carrier_written(&s->carrier, sent - 400, 400), 1000);
    ck_assert_uint_eq(ns_carrier_written(&s->carrier, sent, 77), 1077);
    ck_assert(ns_session_catch_up(s, 1000));
    ck_assert_uint_eq(ns_ring_used(&s->ring), 1000);
    ck_assert(!ns_session_catch_up(s, 999));
    ck_assert(ns_session_catch_up(s, 1077));
    ck_assert_uint_eq(s->ring.tail, 1077);
    ck_assert_uint_eq(s->ring.head, 1077);
    ck_assert_uint_eq(s->carrier.tx_position, 1077);
    ck_assert(ns_carrier_faithful(&s->carrier, sent, 77, false));
    s->pins++;
    ck_assert(!ns_session_catch_up(s, 1078));
    s->pins--;
    s->tx_ended = true;
    ck_assert(!ns_session_catch_up(s, 1078));
    ns_pair_part(&p);
}
END_TEST

/* ---- trimming ---- */

START_TEST(trims_what_is_acknowledged)
{
    struct ns_pair_of_sessions p;

    ns_pair_make(&p, 2);
    ns_pair_meet(&p);
    ns_pair_write(&p.client, 1000);
    ns_session_trim(&p.client, 1000 + NS_PACKET_BYTES_NEW); /* not even NEW is acknowledged */
    ck_assert_uint_eq(p.client.ring.tail, 0);
    ns_session_trim(&p.client, 1000);
    ck_assert_uint_eq(p.client.ring.tail, 0);
    ns_session_trim(&p.client, 400);
    ck_assert_uint_eq(p.client.ring.tail, 600);
    ns_session_trim(&p.client, 500); /* a counter read earlier */
    ck_assert_uint_eq(p.client.ring.tail, 600);
    ns_session_trim(&p.client, 0);
    ck_assert_uint_eq(p.client.ring.tail, 1000);
    ns_pair_part(&p);
}
END_TEST

START_TEST(trims_with_the_end_queued)
{
    struct ns_pair_of_sessions p;

    ns_pair_make(&p, 2);
    ns_pair_meet(&p);
    ns_pair_write(&p.server, 1000);
    p.server.tx_ended = true;
    ns_session_trim(&p.server, 101);
    ck_assert_uint_eq(p.server.ring.tail, 900);
    ns_session_trim(&p.server, 1);
    ck_assert_uint_eq(p.server.ring.tail, 1000);
    ns_session_trim(&p.server, 0);
    ck_assert_uint_eq(p.server.ring.tail, 1000);
    ns_pair_part(&p);
}
END_TEST

/* The application has ended its stream, but the ring is still being sent again:
 * FIN is not in the queue yet, and must not be taken for one of the bytes there. */
START_TEST(trims_before_the_end_is_queued)
{
    struct ns_pair_of_sessions p;

    ns_pair_make(&p, 2);
    ns_pair_meet(&p);
    ns_pair_write(&p.server, 1000);
    p.server.tx_ended = true;
    p.server.carrier.tx_position = 600;
    ns_session_trim(&p.server, 100);
    ck_assert_uint_eq(p.server.ring.tail, 500);
    ns_session_trim(&p.server, 0);
    ck_assert_uint_eq(p.server.ring.tail, 600);
    ns_pair_part(&p);
}
END_TEST

START_TEST(pinned_or_not_adopted)
{
    struct ns_pair_of_sessions p;

    ns_pair_make(&p, 2);
    ns_pair_meet(&p);
    ns_pair_write(&p.client, 1000);
    p.client.pins = 1;
    ns_session_trim(&p.client, 0);
    ck_assert_uint_eq(p.client.ring.tail, 0);
    p.client.pins = 0;
    p.client.carrier.adopted = false;
    ns_session_trim(&p.client, 0);
    ck_assert_uint_eq(p.client.ring.tail, 0);
    p.client.carrier.adopted = true;
    ns_session_trim(&p.client, 0);
    ck_assert_uint_eq(p.client.ring.tail, 1000);
    ns_pair_part(&p);
}
END_TEST

/* ---- NEW ---- */

struct offered {
    struct ns_pair_of_sessions p;
    uint8_t id[16], packet[NS_PACKET_BYTES_NEW];
};

static void offer(struct offered *o)
{
    ns_pair_make(&o->p, 2);
    ns_pair_nonce(o->id, 3);
    ck_assert_uint_eq(ns_session_offer(&o->p.client, &o->p.client_identity, &o->p.master,
                                       o->p.server_identity.instance, o->id, o->packet),
                      NS_PACKET_BYTES_NEW);
}

/* Refused, and nothing of it kept. */
static void refuses(struct offered *o, const char *what)
{
    struct ns_session before = o->p.server;

    ck_assert_msg(ns_session_accept(&o->p.server, &o->p.server_identity, &o->p.master, o->packet) == -EBADMSG,
                  "%s", what);
    ck_assert_msg(memcmp(&before, &o->p.server, sizeof before) == 0, "%s: changed something", what);
}

START_TEST(new_is_accepted)
{
    struct offered o;

    offer(&o);
    ck_assert_uint_eq(o.p.client.carrier.tx_header_bytes, NS_PACKET_BYTES_NEW);
    ck_assert_uint_eq(o.p.client.carrier.rx_header_bytes, 0);
    ck_assert_int_eq(ns_session_accept(&o.p.server, &o.p.server_identity, &o.p.master, o.packet), 0);
    ck_assert_uint_eq(o.p.server.carrier.rx_header_bytes, NS_PACKET_BYTES_NEW);
    ck_assert_uint_eq(o.p.server.carrier.tx_header_bytes, 0);
    ck_assert_mem_eq(o.p.server.id, o.id, 16);
    ck_assert_mem_eq(o.p.client.id, o.id, 16);
    ck_assert_mem_eq(o.p.server.instance, o.p.server_identity.instance, 16);
    ck_assert_mem_eq(o.p.client.instance, o.p.server_identity.instance, 16);
    ck_assert_mem_eq(&o.p.server.keys, &o.p.client.keys, sizeof o.p.client.keys);
    ck_assert_int_eq(o.p.server.state, NS_AWAITING); /* the caller's event says so */
    ns_pair_part(&o.p);
}
END_TEST

START_TEST(new_with_a_bit_wrong)
{
    struct offered o;

    offer(&o);
    for (size_t bit = 0; bit < sizeof o.packet * 8; bit++) {
        char what[40];

        snprintf(what, sizeof what, "bit %zu", bit);
        o.packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
        refuses(&o, what);
        o.packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_eq(ns_session_accept(&o.p.server, &o.p.server_identity, &o.p.master, o.packet), 0);
    ns_pair_part(&o.p);
}
END_TEST

START_TEST(new_for_another_instance)
{
    struct offered o;
    uint8_t instance[16];

    offer(&o);
    memcpy(instance, o.p.server_identity.instance, sizeof instance);
    for (int at = 0; at < 16; at += 15) { /* the half that NEW names, and the half that only the keys know */
        instance[at] ^= 1;
        ns_session_offer(&o.p.client, &o.p.client_identity, &o.p.master, instance, o.id, o.packet);
        refuses(&o, "another instance");
        instance[at] ^= 1;
    }
    ns_pair_part(&o.p);
}
END_TEST

START_TEST(new_with_other_keys)
{
    struct offered o;

    offer(&o);
    o.p.master.key[31] ^= 0x80;
    refuses(&o, "another master key");
    o.p.master.key[31] ^= 0x80;
    o.p.server.version = 3;
    refuses(&o, "another version");
    ns_pair_part(&o.p);
}
END_TEST

START_TEST(keys_are_wiped)
{
    static const struct ns_session_keys none;
    struct offered o;

    offer(&o);
    ck_assert_mem_ne(&o.p.client.keys, &none, sizeof none);
    ns_session_destroy(&o.p.client);
    ck_assert_mem_eq(&o.p.client.keys, &none, sizeof none);
    ns_session_destroy(&o.p.server);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("session");
    TCase *tests = tcase_create("states, offsets, NEW");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, every_state_and_event);
    tcase_add_test(tests, beginnings);
    tcase_add_test(tests, protection);
    tcase_add_test(tests, names);
    tcase_add_test(tests, acknowledged);
    tcase_add_test(tests, received);
    tcase_add_test(tests, received_above_the_floor);
    tcase_add_test(tests, faithful);
    tcase_add_test(tests, catches_up);
    tcase_add_test(tests, trims_what_is_acknowledged);
    tcase_add_test(tests, trims_with_the_end_queued);
    tcase_add_test(tests, trims_before_the_end_is_queued);
    tcase_add_test(tests, pinned_or_not_adopted);
    tcase_add_test(tests, new_is_accepted);
    tcase_add_test(tests, new_with_a_bit_wrong);
    tcase_add_test(tests, new_for_another_instance);
    tcase_add_test(tests, new_with_other_keys);
    tcase_add_test(tests, keys_are_wiped);
    tcase_set_timeout(tests, 60); /* sanitizers and valgrind are slow */
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
