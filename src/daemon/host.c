#include "daemon/host.h"

#include "core/message.h"
#include "daemon/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLE "NAMESOCKET_BROKER"

/* One that goes on in the background after the command has time to connect. */
#define LINGER_MS 5000

struct host {
    uv_loop_t loop;
    uv_poll_t command;
    uv_timer_t linger;
    struct ns_broker *broker;
    bool ended; /* the command */
};

static void over(uv_timer_t *timer)
{
    struct host *h = timer->data;

    if (ns_broker_idle(h->broker))
        _exit(0); /* nothing is kept that would have to be put away */
}

static void maybe_linger(void *arg)
{
    struct host *h = arg;

    if (h->ended && ns_broker_idle(h->broker))
        uv_timer_start(&h->linger, over, LINGER_MS, 0);
}

static void on_ended(uv_poll_t *poll, int status, int events)
{
    struct host *h = poll->data;

    uv_poll_stop(poll);
    h->ended = true;
    maybe_linger(h);
}

/* ---- in the host ---- */

/* Nothing stays open but `listening` and `command`, which become 3 and 4. */
static void let_go(int *listening, int *command)
{
    int null = open("/dev/null", O_RDWR);
    int keep[2] = { fcntl(*listening, F_DUPFD_CLOEXEC, 16), fcntl(*command, F_DUPFD_CLOEXEC, 16) };

    for (int i = 0; i < 3; i++)
        dup2(null, i);
    *listening = dup3(keep[0], 3, O_CLOEXEC);
    *command = dup3(keep[1], 4, O_CLOEXEC);
    close_range(5, ~0u, 0);
}

__attribute__((noreturn)) static void run(int listening, int command)
{
    static struct host h;
    sigset_t none;

    setsid();
    let_go(&listening, &command);
    if (chdir("/") < 0)
        _exit(1);
    prctl(PR_SET_NAME, "nsrun-broker");
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (uv_loop_init(&h.loop) < 0 || uv_poll_init(&h.loop, &h.command, command) < 0)
        _exit(1);
    uv_timer_init(&h.loop, &h.linger);
    h.command.data = h.linger.data = &h;
    uv_poll_start(&h.command, UV_READABLE, on_ended);
    h.broker = ns_broker_new(&h.loop, listening, getuid() == 0 ? (uid_t)-1 : getuid(), maybe_linger, &h);
    if (!h.broker)
        _exit(1);
    uv_run(&h.loop, UV_RUN_DEFAULT);
    _exit(0);
}

/* ---- in nsrun ---- */

static bool answers(const char *address)
{
    struct sockaddr_un a;
    socklen_t bytes = ns_message_address(&a, address);
    int fd = bytes ? socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) : -1;
    bool yes = fd >= 0 && connect(fd, (struct sockaddr *)&a, bytes) == 0;

    if (fd >= 0)
        close(fd);
    return yes;
}

/* Who is in another mount namespace or below another root reaches it all the same. */
static int listen_somewhere(char *name, size_t bytes)
{
    uint64_t random[2];

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return -EIO;
    snprintf(name, bytes, "@namesocket/%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    return ns_broker_listen(name);
}

static int fork_twice(int listening, int command)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        if (fork() == 0)
            run(listening, command);
        _exit(0); /* or it could not fork, and there is no broker */
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return child < 0 ? -errno : 0;
}

int ns_host_start(void)
{
    const char *given = getenv(VARIABLE);
    char name[64];
    int listening, command, r;

    if (given && (strcmp(given, "none") == 0 || answers(given)))
        return 0;
    listening = listen_somewhere(name, sizeof(name));
    if (listening < 0)
        return listening;
    command = (int)syscall(SYS_pidfd_open, getpid(), 0);
    r = command < 0 ? -errno : fork_twice(listening, command);
    close(listening);
    if (command >= 0)
        close(command);
    if (r == 0 && setenv(VARIABLE, name, 1) < 0)
        r = -ENOMEM;
    return r;
}
