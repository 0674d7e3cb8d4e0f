#include "engine/broker.h"

#include "engine/broker_link.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/large.h"
#include "engine/record.h"
#include "engine/serve.h"
#include "engine/sock.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define QUEUE_MAX 512 /* records that wait for room */
#define BATCH     32  /* read before others have a turn */

/* How soon a broker that has gone is looked for again: this, doubling. */
#define RETRY_MS      20
#define RETRY_MOST_MS 2000
#define RETRY_FOR_MS  300000
/* Without one, how often it is looked for when there is something to tell. */
#define LOOK_MS 10000

enum { NONE, EXPECTED, CONNECTED };

static int state;       /* atomic */
static int64_t lost_ns; /* atomic */
static struct ns_source source = { .fd = -1 };
static struct ns_timer retry;
static int64_t pause_ms;
static struct ns_time last_try;

static struct record {
    struct record *next;
    int fd;
    size_t bytes;
    uint8_t data[];
} * first, *last;
static size_t queued;

static ns_told_handler *handlers[NS_TELL_KINDS] NS_LARGE;

bool ns_broker_connected(void)
{
    return __atomic_load_n(&state, __ATOMIC_ACQUIRE) == CONNECTED;
}

bool ns_broker_expected(void)
{
    return __atomic_load_n(&state, __ATOMIC_ACQUIRE) != NONE;
}

struct ns_time ns_broker_lost_since(void)
{
    return ns_broker_connected() ? NS_NEVER : (struct ns_time){ __atomic_load_n(&lost_ns, __ATOMIC_ACQUIRE) };
}

/* ---- out ---- */

static int send_record(int to, const uint8_t *data, size_t bytes, int fd)
{
    ssize_t n = ns_record_send(to, data, bytes, &fd, 1);
    return n < 0 ? (int)n : 0;
}

/* Anything else means that nobody is there: which the loop is about to see. */
static bool full(int error)
{
    return error == -EAGAIN || error == -ENOBUFS || error == -ETOOMANYREFS;
}

static void pop(void)
{
    struct record *r = first;
    first = r->next;
    if (!first)
        last = NULL;
    queued--;
    ns_internal_close(r->fd);
    free(r);
}

static bool push(const uint8_t *data, size_t bytes, int fd)
{
    struct record *r = queued < QUEUE_MAX ? malloc(sizeof *r + bytes) : NULL;
    if (!r)
        return false;
    *r = (struct record){ .fd = fd < 0 ? -1 : ns_internal(ns_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3)),
                          .bytes = bytes };
    if (fd >= 0 && r->fd < 0) {
        free(r);
        return false;
    }
    memcpy(r->data, data, bytes);
    *(last ? &last->next : &first) = r;
    last = r;
    if (queued++ == 0)
        ns_loop_change(&source, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
    return true;
}

bool ns_broker_send(const struct ns_message *m, int fd)
{
    uint8_t data[NS_MESSAGE_BYTES_MAX];
    if (!ns_broker_connected())
        return false;
    size_t bytes = ns_message_put(data, m);
    int err = first ? -EAGAIN : send_record(source.fd, data, bytes, fd);
    return err == 0 || (full(err) && push(data, bytes, fd));
}

bool ns_broker_roomy(void)
{
    return ns_broker_connected() && queued < QUEUE_MAX / 4;
}

static void flush(void)
{
    while (first) {
        int err = send_record(source.fd, first->data, first->bytes, first->fd);
        if (full(err))
            return;
        pop();
    }
    ns_loop_change(&source, EPOLLIN | EPOLLRDHUP);
    ns_hold_more();
}

/* ---- in ---- */

static void answer(const struct ns_message *question, int32_t status)
{
    struct ns_message m = { .type = NS_MESSAGE_ANSWER, .serial = question->serial, .status = status };
    ns_broker_send(&m, -1);
}

static int32_t status_of(enum ns_refusal refusal)
{
    return refusal == NS_GO_ON           ? NS_MESSAGE_TAKEN
           : refusal == NS_REFUSED_LATER ? NS_MESSAGE_LATER
                                         : NS_MESSAGE_UNKNOWN;
}

static void got_resume(const struct ns_message *m, int fd, struct ns_time now)
{
    enum ns_refusal held = fd < 0 ? NS_REFUSED_LATER : ns_serve_holds(m->id);
    answer(m, status_of(held));
    if (held == NS_GO_ON)
        ns_serve_take_passed(fd, m->payload.data, m->payload.bytes, false, now);
    else
        ns_internal_close(fd);
}

static void got_tell(const struct ns_message *m, int fd, struct ns_time now)
{
    struct ns_told told = { .token = m->serial,
                            .session_id = m->id,
                            .role = m->role,
                            .payload = m->payload.data,
                            .bytes = m->payload.bytes,
                            .fd = fd };
    ns_told_handler *handler = m->payload.kind < NS_TELL_KINDS ? handlers[m->payload.kind] : NULL;
    int status = -ENOSYS;
    if (handler)
        status = handler(&told, now);
    else
        ns_internal_close(fd);
    if (status != NS_TELL_PENDING)
        answer(m, status);
}

/* Somebody on the path has sent a NEW again, and another process has the first. */
static void got_duplicate(const struct ns_message *m)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_sock *s = m->role == NS_MESSAGE_SERVER ? ns_sock_help(ns_sock_find(m->id)) : NULL;
    ns_table_unhold(&hold);
    if (s)
        ns_sock_demote(s, "its NEW was seen before");
}

static void dispatch(const struct ns_message *m, int fd, struct ns_time now)
{
    switch (m->type) {
    case NS_MESSAGE_RESUME:
        got_resume(m, fd, now);
        return;
    case NS_MESSAGE_TELL:
        got_tell(m, fd, now);
        return;
    case NS_MESSAGE_FIND:
        answer(m, status_of(ns_serve_holds(m->id)));
        break;
    case NS_MESSAGE_ANSWER:
        ns_ask_answered(m, now);
        break;
    case NS_MESSAGE_REPORT:
        ns_hold_report(m->serial);
        break;
    case NS_MESSAGE_DUPLICATE:
        got_duplicate(m);
        break;
    default:
        break;
    }
    ns_internal_close(fd);
}

static int take_descriptor(struct msghdr *msg)
{
    int fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof fd))
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return ns_internal(fd);
}

/* Returns 1 for a record, 0 when there is none, -1 when the broker has gone. */
static int receive(struct ns_time now)
{
    uint8_t data[NS_MESSAGE_BYTES_MAX];
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = { data, sizeof data };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
    };
    struct ns_message m;
    ssize_t n = ns_sys_recvmsg(source.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n == -EAGAIN)
        return 0;
    if (n <= 0)
        return -1;
    int fd = take_descriptor(&msg);
    if ((msg.msg_flags & MSG_TRUNC) || !ns_message_get(data, (size_t)n, &m)) {
        ns_internal_close(fd);
        return -1;
    }
    dispatch(&m, fd, now);
    return ns_broker_connected() ? 1 : -1;
}

/* ---- the connection ---- */

static void set_state(int new)
{
    if (new == EXPECTED && state != EXPECTED)
        __atomic_store_n(&lost_ns, ns_now().ns, __ATOMIC_RELEASE);
    __atomic_store_n(&state, new, __ATOMIC_RELEASE);
}

static void close_connection(void)
{
    while (first)
        pop();
    if (source.fd >= 0) {
        ns_loop_remove(&source);
        ns_internal_close(source.fd);
    }
    source.fd = -1;
}

static void try_again(struct ns_timer *timer, struct ns_time now);

static void lost(struct ns_time now)
{
    close_connection();
    set_state(EXPECTED);
    pause_ms = RETRY_MS;
    retry.fire = try_again;
    ns_timer_set(&retry, now);
    ns_ask_lost(now);
}

static void ready(struct ns_source *unused, uint32_t events, struct ns_time now)
{
    int r = 1;
    for (int i = 0; i < BATCH && r == 1; i++)
        r = receive(now);
    if (r == 1)
        return; /* the rest in the next turn */
    if (r < 0)
        lost(now);
    else if (events & EPOLLOUT)
        flush();
}

/* Names in the abstract namespace are anybody's once their owner has gone. */
static bool trusted(int fd)
{
    struct ucred who;
    socklen_t len = sizeof who;
    return ns_sys_getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
           (who.uid == 0 || who.uid == geteuid());
}

static int open_connection(const char *address)
{
    struct sockaddr_un a;
    socklen_t len = ns_message_address(&a, address);
    int fd = len ? ns_sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -EINVAL;
    if (fd < 0)
        return fd;
    int err = ns_sys_connect(fd, (struct sockaddr *)&a, len);
    if (err == 0 && !trusted(fd))
        err = -EPERM;
    if (err == 0)
        return ns_internal(fd);
    ns_sys_close(fd);
    return err;
}

static const char *address(void)
{
    return ns_engine.policy.broker[0] ? ns_engine.policy.broker : NS_BROKER_MACHINE;
}

static int attempt(struct ns_time now)
{
    struct ns_message join = { .type = NS_MESSAGE_JOIN };
    last_try = now;
    int fd = open_connection(address());
    if (fd < 0)
        return fd;
    source = (struct ns_source){ .fd = fd, .ready = ready };
    int err = ns_loop_add(&source, EPOLLIN | EPOLLRDHUP);
    if (err < 0) {
        ns_internal_close(fd);
        source.fd = -1;
        return err;
    }
    set_state(CONNECTED);
    /* The name of the thread that has started the helper, which has it from there. */
    ns_syscall6(SYS_prctl, PR_GET_NAME, (long)join.program, 0, 0, 0, 0);
    ns_broker_send(&join, -1);
    ns_debug("connected to the broker at %s", address());
    return 0;
}

static void try_again(struct ns_timer *timer, struct ns_time now)
{
    if (ns_broker_connected() || attempt(now) == 0) {
        ns_hold_tell_all();
        return;
    }
    if (now.ns - lost_ns > RETRY_FOR_MS * 1000000LL) {
        ns_info("no broker at %s any more", address());
        set_state(NONE);
        return;
    }
    ns_timer_set(timer, ns_time_add(now, ns_time_ms(pause_ms)));
    pause_ms = 2 * pause_ms < RETRY_MOST_MS ? 2 * pause_ms : RETRY_MOST_MS;
}

void ns_broker_start(void)
{
    struct ns_time now = ns_now();
    if (strcmp(ns_engine.policy.broker, "none") == 0)
        return;
    int err = attempt(now);
    /* The machine need not have one. One that was named has been there. */
    if (err < 0 && !ns_engine.policy.broker[0] && (err == -ENOENT || err == -EACCES))
        return;
    if (err < 0)
        set_state(EXPECTED);
    pause_ms = RETRY_MS;
    retry.fire = try_again;
    ns_timer_set(&retry, now);
}

void ns_broker_look(struct ns_time now)
{
    if (ns_broker_expected() || strcmp(ns_engine.policy.broker, "none") == 0 ||
        now.ns - last_try.ns < LOOK_MS * 1000000LL)
        return;
    if (attempt(now) == 0)
        ns_hold_tell_all();
}

void ns_broker_handle(enum ns_tell_kind kind, ns_told_handler *handler)
{
    handlers[kind] = handler;
}

void ns_broker_acknowledge(uint32_t token, int status)
{
    struct ns_message m = { .type = NS_MESSAGE_ANSWER, .serial = token, .status = status };
    ns_broker_send(&m, -1);
}

int ns_broker_open(void)
{
    return strcmp(ns_engine.policy.broker, "none") == 0 ? -ENOENT : open_connection(address());
}

int ns_broker_send_on(int broker, const struct ns_message *m, int fd)
{
    uint8_t data[NS_MESSAGE_BYTES_MAX];
    return send_record(broker, data, ns_message_put(data, m), fd);
}

void ns_broker_stop(void)
{
    ns_internal_close(source.fd);
    ns_broker_fork_child();
}

NS_EACH_FORK void ns_broker_fork_child(void)
{
    /* What waits was the parent's, and so were its descriptors. */
    first = last = NULL;
    queued = 0;
    source.fd = -1;
    retry.set = false;
    state = NONE;
    ns_ask_reset();
}
