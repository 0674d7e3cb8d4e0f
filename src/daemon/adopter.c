#include "daemon/adopter.h"

#include "daemon/relay.h"
#include "daemon/shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TOLD   "NAMESOCKET_ADOPTER"
#define BROKER "NAMESOCKET_BROKER"
#define LINK   3 /* in the adopter */

/* An adopter without anything to do ends after this. */
#define IDLE_MS 1000

struct ns_adopter {
    struct ns_adopter *next;
    uid_t uid;
    int link;
    uv_process_t process;
};

/* ---- passing a descriptor ---- */

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static int send_descriptor(int link, int fd)
{
    union control control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
    char byte = 0;
    struct iovec iov = { &byte, 1 };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };

    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    return sendmsg(link, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The descriptor, -EAGAIN without one, or -EPIPE when there will be none any more. */
static int receive_descriptor(int link)
{
    union control control;
    char byte;
    struct iovec iov = { &byte, 1 };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    struct cmsghdr *c;
    int fd = -EAGAIN;
    ssize_t n = recvmsg(link, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? -EAGAIN : -EPIPE;
    c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(fd)))
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    return fd;
}

/* ---- in the adopter: relays ---- */

/* What the engine calls a relay (engine/adopt.h), from one thread to another. */
struct joint {
    struct joint *next, *previous; /* of those that have begun; `next`: of those that have not */
    int session, end, gate;
    uv_poll_t waiting; /* for the gate */
    struct ns_relay *relay;
    bool over;
};

static struct {
    uv_loop_t loop;
    uv_poll_t link;
    uv_timer_t idle;
    uv_async_t handed;
    uv_mutex_t lock;
    struct joint *first;        /* handed over, and not begun; lock */
    struct joint *begun;
    unsigned taking, relays;    /* threads, lock; relays */
    bool stirred;               /* since the idle timer last fired */
    void (*take)(int pair, bool (*reserve)(void), void (*relay)(int session, int end, int gate));
    unsigned (*left)(void);
} here;

static void on_gate_closed(uv_handle_t *handle)
{
    struct joint *j = handle->data;

    close(j->gate);
    j->gate = -1;
    if (j->over)
        free(j);
    else
        ns_relay_let_read(j->relay);
}

/* Whoever was reading has had his read. */
static void on_gate(uv_poll_t *poll, int status, int events)
{
    if (!uv_is_closing((uv_handle_t *)poll))
        uv_close((uv_handle_t *)poll, on_gate_closed);
}

static void on_relayed(void *arg)
{
    struct joint *j = arg;

    *(j->previous ? &j->previous->next : &here.begun) = j->next;
    if (j->next)
        j->next->previous = j->previous;
    here.relays--;
    here.stirred = true;
    j->over = true;
    if (j->gate < 0)
        free(j);
    else
        on_gate(&j->waiting, 0, 0);
}

static uv_tcp_t *open_end(int fd)
{
    uv_tcp_t *tcp = malloc(sizeof(*tcp));

    if (!tcp || uv_tcp_init(&here.loop, tcp) < 0) {
        close(fd);
        free(tcp);
        return NULL;
    }
    if (uv_tcp_open(tcp, fd) == 0)
        return tcp;
    close(fd);
    ns_relay_discard(tcp);
    return NULL;
}

/* Both ends are reset where it cannot be. */
static void begin_relay(struct joint *j)
{
    uv_tcp_t *end = open_end(j->end), *session = open_end(j->session);

    if (!end || !session || uv_poll_init(&here.loop, &j->waiting, j->gate) < 0) {
        if (end)
            ns_relay_reset(end);
        if (session)
            ns_relay_reset(session);
        close(j->gate);
        free(j);
        return;
    }
    j->waiting.data = j;
    j->over = false;
    here.relays++;
    j->previous = NULL;
    j->next = here.begun;
    if (j->next)
        j->next->previous = j;
    here.begun = j;
    j->relay = ns_relay_start_held(end, session, on_relayed, j);
    if (j->relay && uv_poll_start(&j->waiting, UV_READABLE | UV_DISCONNECT, on_gate) < 0)
        on_gate(&j->waiting, 0, 0);
}

static void on_handed(uv_async_t *async)
{
    uv_mutex_lock(&here.lock);
    struct joint *j = here.first, *next;
    here.first = NULL;
    uv_mutex_unlock(&here.lock);
    here.stirred = true;
    for (; j; j = next) {
        next = j->next;
        begin_relay(j);
    }
}

/* For the next one that this thread takes: without it, what has been taken could not begin. */
static __thread struct joint *spare;

static bool reserve(void)
{
    if (!spare)
        spare = malloc(sizeof(*spare));
    return spare != NULL;
}

/* On a thread that takes. */
static void hand(int session, int end, int gate)
{
    struct joint *j = spare;

    spare = NULL;
    *j = (struct joint){ .session = session, .end = end, .gate = gate };
    uv_mutex_lock(&here.lock);
    j->next = here.first;
    here.first = j;
    uv_mutex_unlock(&here.lock);
    uv_async_send(&here.handed);
}

/* ---- in the adopter: taking ---- */

static void *take(void *pair)
{
    here.take((int)(intptr_t)pair, reserve, hand);
    free(spare);
    spare = NULL;
    uv_mutex_lock(&here.lock);
    here.taking--;
    uv_mutex_unlock(&here.lock);
    uv_async_send(&here.handed);
    return NULL;
}

/* One thread for each process that hands over, so that none has to wait for another. */
static void begin_taking(int pair)
{
    pthread_t thread;

    uv_mutex_lock(&here.lock);
    here.taking++;
    uv_mutex_unlock(&here.lock);
    if (pthread_create(&thread, NULL, take, (void *)(intptr_t)pair) == 0)
        pthread_detach(thread);
    else
        take((void *)(intptr_t)pair);
}

static void on_link(uv_poll_t *poll, int status, int events)
{
    int fd;

    here.stirred = true;
    while ((fd = receive_descriptor(LINK)) >= 0)
        begin_taking(fd);
    if (fd == -EPIPE)
        uv_poll_stop(poll);
}

static bool busy(void)
{
    uv_mutex_lock(&here.lock);
    bool is = here.taking > 0 || here.first;
    uv_mutex_unlock(&here.lock);
    return is || here.relays > 0 || here.left() > 0;
}

static void on_idle(uv_timer_t *timer)
{
    bool was = here.stirred;

    for (struct joint *j = here.begun; j; j = j->next) /* ended later, by the loop */
        ns_relay_look(j->relay);
    here.stirred = false;
    if (was || busy())
        return;
    shutdown(LINK, SHUT_RD); /* whoever sends from here on is told so */
    on_link(&here.link, 0, UV_READABLE);
    if (!busy())
        _exit(0);
}

__attribute__((noreturn)) static void adopt(void)
{
    struct rlimit files;

    here.take = (void (*)(int, bool (*)(void), void (*)(int, int, int)))dlsym(RTLD_DEFAULT, "namesocket_shim_adopt");
    here.left = (unsigned (*)(void))dlsym(RTLD_DEFAULT, "namesocket_shim_adopted");
    setsid();
    prctl(PR_SET_NAME, "ns-adopter");
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* three for each session */
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (!here.take || !here.left || chdir("/") < 0 || uv_loop_init(&here.loop) < 0 ||
        uv_mutex_init(&here.lock) < 0 || uv_async_init(&here.loop, &here.handed, on_handed) < 0 ||
        uv_poll_init(&here.loop, &here.link, LINK) < 0 || uv_timer_init(&here.loop, &here.idle) < 0)
        _exit(1);
    uv_poll_start(&here.link, UV_READABLE | UV_DISCONNECT, on_link);
    uv_timer_start(&here.idle, on_idle, IDLE_MS, IDLE_MS);
    uv_run(&here.loop, UV_RUN_DEFAULT);
    _exit(0);
}

void ns_adopter_resume(void)
{
    if (!getenv(TOLD))
        return;
    unsetenv(TOLD);
    adopt();
}

/* ---- in the broker ---- */

static void on_closed(uv_handle_t *handle)
{
    free((char *)handle - offsetof(struct ns_adopter, process));
}

static void on_exit_of(uv_process_t *process, int64_t status, int signal)
{
    struct ns_adopter *x = (struct ns_adopter *)((char *)process - offsetof(struct ns_adopter, process));
    struct ns_adopters *a = process->data;

    for (struct ns_adopter **p = &a->first; *p; p = &(*p)->next)
        if (*p == x) {
            *p = x->next;
            break;
        }
    close(x->link);
    uv_close((uv_handle_t *)process, on_closed);
}

/* Where the adopter finds this broker, as ns_message_address reads it. */
static int name_of(int listening, char *out, size_t bytes)
{
    struct sockaddr_un a;
    socklen_t len = sizeof(a);

    if (getsockname(listening, (struct sockaddr *)&a, &len) < 0)
        return -errno;
    len -= (socklen_t)offsetof(struct sockaddr_un, sun_path);
    if (len < 2 || len >= bytes)
        return -EINVAL;
    memcpy(out, a.sun_path, len);
    out[len] = '\0';
    if (!*out)
        *out = '@';
    return 0;
}

/* What of this process's environment is the adopter's, too. It may run as another user, who can
 * read what it has (proc(5)): nothing else goes there, a pre-shared key least of all. */
static bool passed_on(const char *entry)
{
    static const char *const settings[] = { "LOG_LEVEL=", "LOG_FILE=", "LOG_TIME=", "GIVE_UP=", "PARK=", "RING=" };

    if (strncmp(entry, "PATH=", strlen("PATH=")) == 0)
        return true;
    if (strncmp(entry, "NAMESOCKET_", strlen("NAMESOCKET_")) != 0)
        return false;
    for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++)
        if (strncmp(entry + strlen("NAMESOCKET_"), settings[i], strlen(settings[i])) == 0)
            return true;
    return false;
}

/* `variables` and what is passed on, as uv_spawn takes it; the strings are borrowed. */
static char **environment(char *const *variables, size_t count)
{
    size_t n = 0, kept = 0;
    char **list;

    while (environ[n])
        n++;
    list = calloc(n + count + 1, sizeof(*list));
    for (size_t i = 0; list && i < n; i++)
        if (passed_on(environ[i]))
            list[kept++] = environ[i];
    if (list)
        memcpy(list + kept, variables, count * sizeof(*list));
    return list;
}

static int spawn(struct ns_adopters *a, struct ns_adopter *x, gid_t gid, int link)
{
    char shim[PATH_MAX], broker[sizeof(struct sockaddr_un)], preload[PATH_MAX + 16],
        where[sizeof(broker) + 24];
    char *variables[] = { preload, where, TOLD "=1" }, *args[] = { "ns-adopter", NULL };
    uv_stdio_container_t stdio[4] = { [LINK] = { .flags = UV_INHERIT_FD, .data.fd = link } };
    uv_process_options_t options = { .exit_cb = on_exit_of,
                                     .file = "/proc/self/exe",
                                     .args = args,
                                     .stdio = stdio,
                                     .stdio_count = 4,
                                     .uid = x->uid,
                                     .gid = gid };
    int r = ns_shim_find(shim, sizeof(shim));

    if (r == 0)
        r = name_of(a->listening, broker, sizeof(broker));
    if (r < 0)
        return r;
    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", shim);
    snprintf(where, sizeof(where), BROKER "=%s", broker);
    options.env = environment(variables, sizeof(variables) / sizeof(*variables));
    if (!options.env)
        return -ENOMEM;
    if (x->uid != geteuid())
        options.flags = UV_PROCESS_SETUID | UV_PROCESS_SETGID;
    x->process.data = a;
    r = uv_spawn(a->loop, &x->process, &options);
    free(options.env);
    return r;
}

static struct ns_adopter *start(struct ns_adopters *a, uid_t uid, gid_t gid, int *error)
{
    struct ns_adopter *x = calloc(1, sizeof(*x));
    int pair[2];

    if (!x || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        *error = -ENOMEM;
        free(x);
        return NULL;
    }
    x->uid = uid;
    x->link = pair[0];
    *error = spawn(a, x, gid, pair[1]);
    close(pair[1]);
    if (*error < 0) {
        close(x->link);
        x->link = -1;
        x->process.type == UV_PROCESS ? uv_close((uv_handle_t *)&x->process, on_closed) : free(x);
        return NULL;
    }
    uv_unref((uv_handle_t *)&x->process);
    x->next = a->first;
    a->first = x;
    return x;
}

int ns_adopters_give(struct ns_adopters *a, uid_t uid, gid_t gid, int fd)
{
    int error;

    /* One that is about to end takes nothing any more; another is started beside it. */
    for (struct ns_adopter *x = a->first; x; x = x->next)
        if (x->uid == uid && (error = send_descriptor(x->link, fd)) != -EPIPE)
            return error;
    if (geteuid() != 0 && uid != geteuid())
        return -EPERM;
    struct ns_adopter *x = start(a, uid, gid, &error);
    return x ? send_descriptor(x->link, fd) : error;
}

void ns_adopters_close(struct ns_adopters *a)
{
    for (struct ns_adopter *x = a->first, *next; x; x = next) {
        next = x->next;
        close(x->link);
        uv_close((uv_handle_t *)&x->process, on_closed);
    }
    a->first = NULL;
}
