#include <string.h>

#include "preload/interpose.h"
#include "preload/passing.h"

/* Visits them until one visit fails. */
static int each_descriptor(const struct msghdr *msg, int (*visit)(int fd))
{
    int r = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR((struct msghdr *)msg, c)) {
        size_t n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
            continue;
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n && r == 0; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            r = visit(fd);
        }
    }
    return r;
}

static int leave(int fd)
{
    int r = ns_ours(fd) ? ns_fd_leave(fd, "SCM_RIGHTS") : 0;

    if (r == 0)
        ns_fd_passed(fd);
    return r;
}

static int arrive(int fd)
{
    ns_newborn(fd);
    ns_fd_passed(fd);
    return 0;
}

int ns_passing_sent(const struct msghdr *msg)
{
    if (!ns_ready() || !ns_plausible(msg) || !ns_passing(msg) || !ns_plausible(msg->msg_control))
        return 0;
    return each_descriptor(msg, leave);
}

void ns_passing_received(const struct msghdr *msg)
{
    if (ns_ready() && ns_passing(msg))
        each_descriptor(msg, arrive);
}
