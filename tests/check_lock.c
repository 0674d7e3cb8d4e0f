/* Locks that know their owner, and signal handlers that are put off while one is held. */
#include "engine/lock.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ns_lock lock, other;
static volatile sig_atomic_t runs, value, blocked, disorder;

static void *take(void *result)
{
    ns_lock(&lock);
    *(bool *)result = true;
    ns_unlock(&lock);
    return NULL;
}

START_TEST(the_inner_unlock_leaves_it_to_the_holder)
{
    ck_assert(ns_lock(&lock));
    uint32_t held = lock.word;
    ck_assert(!ns_lock(&lock));
    ck_assert(!ns_lock(&lock));
    ns_unlock(&lock);
    ck_assert_uint_eq(lock.word, held);
    ns_unlock(&lock);
    ck_assert_uint_eq(lock.word, held);

    pthread_t thread;
    bool taken = false;
    ck_assert_int_eq(pthread_create(&thread, NULL, take, &taken), 0);
    while (!(__atomic_load_n(&lock.word, __ATOMIC_SEQ_CST) & NS_LOCK_WAITERS))
        ;
    ck_assert(!__atomic_load_n(&taken, __ATOMIC_SEQ_CST));
    ns_unlock(&lock);
    pthread_join(thread, NULL);
    ck_assert(taken);
    ck_assert_uint_eq(lock.word & ~NS_LOCK_WAITERS, 0);
}
END_TEST

/* As the shim's (preload/signal.c). */
static void arrived(int sig, siginfo_t *info, void *context)
{
    sigset_t now;
    if (ns_signal_put_off(info, context))
        return;
    ns_signal_handling(sig);
    sigprocmask(SIG_BLOCK, NULL, &now);
    blocked = sigismember(&now, SIGUSR2);
    disorder += info->si_value.sival_int < value;
    value = info->si_value.sival_int;
    runs++;
}

static void install(int sig, int flags)
{
    struct sigaction a = { .sa_sigaction = arrived, .sa_flags = SA_SIGINFO | flags };
    sigaddset(&a.sa_mask, SIGUSR2);
    ck_assert_int_eq(sigaction(sig, &a, NULL), 0);
    runs = value = blocked = 0;
}

static void queue(int sig, int number)
{
    ck_assert_int_eq(sigqueue(getpid(), sig, (union sigval){ .sival_int = number }), 0);
}

START_TEST(a_handler_waits_for_the_last_lock)
{
    sigset_t before, after;
    install(SIGUSR1, 0);
    sigprocmask(SIG_BLOCK, NULL, &before);
    ns_lock(&lock);
    ns_lock(&other);
    queue(SIGUSR1, 11);
    ck_assert_int_eq(runs, 0);
    ns_unlock(&other);
    ck_assert_int_eq(runs, 0);
    ns_unlock(&lock);
    ck_assert_int_eq(runs, 1);
    ck_assert_int_eq(value, 11);
    ck_assert_int_eq(blocked, 1);
    sigprocmask(SIG_BLOCK, NULL, &after);
    ck_assert_int_eq(sigismember(&after, SIGUSR1), sigismember(&before, SIGUSR1));
    ck_assert_int_eq(sigismember(&after, SIGTERM), 0);
    queue(SIGUSR1, 12);
    ck_assert_int_eq(value, 12);
}
END_TEST

START_TEST(none_is_lost)
{
    install(SIGRTMIN, 0);
    ns_lock(&lock);
    for (int i = 1; i <= 20; i++)
        queue(SIGRTMIN, i);
    ck_assert_int_eq(runs, 0);
    ns_unlock(&lock);
    ck_assert_int_eq(runs, 20);
}
END_TEST

/* signal(7): several of one real-time signal are delivered as they were sent. */
START_TEST(those_of_one_number_stay_in_order)
{
    install(SIGRTMIN, 0);
    disorder = 0;
    ns_lock(&lock);
    for (int i = 1; i <= 10; i++)
        ck_assert_int_eq(pthread_sigqueue(pthread_self(), SIGRTMIN, (union sigval){ .sival_int = i }), 0);
    ns_unlock(&lock);
    ck_assert_int_eq(runs, 10);
    ck_assert_int_eq(disorder, 0);
}
END_TEST

START_TEST(a_call_knows_what_came)
{
    struct ns_handled since = ns_handled;
    install(SIGUSR1, SA_RESTART);
    ck_assert(!ns_interrupted(&since, true, true));
    queue(SIGUSR1, 0);
    ck_assert(!ns_interrupted(&since, false, false));
    ck_assert(ns_interrupted(&since, true, false));
    ck_assert(ns_interrupted(&since, false, true));
    install(SIGUSR1, 0);
    queue(SIGUSR1, 0);
    ck_assert(ns_interrupted(&since, false, false));
}
END_TEST

START_TEST(a_child_does_not_get_its_parents_signal)
{
    install(SIGUSR1, 0);
    ns_lock(&lock);
    queue(SIGUSR1, 1);
    pid_t pid = fork();
    if (pid == 0) {
        sigset_t now;
        ns_lock_reset(&lock);
        ns_signals_fork_child();
        ns_lock(&other);
        ns_unlock(&other);
        sigprocmask(SIG_BLOCK, NULL, &now);
        _exit(runs == 0 && !sigismember(&now, SIGUSR1) ? 7 : 8);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ns_unlock(&lock);
    ck_assert_int_eq(WEXITSTATUS(status), 7);
    ck_assert_int_eq(runs, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lock");
    TCase *tests = tcase_create("lock");
    tcase_add_test(tests, the_inner_unlock_leaves_it_to_the_holder);
    tcase_add_test(tests, a_handler_waits_for_the_last_lock);
    tcase_add_test(tests, none_is_lost);
    tcase_add_test(tests, those_of_one_number_stay_in_order);
    tcase_add_test(tests, a_call_knows_what_came);
    tcase_add_test(tests, a_child_does_not_get_its_parents_signal);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
