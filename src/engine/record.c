#include "engine/record.h"

#include "engine/sys.h"

#include <string.h>

ssize_t ns_record_send(int to, const void *data, size_t bytes, const int *fds, size_t count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(NS_RECORD_FDS * sizeof(int))];
    } control;
    struct iovec iov = { (void *)data, bytes };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    size_t n = 0;
    memset(&control, 0, sizeof control);
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            memcpy(CMSG_DATA(&control.header) + n++ * sizeof *fds, &fds[i], sizeof *fds);
    if (n > 0) {
        control.header =
            (struct cmsghdr){ .cmsg_len = CMSG_LEN(n * sizeof *fds), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(n * sizeof *fds);
    }
    return ns_sys_sendmsg(to, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void take(const struct cmsghdr *c, int *fds, size_t room, size_t *count)
{
    for (size_t at = 0; CMSG_LEN(at + sizeof *fds) <= c->cmsg_len; at += sizeof *fds) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
        if (*count < room)
            fds[(*count)++] = fd;
        else
            ns_sys_close(fd);
    }
}

ssize_t ns_record_receive(int socket, void *data, size_t bytes, int *fds, size_t room, size_t *count, uid_t *from)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(NS_RECORD_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec iov = { data, bytes };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
    };
    *count = 0;
    ssize_t n = ns_sys_recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return n;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        struct ucred who;
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_RIGHTS)
            take(c, fds, room, count);
        if (c->cmsg_type == SCM_CREDENTIALS && c->cmsg_len == CMSG_LEN(sizeof who) && from) {
            memcpy(&who, CMSG_DATA(c), sizeof who);
            *from = who.uid;
        }
    }
    return n;
}
