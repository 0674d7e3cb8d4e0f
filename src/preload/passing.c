#include <string.h>

#include "preload/interpose.h"
#include "preload/passing.h"

static void each_descriptor(const struct msghdr *msg, void (*visit)(int fd))
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR((struct msghdr *)msg, c)) {
        size_t n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
            continue;
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            visit(fd);
        }
    }
}

static void leave(int fd)
{
    if (ns_ours(fd))
        ns_fd_demote(fd, "SCM_RIGHTS");
}

static void arrive(int fd)
{
    ns_newborn(fd);
}

void ns_passing_sent(const struct msghdr *msg)
{
    if (!ns_ready() || !ns_plausible(msg))
        return;
    if (msg->msg_controllen >= CMSG_LEN(sizeof(int)) && ns_plausible(msg->msg_control))
        each_descriptor(msg, leave);
}

void ns_passing_received(const struct msghdr *msg)
{
    if (ns_ready() && msg->msg_controllen >= CMSG_LEN(sizeof(int)))
        each_descriptor(msg, arrive);
}
