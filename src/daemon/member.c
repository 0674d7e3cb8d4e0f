#include "daemon/member.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_MAX 1024 /* records */
#define BATCH     64   /* read before others have a turn */

struct ns_member_record {
    struct ns_member_record *next;
    int fd;
    size_t bytes;
    uint8_t data[];
};

/* ---- out ---- */

static int send_record(int socket, const uint8_t *data, size_t bytes, int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec iov = { (void *)data, bytes };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (fd >= 0) {
        msg.msg_control = control;
        msg.msg_controllen = sizeof(control);
        *CMSG_FIRSTHDR(&msg) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
    }
    return sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* What makes it wait; anything else means that nobody is there. */
static bool full(int error)
{
    return error == -EAGAIN || error == -ENOBUFS || error == -ETOOMANYREFS || error == -EINTR;
}

static void on_event(uv_poll_t *poll, int status, int events);

static void watch(struct ns_member *m)
{
    uv_poll_start(&m->poll, UV_READABLE | UV_DISCONNECT | (m->first ? UV_WRITABLE : 0), on_event);
}

static void pop(struct ns_member *m)
{
    struct ns_member_record *r = m->first;

    m->first = r->next;
    if (!m->first)
        m->last = NULL;
    m->queued--;
    if (r->fd >= 0)
        close(r->fd);
    free(r);
}

static bool push(struct ns_member *m, const uint8_t *data, size_t bytes, int fd)
{
    struct ns_member_record *r = m->queued < QUEUE_MAX ? malloc(sizeof(*r) + bytes) : NULL;

    if (!r)
        return false;
    *r = (struct ns_member_record){ .fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0), .bytes = bytes };
    if (fd >= 0 && r->fd < 0) {
        free(r);
        return false;
    }
    memcpy(r->data, data, bytes);
    if (m->last)
        m->last->next = r;
    else
        m->first = r;
    m->last = r;
    if (m->queued++ == 0)
        watch(m);
    return true;
}

bool ns_member_send(struct ns_member *m, const struct ns_message *message, int fd)
{
    uint8_t data[NS_MESSAGE_BYTES_MAX];
    size_t bytes = ns_message_put(data, message);
    int error = m->first ? -EAGAIN : 0;

    if (m->closing)
        return false;
    if (error == 0)
        error = send_record(m->fd, data, bytes, fd);
    if (error == 0 || (full(error) && push(m, data, bytes, fd)))
        return true;
    ns_member_drop(m);
    return false;
}

bool ns_member_roomy(const struct ns_member *m)
{
    return !m->closing && m->queued < QUEUE_MAX / 2;
}

static void flush(struct ns_member *m)
{
    while (m->first) {
        int error = send_record(m->fd, m->first->data, m->first->bytes, m->first->fd);

        if (full(error))
            return;
        if (error < 0) {
            ns_member_drop(m);
            return;
        }
        pop(m);
    }
    watch(m);
    m->calls->drained(m);
}

/* ---- in ---- */

/* The descriptor that came, or -1; a second one is closed. The kernel says who has sent it. */
static int take_control(struct ns_member *m, struct msghdr *msg)
{
    int found = -1, fd;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(c), sizeof(who));
            m->pid = who.pid;
            m->uid = who.uid;
            m->gid = who.gid;
        }
        for (size_t at = 0; c->cmsg_type == SCM_RIGHTS && CMSG_LEN(at + sizeof(int)) <= c->cmsg_len;
             at += sizeof(int)) {
            memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
            if (found >= 0)
                close(fd);
            else
                found = fd;
        }
    }
    return found;
}

/* Reads one record. False when there is none, or the member is dropped. */
static bool receive(struct ns_member *m)
{
    uint8_t data[NS_MESSAGE_BYTES_MAX];
    char control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(4 * sizeof(int))];
    struct iovec iov = { data, sizeof(data) };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
    };
    struct ns_message message;
    ssize_t n = recvmsg(m->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int fd;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    fd = n > 0 ? take_control(m, &msg) : -1;
    if (n <= 0 || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || !ns_message_get(data, (size_t)n, &message)) {
        if (fd >= 0)
            close(fd);
        ns_member_drop(m);
        return false;
    }
    if (fd >= 0 && !ns_message_carries(message.type)) {
        close(fd);
        fd = -1;
    }
    m->calls->message(m, &message, fd);
    return !m->closing;
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    struct ns_member *m = poll->data;

    if (status < 0) {
        ns_member_drop(m);
        return;
    }
    for (int i = 0; i < BATCH && receive(m); i++)
        ;
    if (!m->closing && (events & UV_WRITABLE) && m->first)
        flush(m);
}

/* ---- from first to last ---- */

struct ns_member *ns_member_new(uv_loop_t *loop, int fd, const struct ns_member_calls *calls, void *arg)
{
    struct ns_member *m = calloc(1, sizeof(*m));
    int on = 1;

    if (!m || setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ||
        uv_poll_init(loop, &m->poll, fd) < 0) {
        close(fd);
        free(m);
        return NULL;
    }
    m->poll.data = m;
    m->fd = fd;
    m->calls = calls;
    m->arg = arg;
    watch(m);
    return m;
}

static void on_closed(uv_handle_t *handle)
{
    struct ns_member *m = handle->data;

    close(m->fd);
    while (m->first)
        pop(m);
    m->calls->gone(m);
    free(m);
}

void ns_member_drop(struct ns_member *m)
{
    if (m->closing)
        return;
    m->closing = true;
    uv_close((uv_handle_t *)&m->poll, on_closed);
}
