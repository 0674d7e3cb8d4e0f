#include "engine/last.h"

#include "engine/large.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LOOK_MS 50

static bool main_left; /* atomic */

/* The state of the process's main thread, as proc_pid_stat(5) has it; 0 where that cannot be seen. */
static char main_state(void)
{
    char path[40], text[400];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)ns_sys_getpid());
    int fd = ns_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    ssize_t n = ns_sys_read(fd, text, sizeof text - 1);
    ns_sys_close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] == ' ' ? name_end[2] : 0;
}

/* The main thread's remains, and the helper: a task directory has a link for each thread, and two of its own. */
static bool alone(void)
{
    struct stat tasks;
    return main_state() == 'Z' && stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink == 2 + 2;
}

/* In a thread of its own: what runs at exit waits for the helper. */
static void *end(void *unused)
{
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    exit(0);
    return unused;
}

static void fired(struct ns_timer *timer, struct ns_time now)
{
    pthread_t thread;
    if (!alone() || pthread_create(&thread, NULL, end, NULL) != 0)
        ns_timer_set(timer, ns_time_add(now, ns_time_ms(LOOK_MS)));
}

static struct ns_timer timer = { .fire = fired };
static bool looking;

void ns_last_main_leaves(void)
{
    __atomic_store_n(&main_left, true, __ATOMIC_SEQ_CST);
    ns_helper_look();
}

void ns_last_look(struct ns_time now)
{
    if (looking || !__atomic_load_n(&main_left, __ATOMIC_SEQ_CST))
        return;
    looking = true;
    ns_timer_set(&timer, now);
}

NS_EACH_FORK void ns_last_fork_child(void)
{
    main_left = looking = false;
    timer.set = false;
}
