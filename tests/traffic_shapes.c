// Which processes and programs a connection goes through. The faults come when the last of them has it.
#include "traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534
#define IDLE_WORKERS 2
#define KEPT_FROM 20                // numbers that a program on the standard descriptors reports by
#define GREETED_BYTES 8             // of the opening, that a monitor reads before it starts a child in a sandbox

// -- one after the other -----------------------------------------------------------------------------------------

static pid_t fork_or_fail(void)
{
    pid_t pid = fork();
    if (pid < 0)
        fail(EXIT_CONNECTION, "fork: %s", strerror(errno));
    if (pid == 0)
        alarm(opt.timeout_s);
    return pid;
}

// The status with which a child has ended, as one to end with.
static int code_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_CONNECTION;
}

static int await(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            fail(EXIT_CONNECTION, "waitpid: %s", strerror(errno));
    return code_of(status);
}

static void end_like(pid_t child)
{
    int code = await(child);
    if (code != 0)
        _exit(code);
}

static void run_one(struct house *h, struct conn *c)
{
    if (h->listener >= 0)
        close(h->listener);
    struct house own = { .listener = -1, .conns = c, .n = 1, .epoll_fd = -1, .started = 1 };
    house_run(&own);
    _exit(0);
}

static void drop_privileges(void)
{
    if (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
        fail(EXIT_CONNECTION, "setuid: %s", strerror(errno));
}

// -- other programs: this one again, which is given connections that are there already ---------------------------

struct command {
    char given[SLOTS_MAX * 5], control[12], report[12];
    char *argv[64];
};

static void put_command(struct command *m, const struct conn *conns, unsigned n)
{
    size_t at = 0;
    int words = 0;
    for (unsigned i = 0; i < n; i++) {
        fcntl(conns[i].fd, F_SETFD, 0);
        at += (size_t)snprintf(m->given + at, sizeof m->given - at, "%s%d", i ? "," : "", conns[i].fd);
    }
    m->argv[words++] = opt.argv[0];
    m->argv[words++] = "--given";
    m->argv[words++] = m->given;
    if (m->control[0]) {
        m->argv[words++] = "--control";
        m->argv[words++] = m->control;
        m->argv[words++] = "--report";
        m->argv[words++] = m->report;
    }
    for (char **arg = opt.argv + 1; *arg && words < 63; arg++)
        m->argv[words++] = *arg;
    m->argv[words] = NULL;
}

static void execute(struct command *m)
{
    execv("/proc/self/exe", m->argv);
    fail(EXIT_CONNECTION, "exec: %s", strerror(errno));
}

static pid_t execute_by_vfork(struct command *m)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execv("/proc/self/exe", m->argv);
        _exit(EXIT_CONNECTION);
    }
    return pid;
}

static pid_t spawn(struct command *m)
{
    pid_t pid;
    int error = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, m->argv, environ);
    if (error != 0)
        fail(EXIT_CONNECTION, "posix_spawn: %s", strerror(error));
    return pid;
}

// What a sanitizer has to say goes to standard error.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STANDARD_LAST STDOUT_FILENO
#else
#define STANDARD_LAST STDERR_FILENO
#endif

// As inetd does it. What is said goes by other numbers.
static void execute_on_standard(struct command *m, struct conn *c)
{
    snprintf(m->control, sizeof m->control, "%d", fcntl(STDIN_FILENO, F_DUPFD, KEPT_FROM));
    snprintf(m->report, sizeof m->report, "%d", fcntl(STDOUT_FILENO, F_DUPFD, KEPT_FROM));
    for (int fd = STDIN_FILENO; fd <= STANDARD_LAST; fd++)
        dup2(c->fd, fd);
    close(c->fd);
    c->fd = STDIN_FILENO;
    put_command(m, c, 1);
    execute(m);
}

static void run_given(struct house *h)
{
    for (char *at = strtok(opt.given, ","); at; at = strtok(NULL, ","), h->started++) {
        struct conn *c = &h->conns[h->started];
        if (h->started == h->n)
            fail(EXIT_USAGE, "given more than %u connections", h->n);
        conn_init(c, atoi(at), opt.server, opt.server ? 0 : h->started);
        // Threads read and write as most programs for inetd do.
        if (opt.standard && opt.form == FORM_THREADS)
            c->in = stdin, c->out = stdout;
    }
    house_run(h);
}

// -- a pair: two processes use a connection at once ----------------------------------------------------------------

static void *write_pair(void *c)
{
    write_all(c);
    return NULL;
}

static void run_pair(struct house *h)
{
    struct conn *c = h->listener >= 0 ? house_accept(h) : h->conns;
    pid_t reader = fork_or_fail();
    if (reader == 0) {
        if (h->listener >= 0)
            close(h->listener);
        read_all(c);
        _exit(0);
    }
    pthread_t writer;
    if (pthread_create(&writer, NULL, write_pair, c) != 0)
        fail(EXIT_CONNECTION, "no thread");
    while (pthread_tryjoin_np(writer, NULL) != 0)
        control_poll(20);
    end_like(reader);
    conn_finish(c);
}

// -- a daemon ------------------------------------------------------------------------------------------------------

void shapes_begin(void)
{
    if (opt.shape != SHAPE_DAEMON || opt.given)
        return;
    // The processes in between end at once, the last one is left to us: whoever started us waits for it.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (fork_or_fail() == 0)
        return;
    for (int status; wait(&status) > 0 || errno == EINTR;)
        if (code_of(status) != 0)
            _exit(code_of(status));
    _exit(0);
}

static void close_others(const struct house *h)
{
    bool keep[SLOTS_MAX] = { true, true, true };
    const int own[] = { h->listener, control_fds[1], signal_pipe_write };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (own[i] >= 0 && own[i] < SLOTS_MAX)
            keep[own[i]] = true;
    for (unsigned i = 0; i < h->started; i++)
        if (h->conns[i].fd < SLOTS_MAX)
            keep[h->conns[i].fd] = true;
    for (int fd = 0; fd < SLOTS_MAX; fd++)
        if (!keep[fd])
            close(fd);
    closefrom(SLOTS_MAX);
}

// As in daemon(7).
static void become_daemon(struct house *h)
{
    if (fork_or_fail() > 0)
        _exit(0);
    setsid();
    if (fork_or_fail() > 0)
        _exit(0);
    if (chdir("/") != 0)
        fail(EXIT_CONNECTION, "chdir: %s", strerror(errno));
    close_others(h);
    house_run(h);
}

// -- a monitor and its child without privileges -----------------------------------------------------------------

static void read_whole(struct conn *c, size_t n)
{
    while (n > 0) {
        struct pollfd p = { .fd = c->fd, .events = POLLIN };
        poll(&p, 1, -1);
        ssize_t got = read(c->fd, c->opening + c->opening_bytes, n);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            fail(EXIT_CONNECTION, "the opening: %s", got == 0 ? "end of stream" : strerror(errno));
        if (got > 0) {
            c->opening_bytes += (size_t)got;
            n -= (size_t)got;
        }
    }
}

static void enter_sandbox(void)
{
    struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = { 1, &all };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        fail(EXIT_CONNECTION, "seccomp: %s", strerror(errno));
}

// The child in the sandbox reads the rest of the opening, tells it and ends, as sshd's does at the login.
static void greet_in_sandbox(struct conn *c)
{
    int told[2];
    const size_t rest = sizeof c->opening - GREETED_BYTES;
    read_whole(c, GREETED_BYTES);
    if (pipe(told) != 0)
        fail(EXIT_CONNECTION, "pipe: %s", strerror(errno));
    pid_t pid = fork_or_fail();
    if (pid == 0) {
        enter_sandbox();
        read_whole(c, rest);
        _exit(write(told[1], c->opening + GREETED_BYTES, rest) == (ssize_t)rest ? 0 : EXIT_CONNECTION);
    }
    end_like(pid);
    if (read(told[0], c->opening + GREETED_BYTES, rest) != (ssize_t)rest)
        fail(EXIT_CONNECTION, "the sandbox: %s", strerror(errno));
    close(told[0]);
    close(told[1]);
    conn_opened(c);
}

// -- passed on -------------------------------------------------------------------------------------------------------

union one_descriptor {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static void pass(int channel, int fd)
{
    char byte = 0;
    struct iovec iov = { &byte, 1 };
    union one_descriptor d = {
        .header = { .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS }
    };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &d, .msg_controllen = sizeof d };
    memcpy(CMSG_DATA(&d.header), &fd, sizeof fd);
    if (sendmsg(channel, &m, 0) != 1)
        fail(EXIT_CONNECTION, "sendmsg: %s", strerror(errno));
    close(channel);
}

static int take(int channel)
{
    char byte;
    int fd;
    struct iovec iov = { &byte, 1 };
    union one_descriptor d;
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &d, .msg_controllen = sizeof d };
    if (recvmsg(channel, &m, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&m))
        fail(EXIT_CONNECTION, "recvmsg: %s", strerror(errno));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}

// A process that will get a connection by `channel`.
static pid_t start_receiver(struct house *h, int *channel)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        fail(EXIT_CONNECTION, "socketpair: %s", strerror(errno));
    pid_t pid = fork_or_fail();
    close(pair[pid != 0]);
    *channel = pair[pid == 0];
    if (pid == 0) {
        conn_init(h->conns, take(*channel), opt.server, 0);
        run_one(h, h->conns);
    }
    return pid;
}

// -- a server's processes ----------------------------------------------------------------------------------------

static pid_t serve_apart(struct house *h, struct conn *c)
{
    static struct command m;
    if (opt.shape == SHAPE_PRIVSEP)
        greet_in_sandbox(c);
    if (opt.shape == SHAPE_EXEC || opt.shape == SHAPE_VFORK || opt.shape == SHAPE_SPAWN)
        put_command(&m, c, 1);
    if (opt.shape == SHAPE_VFORK)
        return execute_by_vfork(&m);
    if (opt.shape == SHAPE_SPAWN)
        return spawn(&m);
    pid_t pid = fork_or_fail();
    if (pid > 0)
        return pid;
    if (opt.shape == SHAPE_EXEC)
        execute(&m);
    if (opt.shape == SHAPE_INETD)
        execute_on_standard(&m, c);
    if (opt.shape == SHAPE_SETUID)
        drop_privileges();
    run_one(h, c);
    return 0;
}

static pid_t serve_next(struct house *h)
{
    int channel = -1;
    pid_t pid = opt.shape == SHAPE_PASSED ? start_receiver(h, &channel) : 0;
    struct conn *c = house_accept(h);
    if (pid > 0)
        pass(channel, c->fd);
    else
        pid = serve_apart(h, c);
    close(c->fd);
    c->used = false;
    return pid;
}

// A RESUME that came late is shown as a client that came and left (docs/limits.md); it gets its child as any other.
static pid_t serve_none(struct house *h, int fd)
{
    char byte;
    pid_t pid = fork_or_fail();
    if (pid == 0) {
        close(h->listener);
        if (read(fd, &byte, 1) > 0)
            fail(EXIT_WRONG, "bytes on a connection that is none of the application's");
        _exit(0);
    }
    close(fd);
    return pid;
}

// A child for each connection; the parent accepts on, as long as one of them lives.
static void serve_by_children(struct house *h)
{
    pid_t children[SLOTS_MAX], others[SLOTS_MAX];
    int alive[2];
    unsigned n = 0, more = 0;
    if (pipe(alive) != 0)
        fail(EXIT_CONNECTION, "pipe: %s", strerror(errno));
    for (; house_accepting(h) && n < SLOTS_MAX; n++)
        children[n] = serve_next(h);
    close(alive[1]);
    fcntl(h->listener, F_SETFL, fcntl(h->listener, F_GETFL) | O_NONBLOCK);
    for (struct pollfd p[2] = { { h->listener, POLLIN, 0 }, { alive[0], POLLIN, 0 } }; !p[1].revents;) {
        int fd = poll(p, 2, -1) > 0 && p[0].revents ? accept4(h->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0 && more < SLOTS_MAX)
            others[more++] = serve_none(h, fd);
    }
    for (unsigned i = 0; i < n; i++)
        end_like(children[i]);
    for (unsigned i = 0; i < more; i++) {
        int status = 0;
        kill(others[i], SIGKILL);                   // a path that went with its connection says nothing any more
        waitpid(others[i], &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
            _exit(WEXITSTATUS(status));
    }
}

// Accepts one connection, serves it and ends.
static pid_t start_worker(struct house *h)
{
    pid_t pid = fork_or_fail();
    if (pid == 0) {
        opt.connections = 1;
        house_run(h);
        _exit(0);
    }
    return pid;
}

static void serve_by_workers(struct house *h)
{
    pid_t workers[SLOTS_MAX];
    unsigned n = opt.connections + IDLE_WORKERS, served = 0;
    for (unsigned i = 0; i < n; i++)
        workers[i] = start_worker(h);
    while (served < opt.connections) {
        int status = 0;
        pid_t pid = wait(&status);
        unsigned i = 0;
        while (pid > 0 && workers[i] != pid)
            i++;
        if (pid > 0 && code_of(status) == EXIT_NOBODY)
            workers[i] = start_worker(h);
        else if (pid > 0 && status != 0)
            _exit(code_of(status));
        else if (pid > 0)
            served++, workers[i] = 0;
    }
    for (unsigned i = 0; i < n; i++)
        if (workers[i] > 0) {
            kill(workers[i], SIGKILL);
            waitpid(workers[i], NULL, 0);
        }
}

static void serve(struct house *h)
{
    if (opt.shape == SHAPE_ONE)
        house_run(h);
    else if (opt.shape == SHAPE_DAEMON)
        become_daemon(h);
    else if (opt.shape == SHAPE_PAIR)
        run_pair(h);
    else if (opt.shape == SHAPE_PREFORK)
        serve_by_workers(h);
    else
        serve_by_children(h);
}

// -- a client's ----------------------------------------------------------------------------------------------------

// Whoever has the connections now; the parent has its descriptors open all the time, and does nothing with them.
static void run_apart(struct house *h)
{
    static struct command m;
    pid_t pid;
    if (opt.shape != SHAPE_FORK)
        put_command(&m, h->conns, h->n);
    if (opt.shape == SHAPE_EXEC)
        execute(&m);
    pid = opt.shape == SHAPE_VFORK ? execute_by_vfork(&m) : opt.shape == SHAPE_SPAWN ? spawn(&m) : fork_or_fail();
    if (pid > 0)
        end_like(pid);
    else
        house_run(h);
    _exit(0);
}

static void run_passed(struct house *h)
{
    int channel;
    pid_t pid = start_receiver(h, &channel);
    house_connect(h);
    pass(channel, h->conns->fd);
    close(h->conns->fd);
    end_like(pid);
    _exit(0);
}

static void run(struct house *h)
{
    static struct command m;
    if (opt.shape == SHAPE_PASSED)
        run_passed(h);
    house_connect(h);
    switch (opt.shape) {
    case SHAPE_ONE: house_run(h); break;
    case SHAPE_INETD: execute_on_standard(&m, h->conns); break;
    case SHAPE_DAEMON: become_daemon(h); break;
    case SHAPE_PAIR: run_pair(h); break;
    case SHAPE_SETUID: drop_privileges(); house_run(h); break;
    default: run_apart(h); break;
    }
}

void shapes_run(int listener, struct conn *conns, unsigned n)
{
    static struct house h;
    h = (struct house){ .listener = listener, .conns = conns, .n = n, .epoll_fd = -1 };
    if (opt.given)
        run_given(&h);
    else if (opt.server)
        serve(&h);
    else
        run(&h);
}
