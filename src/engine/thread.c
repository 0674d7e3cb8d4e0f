#include "engine/thread.h"

#include "engine/adopt.h"
#include "engine/ask.h"
#include "engine/remains.h"
#include "engine/broker.h"
#include "engine/detect.h"
#include "engine/dormant.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/first.h"
#include "engine/internal.h"
#include "engine/joint.h"
#include "engine/large.h"
#include "engine/last.h"
#include "engine/ledger.h"
#include "engine/linger.h"
#include "engine/listener.h"
#include "engine/resume.h"
#include "engine/serve.h"
#include "engine/sock.h"
#include "engine/sys.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define STACK_BYTES (256 * 1024)

static struct ns_lock start_lock;
static bool running;
static int epoll_fd = -1, kick_fd = -1;
static struct ns_sock *todo_list; /* a stack; atomic */
static struct ns_timer *timers;   /* soonest first */
static uint32_t lazy_posts;
static bool listeners_changed;
uint32_t ns_helper_settled, ns_helper_ticking, ns_helper_late;
static int64_t due_ns;  /* while it is late; atomic */
static uint32_t dozing; /* its thread is there and sleeps until then; futex, written under start_lock */

/* Accepted connections on their way to the helper: all that come while it is busy.
 * It doubles when it is full, in mapped memory: accept(2) may be called by a
 * signal handler. */
static struct ns_lock given_lock;
static int given_first[256] NS_LARGE;
static struct {
    int *fds;
    size_t room, count;
} given = { given_first, sizeof given_first / sizeof *given_first, 0 }; /* given_lock */

/* ---- the loop's sources and timers ---- */

int ns_loop_add(struct ns_source *source, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = source };
    return ns_sys_epoll_ctl(epoll_fd, EPOLL_CTL_ADD, source->fd, &e);
}

int ns_loop_change(struct ns_source *source, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = source };
    return ns_sys_epoll_ctl(epoll_fd, EPOLL_CTL_MOD, source->fd, &e);
}

void ns_loop_remove(struct ns_source *source)
{
    ns_sys_epoll_ctl(epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}

void ns_timer_clear(struct ns_timer *timer)
{
    if (!timer->set)
        return;
    timer->set = false;
    for (struct ns_timer **p = &timers; *p; p = &(*p)->next)
        if (*p == timer) {
            *p = timer->next;
            return;
        }
}

void ns_timer_set(struct ns_timer *timer, struct ns_time at)
{
    ns_timer_clear(timer);
    timer->at = at;
    timer->set = true;
    struct ns_timer **p = &timers;
    while (*p && !ns_time_before(at, (*p)->at))
        p = &(*p)->next;
    timer->next = *p;
    *p = timer;
}

static void fire_timers(struct ns_time now)
{
    while (timers && !ns_time_before(now, timers->at)) {
        struct ns_timer *timer = timers;
        timers = timer->next;
        timer->set = false;
        timer->fire(timer, now);
    }
}

static int wait_ms(struct ns_time now)
{
    if (!timers)
        return -1;
    int64_t ns = timers->at.ns - now.ns;
    return ns <= 0 ? 0 : ns > 3600000000000 ? 3600000 : (int)((ns + 999999) / 1000000);
}

/* ---- work left by other threads ---- */

static void kick(void)
{
    uint64_t one = 1;
    int fd = __atomic_load_n(&kick_fd, __ATOMIC_ACQUIRE);
    if (fd >= 0)
        ns_sys_write(fd, &one, sizeof one);
}

/* Returns whether the list was empty. */
static bool push(struct ns_sock *s, uint32_t todo)
{
    __atomic_store_n(&s->helped, true, __ATOMIC_RELEASE);
    if (__atomic_fetch_or(&s->todo, todo, __ATOMIC_ACQ_REL) != 0)
        return false;
    struct ns_sock *head = __atomic_load_n(&todo_list, __ATOMIC_RELAXED);
    do
        s->todo_next = head;
    while (!__atomic_compare_exchange_n(&todo_list, &head, s, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    return true;
}

void ns_helper_post(struct ns_sock *s, uint32_t todo)
{
    push(s, todo);
    if (ns_helper_is_late())
        ns_helper_start();
    kick();
}

void ns_helper_post_lazily(struct ns_sock *s, uint32_t todo)
{
    push(s, todo);
    if (__atomic_add_fetch(&lazy_posts, 1, __ATOMIC_RELAXED) % 128 == 0)
        kick();
}

struct ns_time ns_helper_due(void)
{
    return (struct ns_time){ __atomic_load_n(&due_ns, __ATOMIC_RELAXED) };
}

static void doze_off(void);

/* Nobody else would send again what is not acknowledged, and there may be no other call. */
static void rouse_late(const struct ns_sock *s)
{
    if (!ns_time_before(ns_now(), ns_helper_due()))
        ns_helper_start();
    else if (!__atomic_load_n(&dozing, __ATOMIC_RELAXED) && ns_ledger_unacknowledged(s->o.fd) > 0)
        doze_off();
}

void ns_helper_rouse(const struct ns_sock *s)
{
    if (ns_helper_is_late()) {
        rouse_late(s);
        return;
    }
    if (__atomic_exchange_n(&ns_helper_settled, 0, __ATOMIC_ACQ_REL))
        kick();
}

void ns_helper_look(void)
{
    __atomic_store_n(&listeners_changed, true, __ATOMIC_RELEASE);
    kick();
}

static bool given_grow(void)
{
    size_t bytes = given.room * sizeof *given.fds;
    void *p = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return false;
    memcpy(p, given.fds, bytes);
    if (given.fds != given_first)
        munmap(given.fds, bytes);
    given.fds = p;
    given.room *= 2;
    return true;
}

void ns_helper_give(int fd)
{
    sigset_t saved;
    fd = ns_internal(fd);
    if (fd < 0)
        return;
    ns_lock_quiet(&given_lock, &saved);
    bool room = given.count < given.room || given_grow();
    if (room)
        given.fds[given.count++] = fd;
    ns_unlock_quiet(&given_lock, &saved);
    if (room)
        kick();
    else
        ns_internal_close(fd);
}

/* Takes the oldest; others have a turn before the rest. */
static void do_given(struct ns_time now)
{
    int batch[64];
    ns_lock(&given_lock);
    size_t n = given.count < sizeof batch / sizeof *batch ? given.count : sizeof batch / sizeof *batch;
    memcpy(batch, given.fds, n * sizeof *batch);
    given.count -= n;
    memmove(given.fds, given.fds + n, given.count * sizeof *given.fds);
    bool left = given.count > 0;
    ns_unlock(&given_lock);
    for (size_t i = 0; i < n; i++)
        ns_serve_take(batch[i], now);
    if (left)
        kick();
}

void ns_helper_attend(struct ns_sock *s, struct ns_time now)
{
    ns_dormant_address(s);
    ns_detect_born(s, now);
    ns_broker_hold(s);
}

static void do_todo(struct ns_sock *s, struct ns_time now)
{
    struct ns_sock *next;
    for (; s; s = next) {
        next = s->todo_next;
        uint32_t todo = __atomic_exchange_n(&s->todo, 0, __ATOMIC_ACQ_REL);
        if (s->buried) {
            ns_sock_exhume(s);
            continue;
        }
        if (todo & NS_TODO_BORN)
            ns_helper_attend(s, now);
        if (todo & NS_TODO_ADOPTED)
            ns_adopt_go_on(s, now);
        if (todo & NS_TODO_LEFT)
            ns_joint_left(s, now);
        if (todo & NS_TODO_STALLED)
            ns_first_stalled(s);
        if (todo & NS_TODO_ASK)
            ns_ask_for(s, now);
        if (todo & NS_TODO_SUSPENDED)
            ns_resume_suspended(s, now);
        if (todo & NS_TODO_CLOSED)
            ns_linger_closed(s, now);
    }
}

static void do_posted(struct ns_time now)
{
    do_todo(__atomic_exchange_n(&todo_list, NULL, __ATOMIC_ACQUIRE), now);
    do_given(now);
    ns_remains_look(now);
    ns_last_look(now);
    if (__atomic_exchange_n(&listeners_changed, false, __ATOMIC_ACQ_REL))
        ns_listeners_watch(now);
}

static void kicked(struct ns_source *source, uint32_t events, struct ns_time now)
{
    uint64_t count;
    ns_sys_read(source->fd, &count, sizeof count);
    do_posted(now);
    ns_detect_roused(now);
}

static struct ns_source kick_source = { .fd = -1, .ready = kicked };

static bool stopping;
static pid_t thread_id;

static void *loop(void *unused)
{
    __atomic_store_n(&thread_id, ns_sys_gettid(), __ATOMIC_RELEASE);
    __atomic_store_n(&running, true, __ATOMIC_RELEASE); /* whatever it does first may ask for that */
    ns_last_look(ns_now());
    while (!__atomic_load_n(&stopping, __ATOMIC_ACQUIRE)) {
        struct epoll_event e;
        /* One event at a time: a handler may remove any other source. */
        int n = ns_sys_epoll_pwait(epoll_fd, &e, 1, wait_ms(ns_now()), NULL);
        struct ns_time now = ns_now();
        if (n == 1) {
            struct ns_source *source = e.data.ptr;
            source->ready(source, e.events, now);
        }
        fire_timers(now);
        do_posted(now);
    }
    return unused;
}

/* ---- starting ---- */

bool ns_helper_running(void)
{
    return __atomic_load_n(&running, __ATOMIC_ACQUIRE);
}

static void close_descriptors(void)
{
    /* The number may be the application's next. */
    __atomic_store_n(&kick_fd, -1, __ATOMIC_SEQ_CST);
    ns_internal_close(kick_source.fd);
    ns_internal_close(epoll_fd);
    kick_source.fd = epoll_fd = -1;
}

static int open_descriptors(void)
{
    epoll_fd = ns_internal(ns_sys_epoll_create1(EPOLL_CLOEXEC));
    if (epoll_fd < 0)
        return epoll_fd;
    kick_source.fd = ns_internal(ns_sys_eventfd2(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (kick_source.fd < 0) {
        int err = kick_source.fd;
        close_descriptors();
        return err;
    }
    __atomic_store_n(&kick_fd, kick_source.fd, __ATOMIC_RELEASE);
    return ns_loop_add(&kick_source, EPOLLIN);
}

static int make_thread(void *(*run)(void *))
{
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int err = pthread_create(&thread, &attr, run, NULL);
    pthread_attr_destroy(&attr);
    return err;
}

static void end_doze(void)
{
    __atomic_store_n(&dozing, 0, __ATOMIC_SEQ_CST);
    ns_sys_futex_wake(&dozing, 1);
}

static int start_locked(void)
{
    int err = open_descriptors();
    if (err < 0)
        return err;
    ns_detect_start();
    ns_broker_start();
    if (dozing)
        end_doze();
    else
        err = make_thread(loop);
    if (err) {
        /* As if nothing had been begun: the next connection tries again. */
        ns_detect_stop();
        ns_broker_stop();
        timers = NULL;
        close_descriptors();
        return -err;
    }
    __atomic_store_n(&running, true, __ATOMIC_RELEASE);
    return 0;
}

int ns_helper_start(void)
{
    sigset_t all, saved;
    if (ns_helper_running())
        return 0;
    /* All signals are blocked here, and so in the thread. */
    sigfillset(&all);
    ns_sys_sigmask(SIG_SETMASK, &all, &saved);
    ns_lock(&start_lock);
    int err = ns_helper_running() ? 0 : start_locked();
    bool late = __atomic_exchange_n(&ns_helper_late, 0, __ATOMIC_SEQ_CST);
    ns_unlock(&start_lock);
    ns_sys_sigmask(SIG_SETMASK, &saved, NULL);
    if (late)
        kick(); /* what was left for it meanwhile */
    if (err)
        ns_error("no helper thread (%s): connections stay plain TCP", strerror(-err));
    return err;
}

/* It could not be started, nor was it meanwhile: who calls for it next makes another thread. */
static bool end_in_vain(void)
{
    ns_lock(&start_lock);
    bool vain = dozing;
    __atomic_store_n(&dozing, 0, __ATOMIC_SEQ_CST);
    ns_unlock(&start_lock);
    return vain;
}

static void *doze(void *unused)
{
    __atomic_store_n(&thread_id, ns_sys_gettid(), __ATOMIC_RELEASE);
    while (__atomic_load_n(&dozing, __ATOMIC_ACQUIRE)) {
        int64_t ns = ns_helper_due().ns - ns_now().ns;
        if (ns > 0)
            ns_sys_futex_wait(&dozing, 1, &(struct timespec){ .tv_nsec = ns });
        else if (ns_helper_start() < 0 && end_in_vain())
            return unused;
    }
    return loop(unused);
}

/* Only its thread: what else it needs is made when it is due. */
static void doze_off(void)
{
    sigset_t all, saved;
    sigfillset(&all);
    ns_sys_sigmask(SIG_SETMASK, &all, &saved);
    ns_lock(&start_lock);
    if (ns_helper_is_late() && !ns_helper_running() && !dozing) {
        __atomic_store_n(&dozing, 1, __ATOMIC_SEQ_CST);
        if (make_thread(doze) != 0)
            __atomic_store_n(&dozing, 0, __ATOMIC_SEQ_CST);
    }
    ns_unlock(&start_lock);
    ns_sys_sigmask(SIG_SETMASK, &saved, NULL);
}

void ns_helper_start_late(void)
{
    if (ns_helper_running() || ns_helper_is_late())
        return;
    __atomic_store_n(&due_ns, ns_time_add(ns_now(), ns_time_ms(NS_LATE_MS)).ns, __ATOMIC_SEQ_CST);
    __atomic_store_n(&ns_helper_late, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&ns_helper_settled, 1, __ATOMIC_SEQ_CST); /* ns_sock_touch tells ns_helper_rouse */
}

bool ns_helper_here(void)
{
    return ns_helper_running() || (ns_helper_is_late() && ns_helper_start() == 0);
}

void ns_helper_stop(void)
{
    pid_t id = 0;
    __atomic_store_n(&ns_helper_late, 0, __ATOMIC_SEQ_CST);
    if (!ns_helper_running() && !__atomic_load_n(&dozing, __ATOMIC_ACQUIRE))
        return;
    __atomic_store_n(&stopping, true, __ATOMIC_RELEASE);
    end_doze();
    kick();
    /* Until the kernel knows it no more: what libc does at a thread's end are system calls. */
    do
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 200000 }, NULL);
    while (!(id = __atomic_load_n(&thread_id, __ATOMIC_ACQUIRE)) ||
           ns_syscall6(SYS_tgkill, ns_sys_getpid(), id, 0, 0, 0, 0) == 0);
    __atomic_store_n(&running, false, __ATOMIC_RELEASE);
}

NS_EACH_FORK void ns_helper_fork_child(void)
{
    if (!running && !ns_helper_late && !dozing)
        return;
    running = false;
    dozing = 0;
    thread_id = 0;
    kick_fd = epoll_fd = -1; /* closed with all internal ones */
    todo_list = NULL;
    timers = NULL;
    ns_broker_fork_child();
    ns_serve_fork_child();
    ns_remains_fork_child();
    given.count = 0;
    ns_lock_reset(&start_lock);
    ns_lock_reset(&given_lock);
    ns_helper_settled = ns_helper_ticking = ns_helper_late = 0;
}
