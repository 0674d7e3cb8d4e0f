#include "daemon/supervise.h"

#include "daemon/notify.h"
#include "daemon/redirect.h"
#include "daemon/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the second start is told: "notify pid". */
#define TOLD "NSRUN_SUPERVISES"

/* ---- the first start ---- */

static int send_descriptor(int channel, int value)
{
    char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec data = { &value, sizeof(value) };
    struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1 };

    if (value >= 0) {
        m.msg_control = control;
        m.msg_controllen = sizeof(control);
        *CMSG_FIRSTHDR(&m) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &value, sizeof(value));
    }
    return sendmsg(channel, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The descriptor, or the negative errno that the sender had in its place. */
static int receive_descriptor(int channel)
{
    char control[CMSG_SPACE(sizeof(int))];
    int value = -EPIPE;
    struct iovec data = { &value, sizeof(value) };
    struct msghdr m = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
    };
    ssize_t n;

    do
        n = recvmsg(channel, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (n != (ssize_t)sizeof(value))
        return -EPIPE;
    if (CMSG_FIRSTHDR(&m))
        memcpy(&value, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(value));
    return value;
}

/* The child: has its calls held from here on, and becomes the command. */
__attribute__((noreturn)) static void become(char **command, int channel)
{
    int notify = ns_notify_install(), error;

    if (send_descriptor(channel, notify) < 0 || notify < 0)
        _exit(126);
    execvp(command[0], command);
    error = errno;
    fprintf(stderr, "nsrun: cannot run %s: %s\n", command[0], strerror(error));
    _exit(error == ENOENT || error == ENOTDIR ? 127 : 126);
}

static const char *explain(int error)
{
    switch (error) {
    case -EBUSY:
        return "something else holds this process's calls already (another nsrun --gateway?)";
    case -ENOSYS:
    case -EINVAL:
        return "this kernel has no seccomp user notification (Linux 5.9 has)";
    default:
        return strerror(-error);
    }
}

/* Into this process comes ourselves again, under the shim. The command's environment was the old one. */
static int start_again(char **argv, const char *shim, int notify, pid_t command)
{
    char told[64];
    int r;

    fcntl(notify, F_SETFD, 0);
    snprintf(told, sizeof(told), "%d %d", notify, (int)command);
    r = setenv(TOLD, told, 1) < 0 ? -ENOMEM : ns_shim_preload(shim);
    if (r < 0)
        return r;
    execv("/proc/self/exe", argv);
    return -errno;
}

int ns_supervise_start(char **argv, char **command, const char *shim, char *error, size_t error_bytes)
{
    int channel[2] = { -1, -1 }, notify, r = 0;
    pid_t child;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0)
        r = -errno;
    child = r < 0 ? -1 : fork();
    if (child == 0)
        become(command, channel[1]);
    if (r == 0 && child < 0)
        r = -errno;
    if (r < 0) {
        snprintf(error, error_bytes, "no gateway: %s", strerror(-r));
        return r;
    }
    close(channel[1]);
    notify = receive_descriptor(channel[0]);
    close(channel[0]);
    if (notify < 0) {
        waitpid(child, NULL, 0);
        snprintf(error, error_bytes, "no gateway: %s", explain(notify));
        return notify;
    }
    r = start_again(argv, shim, notify, child);
    /* The command runs by now and would wait for ever in its first connect. */
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    snprintf(error, error_bytes, "no gateway: cannot start again under the shim: %s", strerror(-r));
    return r;
}

/* ---- the second start ---- */

struct supervisor {
    uv_loop_t loop;
    uv_signal_t child, terminate, hangup;
    pid_t command;
    int status;
    bool ended;
};

static void on_child(uv_signal_t *handle, int number)
{
    struct supervisor *s = handle->data;

    if (!s->ended && waitpid(s->command, &s->status, WNOHANG) == s->command)
        s->ended = true;
}

/* For the command, which decides. The terminal's own signals reach it by themselves. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct supervisor *s = handle->data;

    if (!s->ended)
        kill(s->command, number);
}

static void watch(struct supervisor *s, uv_signal_t *handle, uv_signal_cb call, int number)
{
    uv_signal_init(&s->loop, handle);
    handle->data = s;
    uv_signal_start(handle, call, number);
    uv_unref((uv_handle_t *)handle);
}

/* Said by the first start. */
static void unheard(void *ctx, const char *key, int error, const char *line)
{
}

/* Ends as the command ended, by the same signal if it was one, but without a core of our own. */
__attribute__((noreturn)) static void end_as(int status)
{
    if (WIFSIGNALED(status)) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
        exit(128 + WTERMSIG(status));
    }
    exit(WEXITSTATUS(status));
}

void ns_supervise_resume(void)
{
    static struct supervisor s;
    static struct ns_policy policy;
    const char *told = getenv(TOLD);
    int notify, command;

    if (!told || sscanf(told, "%d %d", &notify, &command) != 2)
        return;
    unsetenv(TOLD);
    s.command = command;
    ns_policy_defaults(&policy);
    ns_policy_read(&policy, environ, unheard, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    if (uv_loop_init(&s.loop) < 0 || ns_redirect_start(&s.loop, notify, &policy) < 0) {
        fputs("nsrun: no gateway: no memory or descriptors\n", stderr);
        kill(s.command, SIGKILL);
        exit(126);
    }
    watch(&s, &s.child, on_child, SIGCHLD);
    watch(&s, &s.terminate, on_signal, SIGTERM);
    watch(&s, &s.hangup, on_signal, SIGHUP);
    on_child(&s.child, SIGCHLD); /* it may have been over before we watched */
    uv_run(&s.loop, UV_RUN_DEFAULT);
    /* Nobody is held, so it is over or about to be. */
    while (!s.ended && waitpid(s.command, &s.status, 0) < 0 && errno == EINTR)
        ;
    end_as(s.status);
}
