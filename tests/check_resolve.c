#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/resolve.h"
#include "engine/sys.h"
#include "dnsmasq.h"
#include "libc_calls.h"
#include "namespace.h"

/*
 * All in namespaces of the test's own, with a file system of its own on /etc:
 *
 *     127.0.0.1:53   dnsmasq, with the names of `zone` below
 *     127.0.0.2:53   a server played by the test where it asks for one
 *     127.0.0.3:53   nobody
 */

static const char zone[] = "192.0.2.1 many.test\n"
                           "192.0.2.2 many.test\n"
                           "192.0.2.3 many.test\n"
                           "2001:db8::1 many.test\n"
                           "2001:db8::2 many.test\n"
                           "192.0.2.10 four.test\n"
                           "2001:db8::10 four.test.search.test\n"
                           "2001:db8::20 six.test\n"
                           "192.0.2.30 short.search.test\n"
                           "192.0.2.31 localhost\n"
                           "192.0.2.40 both.test\n";

static const char ordinary_config[] = "nameserver 127.0.0.1\n";

/* ---- driving a lookup ---- */

struct result {
    int calls;
    int error;
    size_t n;
    struct ns_address list[NS_RESOLVE_ADDRESSES_MAX];
    struct ns_resolve *cancel; /* what done has to cancel, or NULL */
};

static void on_done(void *ctx, int error, const struct ns_address *list, size_t n)
{
    struct result *result = ctx;

    result->calls++;
    result->error = error;
    result->n = n;
    if (n)
        memcpy(result->list, list, n * sizeof(*list));
    ns_resolve_cancel(result->cancel);
}

static struct ns_time now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (struct ns_time){ t.tv_sec * INT64_C(1000000000) + t.tv_nsec };
}

/* One turn of the loop: waits for descriptors, or until the deadline. */
static void turn(struct ns_resolve *r)
{
    struct pollfd fds[NS_RESOLVE_FDS_MAX];
    size_t n = ns_resolve_fds(r, fds, NS_RESOLVE_FDS_MAX);
    struct ns_time deadline = ns_resolve_deadline(r, now());
    int64_t left = ns_time_sub(deadline, now()).ns;
    struct timespec timeout = { left < 0 ? 0 : left / 1000000000, left < 0 ? 0 : left % 1000000000 };

    for (size_t i = 0; i < n; i++) {
        ck_assert_int_ge(fds[i].fd, 3);
        ck_assert_int_eq(ns_sys_fcntl(fds[i].fd, F_GETFD, 0), FD_CLOEXEC);
        ck_assert_int_ne(ns_sys_fcntl(fds[i].fd, F_GETFL, 0) & O_NONBLOCK, 0);
        if (ns_sys_fd_limit() >= 1024)
            ck_assert_int_ge(fds[i].fd, 512);
    }
    ck_assert_int_le(left, INT64_C(1000000) * NS_RESOLVE_LIMIT_MS);
    ck_assert_int_ge(ppoll(fds, n, &timeout, NULL), 0);
    ns_resolve_process(r, now(), fds, n);
}

static void finish(struct ns_resolve *r, struct result *result)
{
    while (!result->calls)
        turn(r);
    ck_assert_int_eq(result->calls, 1);
    ck_assert_uint_eq(ns_resolve_fds(r, NULL, 0), 0);
    ck_assert_int_eq(ns_resolve_deadline(r, now()).ns, NS_NEVER.ns);
    ns_resolve_process(r, now(), NULL, 0);
    ck_assert_int_eq(result->calls, 1);
    ns_resolve_cancel(r);
}

static struct result lookup(const char *name)
{
    struct result result = { 0 };
    int before = ns_test_count_fds();
    struct ns_resolve *r;

    ns_test_watch_libc(true);
    r = ns_resolve_start(name, on_done, &result);
    ck_assert_ptr_nonnull(r);
    ck_assert_int_eq(result.calls, 0);
    finish(r, &result);
    ns_test_watch_libc(false);
    ck_assert_int_eq(ns_test_libc_calls(), 0);
    ck_assert_int_eq(ns_test_count_fds(), before);
    ck_assert((result.error == 0) == (result.n > 0));
    return result;
}

static bool has(const struct result *result, const char *text)
{
    struct ns_address a = { .family = strchr(text, ':') ? AF_INET6 : AF_INET };

    ck_assert_int_eq(inet_pton(a.family, text, a.bytes), 1);
    for (size_t i = 0; i < result->n; i++) {
        if (ns_address_equal(&result->list[i], &a))
            return true;
    }
    return false;
}

#define ASSERT_ONLY(result, text)            \
    do {                                     \
        ck_assert_int_eq((result).error, 0); \
        ck_assert_uint_eq((result).n, 1);    \
        ck_assert(has(&(result), text));     \
    } while (0)

/* ---- a server played by the test ---- */

static int fake_open(void)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(53) };
    int fd = ns_sys_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, "127.0.0.2", &addr.sin_addr);
    ck_assert_int_eq(ns_sys_bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

struct question {
    unsigned char packet[512];
    size_t len;
    bool aaaa;
    struct sockaddr_in from;
};

/* Turns `r` until the server has been asked. */
static void fake_receive(int fd, struct ns_resolve *r, struct question *q)
{
    socklen_t from_len = sizeof(q->from);
    ssize_t len;

    while ((len = ns_sys_recvfrom(fd, q->packet, sizeof(q->packet) - 16, MSG_DONTWAIT,
                                  (struct sockaddr *)&q->from, &from_len)) == -EAGAIN)
        turn(r);
    ck_assert_int_gt(len, 12 + 5);
    q->len = (size_t)len;
    q->aaaa = q->packet[len - 3] == 28; /* the type is the last but one field (RFC 1035, 4.1.2) */
}

/* Answers with 192.0.2.77, or "no data" for AAAA. */
static void fake_answer(int fd, struct question *q)
{
    static const unsigned char record[] = { 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77 };

    q->packet[2] |= 0x80; /* a response */
    q->packet[3] |= 0x80; /* recursion available */
    if (!q->aaaa) {
        q->packet[7] = 1;
        memcpy(q->packet + q->len, record, sizeof(record));
        q->len += sizeof(record);
    }
    ck_assert_int_eq(ns_sys_sendto(fd, q->packet, q->len, 0, (struct sockaddr *)&q->from, sizeof(q->from)),
                     q->len);
}

/* ---- tests ---- */

static void default_files(void)
{
    ns_test_write_file("/etc/resolv.conf", ordinary_config);
    ns_test_write_file("/etc/nsswitch.conf", "hosts: files dns\n");
    ns_test_write_file("/etc/hosts", "127.0.0.1 localhost\n");
}

START_TEST(all_addresses_of_both_families)
{
    struct result result = lookup("many.test");

    ck_assert_int_eq(result.error, 0);
    ck_assert_uint_eq(result.n, 5);
    ck_assert(has(&result, "192.0.2.1") && has(&result, "192.0.2.2") && has(&result, "192.0.2.3"));
    ck_assert(has(&result, "2001:db8::1") && has(&result, "2001:db8::2"));
}
END_TEST

START_TEST(one_family_suffices)
{
    struct result four = lookup("four.test"), six = lookup("six.test.");

    ASSERT_ONLY(four, "192.0.2.10");
    ASSERT_ONLY(six, "2001:db8::20");
}
END_TEST

START_TEST(no_such_name)
{
    ck_assert_int_eq(lookup("nothing.test").error, -ENOENT);
}
END_TEST

START_TEST(not_a_name)
{
    char label[80];

    memset(label, 'a', sizeof(label));
    label[sizeof(label) - 1] = '\0';
    ck_assert_int_eq(lookup("").error, -EINVAL);
    ck_assert_int_eq(lookup("a..test").error, -EINVAL);
    ck_assert_int_eq(lookup(label).error, -EINVAL);
}
END_TEST

START_TEST(hosts_file_comes_first)
{
    struct result result;

    ns_test_write_file("/etc/hosts", "# many.test\n"
                                     "198.51.100.1 other many.test # 198.51.100.9 four.test\n"
                                     "2001:db8:1::1 MANY.test many.test\r\n"
                                     "nonsense many.test\n"
                                     "198.51.100.2 many.test.example\n"
                                     "\t198.51.100.3\tx\tmany.test");
    result = lookup("Many.Test.");
    ck_assert_uint_eq(result.n, 3);
    ck_assert(has(&result, "198.51.100.1") && has(&result, "2001:db8:1::1") && has(&result, "198.51.100.3"));
    result = lookup("four.test");
    ASSERT_ONLY(result, "192.0.2.10");
}
END_TEST

START_TEST(hosts_file_is_read_afresh)
{
    struct result result;

    ns_test_write_file("/etc/hosts", "198.51.100.1 moving\n");
    result = lookup("moving");
    ASSERT_ONLY(result, "198.51.100.1");
    ns_test_write_file("/etc/hosts", "198.51.100.2 moving\n");
    result = lookup("moving");
    ASSERT_ONLY(result, "198.51.100.2");
}
END_TEST

START_TEST(hosts_file_can_block_a_name)
{
    ns_test_write_file("/etc/hosts", "0.0.0.0 four.test\n");
    ck_assert_int_eq(lookup("four.test").error, -ENOENT);
}
END_TEST

START_TEST(hosts_file_with_long_lines)
{
    static char text[40000];
    struct result result;
    size_t len = (size_t)sprintf(text, "198.51.100.1 ");

    for (int i = 0; i < 1000; i++)
        len += (size_t)sprintf(text + len, "filler-of-some-length-%d ", i);
    memset(text + len, 'x', 6000);
    len += 6000;
    sprintf(text + len, " last.test\n198.51.100.2 last.test\n");
    ns_test_write_file("/etc/hosts", text);
    result = lookup("last.test");
    ck_assert_uint_eq(result.n, 2);
    result = lookup("filler-of-some-length-999");
    ASSERT_ONLY(result, "198.51.100.1");
}
END_TEST

START_TEST(files_may_come_last_or_not_at_all)
{
    struct result result;

    ns_test_write_file("/etc/hosts", "198.51.100.1 both.test\n198.51.100.2 mine.test\n");
    ns_test_write_file("/etc/nsswitch.conf", "hosts: dns files\n");
    result = lookup("both.test");
    ASSERT_ONLY(result, "192.0.2.40");
    result = lookup("mine.test");
    ASSERT_ONLY(result, "198.51.100.2");
    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.3\n");
    result = lookup("mine.test");
    ASSERT_ONLY(result, "198.51.100.2");
    ns_test_write_file("/etc/resolv.conf", ordinary_config);
    ns_test_write_file("/etc/nsswitch.conf", "hosts: dns\n");
    ck_assert_int_eq(lookup("mine.test").error, -ENOENT);
}
END_TEST

START_TEST(literals_need_nobody)
{
    struct result result;

    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.3\n");
    result = lookup("198.51.100.7");
    ASSERT_ONLY(result, "198.51.100.7");
    result = lookup("2001:db8::7");
    ASSERT_ONLY(result, "2001:db8::7");
    result = lookup("127.1");
    ASSERT_ONLY(result, "127.0.0.1");
    result = lookup("fe80::7%lo");
    ck_assert_uint_eq(result.n, 1);
    ck_assert_uint_eq(result.list[0].scope_id, 1);
    result = lookup("fe80::7%1");
    ck_assert_uint_eq(result.n, 1);
    ck_assert_uint_eq(result.list[0].scope_id, 1);
    ck_assert_int_eq(lookup("fe80::7%none").error, -ENOENT);
    ck_assert_int_eq(lookup("0.0.0.0").error, -ENOENT);
}
END_TEST

START_TEST(literal_is_due_at_once)
{
    struct result result = { 0 };
    struct ns_time t = now();
    struct ns_resolve *r = ns_resolve_start("192.0.2.1", on_done, &result);

    ck_assert(!ns_time_before(t, ns_resolve_deadline(r, t)));
    ck_assert_uint_eq(ns_resolve_fds(r, NULL, 0), 0);
    ns_resolve_process(r, t, NULL, 0);
    ck_assert_int_eq(result.calls, 1);
    ns_resolve_cancel(r);
}
END_TEST

START_TEST(localhost_is_here)
{
    struct result result = lookup("LocalHost");

    ASSERT_ONLY(result, "127.0.0.1");
    result = lookup("deeper.localhost.");
    ck_assert_uint_eq(result.n, 2);
    ck_assert(has(&result, "127.0.0.1") && has(&result, "::1"));
    unlink("/etc/hosts");
    result = lookup("localhost");
    ck_assert_uint_eq(result.n, 2);
    ck_assert(has(&result, "127.0.0.1") && has(&result, "::1"));
    ck_assert_int_eq(lookup("notlocalhost").error, -ENOENT);
}
END_TEST

START_TEST(search_list_is_followed)
{
    struct result result;

    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.1\nsearch none.test search.test\n");
    result = lookup("short");
    ASSERT_ONLY(result, "192.0.2.30");
    ck_assert_int_eq(lookup("short.").error, -ENOENT);
    /* An answer for one family ends the search for both: four.test.search.test is somebody else. */
    result = lookup("four.test");
    ASSERT_ONLY(result, "192.0.2.10");
    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.1\nsearch search.test\noptions ndots:2\n");
    result = lookup("four.test");
    ASSERT_ONLY(result, "2001:db8::10");
    result = lookup("six.test");
    ASSERT_ONLY(result, "2001:db8::20");
}
END_TEST

START_TEST(without_resolv_conf_this_host_is_asked)
{
    struct result result;

    unlink("/etc/resolv.conf");
    unlink("/etc/nsswitch.conf");
    unlink("/etc/hosts");
    result = lookup("four.test");
    ASSERT_ONLY(result, "192.0.2.10");
}
END_TEST

START_TEST(long_answer_comes_by_tcp)
{
    struct result result = lookup("sixty.test");

    ck_assert_int_eq(result.error, 0);
    ck_assert_uint_eq(result.n, NS_RESOLVE_ADDRESSES_MAX / 2);
}
END_TEST

START_TEST(next_server_is_asked)
{
    struct result result;
    int fd;

    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.3\nnameserver 127.0.0.1\n");
    result = lookup("four.test");
    ASSERT_ONLY(result, "192.0.2.10");
    fd = fake_open();
    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.2\nnameserver 127.0.0.1\n");
    result = lookup("four.test");
    ASSERT_ONLY(result, "192.0.2.10");
    ns_sys_close(fd);
}
END_TEST

START_TEST(no_server)
{
    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.3\n");
    ck_assert_int_eq(lookup("four.test").error, -EAGAIN);
    ns_test_write_file("/etc/resolv.conf", "nameserver 192.0.2.250\n"); /* no route there */
    ck_assert_int_eq(lookup("four.test").error, -EAGAIN);
}
END_TEST

START_TEST(silent_server_is_given_up)
{
    int fd = fake_open();

    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.2\n");
    ck_assert_int_eq(lookup("four.test").error, -ETIMEDOUT);
    ns_sys_close(fd);
}
END_TEST

START_TEST(lost_question_is_asked_again)
{
    struct result result = { 0 };
    struct question first, again;
    struct ns_resolve *r;
    int fd = fake_open();

    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.2\n");
    r = ns_resolve_start("lost.test", on_done, &result);
    fake_receive(fd, r, &first);
    fake_receive(fd, r, &first);
    for (int i = 0; i < 2; i++) {
        fake_receive(fd, r, &again);
        fake_answer(fd, &again);
    }
    finish(r, &result);
    ASSERT_ONLY(result, "192.0.2.77");
    ns_sys_close(fd);
}
END_TEST

START_TEST(other_family_is_waited_for_only_so_long)
{
    struct result result = { 0 };
    struct question q;
    struct ns_resolve *r;
    int fd = fake_open();

    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.2\n");
    r = ns_resolve_start("half.test", on_done, &result);
    do {
        fake_receive(fd, r, &q);
    } while (q.aaaa);
    fake_answer(fd, &q);
    turn(r);
    /* AAAA is never answered. */
    ns_resolve_process(r, ns_time_add(now(), ns_time_ms(NS_RESOLVE_OTHER_FAMILY_MS)), NULL, 0);
    ck_assert_int_eq(result.calls, 1);
    ASSERT_ONLY(result, "192.0.2.77");
    ns_resolve_cancel(r);
    ns_sys_close(fd);
}
END_TEST

START_TEST(limit_is_by_the_time_given)
{
    struct result result = { 0 };
    struct ns_resolve *r;
    int fd = fake_open();

    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.2\n");
    r = ns_resolve_start("late.test", on_done, &result);
    ns_resolve_process(r, now(), NULL, 0);
    ck_assert_int_eq(result.calls, 0);
    ns_resolve_process(r, ns_time_add(now(), ns_time_ms(NS_RESOLVE_LIMIT_MS)), NULL, 0);
    ck_assert_int_eq(result.calls, 1);
    ck_assert_int_eq(result.error, -ETIMEDOUT);
    ns_resolve_cancel(r);
    ns_sys_close(fd);
}
END_TEST

START_TEST(cancelling_is_silent)
{
    struct result result = { 0 };
    struct question q;
    struct ns_resolve *r;
    int fd = fake_open(), before = ns_test_count_fds();

    ns_test_write_file("/etc/resolv.conf", "nameserver 127.0.0.2\n");
    ns_resolve_cancel(NULL);
    ns_resolve_cancel(ns_resolve_start("never.test", on_done, &result));
    ns_resolve_cancel(ns_resolve_start("192.0.2.1", on_done, &result));
    r = ns_resolve_start("never.test", on_done, &result);
    fake_receive(fd, r, &q);
    fake_answer(fd, &q);
    turn(r);
    ns_resolve_cancel(r);
    ck_assert_int_eq(result.calls, 0);
    ck_assert_int_eq(ns_test_count_fds(), before);
    ns_sys_close(fd);
}
END_TEST

START_TEST(done_may_cancel)
{
    struct result result = { 0 };
    int before = ns_test_count_fds();

    result.cancel = ns_resolve_start("many.test", on_done, &result);
    while (!result.calls)
        turn(result.cancel);
    ck_assert_uint_eq(result.n, 5);
    ck_assert_int_eq(ns_test_count_fds(), before);
}
END_TEST

START_TEST(lookups_know_nothing_of_each_other)
{
    struct result first = { 0 }, second = { 0 };
    struct ns_resolve *a = ns_resolve_start("four.test", on_done, &first);
    struct ns_resolve *b = ns_resolve_start("six.test", on_done, &second);

    finish(b, &second);
    finish(a, &first);
    ASSERT_ONLY(first, "192.0.2.10");
    ASSERT_ONLY(second, "2001:db8::20");
}
END_TEST

START_TEST(works_without_standard_descriptors)
{
    struct result result = { 0 };
    struct ns_resolve *r;
    int kept[3];

    for (int i = 0; i < 3; i++) {
        kept[i] = ns_sys_fcntl(i, F_DUPFD_CLOEXEC, 100);
        ns_sys_close(i);
    }
    r = ns_resolve_start("four.test", on_done, &result);
    while (!result.calls) {
        for (int i = 0; i < 3; i++)
            ck_assert_int_eq(ns_sys_fcntl(i, F_GETFD, 0), -EBADF);
        turn(r);
    }
    ns_resolve_cancel(r);
    for (int i = 0; i < 3; i++)
        ns_sys_dup3(kept[i], i, 0);
    ASSERT_ONLY(result, "192.0.2.10");
}
END_TEST

/* A thread of the application writes its streams out, and waits for us in that. */

static int standing, going[2]; /* it is in the write; what it waits for */

static ssize_t stand(void *cookie, const char *bytes, size_t n)
{
    char byte;

    __atomic_store_n(&standing, 1, __ATOMIC_SEQ_CST);
    return ns_sys_read(going[0], &byte, 1) == 1 ? (ssize_t)n : -1;
}

static void *flush_all(void *stream)
{
    fputs("waits", stream);
    fflush(NULL);
    return NULL;
}

START_TEST(works_while_streams_are_locked)
{
    FILE *usual = stdout, *slow = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = stand });
    struct result result;
    pthread_t thread;

    ck_assert_int_eq(pipe(going), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, flush_all, slow), 0);
    while (!__atomic_load_n(&standing, __ATOMIC_SEQ_CST))
        sched_yield();
    stdout = slow;
    result = lookup("four.test");
    stdout = usual;
    ck_assert_int_eq(write(going[1], "", 1), 1);
    pthread_join(thread, NULL);
    fclose(slow);
    close(going[0]);
    close(going[1]);
    ASSERT_ONLY(result, "192.0.2.10");
}
END_TEST

/* ---- the server ---- */

/* Sixty addresses of one name do not fit the 512 bytes of a plain DNS datagram (RFC 1035, 4.2.1). */
static void write_zone(void)
{
    char text[4096];
    size_t len = (size_t)snprintf(text, sizeof(text), "%s", zone);

    for (int i = 1; i <= 60; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "203.0.113.%d sixty.test\n", i);
    ns_test_write_file("/etc/zone", text);
}

static Suite *resolve_suite(void)
{
    Suite *s = suite_create("resolve");
    TCase *names = tcase_create("names");
    TCase *files = tcase_create("files");
    TCase *servers = tcase_create("servers");

    tcase_add_checked_fixture(names, default_files, NULL);
    tcase_add_test(names, all_addresses_of_both_families);
    tcase_add_test(names, one_family_suffices);
    tcase_add_test(names, no_such_name);
    tcase_add_test(names, not_a_name);
    tcase_add_test(names, literals_need_nobody);
    tcase_add_test(names, literal_is_due_at_once);
    tcase_add_test(names, localhost_is_here);
    tcase_add_test(names, cancelling_is_silent);
    tcase_add_test(names, done_may_cancel);
    tcase_add_test(names, lookups_know_nothing_of_each_other);
    tcase_add_test(names, works_without_standard_descriptors);
    tcase_add_test(names, works_while_streams_are_locked);
    suite_add_tcase(s, names);

    tcase_add_checked_fixture(files, default_files, NULL);
    tcase_add_test(files, hosts_file_comes_first);
    tcase_add_test(files, hosts_file_is_read_afresh);
    tcase_add_test(files, hosts_file_can_block_a_name);
    tcase_add_test(files, hosts_file_with_long_lines);
    tcase_add_test(files, files_may_come_last_or_not_at_all);
    tcase_add_test(files, search_list_is_followed);
    tcase_add_test(files, without_resolv_conf_this_host_is_asked);
    suite_add_tcase(s, files);

    tcase_add_checked_fixture(servers, default_files, NULL);
    tcase_add_test(servers, long_answer_comes_by_tcp);
    tcase_add_test(servers, next_server_is_asked);
    tcase_add_test(servers, no_server);
    tcase_add_test(servers, silent_server_is_given_up);
    tcase_add_test(servers, lost_question_is_asked_again);
    tcase_add_test(servers, other_family_is_waited_for_only_so_long);
    tcase_add_test(servers, limit_is_by_the_time_given);
    suite_add_tcase(s, servers);

    tcase_set_timeout(names, 60);
    tcase_set_timeout(files, 60);
    tcase_set_timeout(servers, 60);
    return s;
}

int main(void)
{
    SRunner *runner;
    pid_t server;
    int failed;

    if (!ns_test_enter_namespace())
        return NS_TEST_SKIPPED;
    write_zone();
    server = ns_test_start_dnsmasq("/etc/zone");
    if (server < 0) {
        fprintf(stderr, "skipped: dnsmasq does not start\n");
        return NS_TEST_SKIPPED;
    }
    runner = srunner_create(resolve_suite());
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ns_test_stop_dnsmasq(server);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
