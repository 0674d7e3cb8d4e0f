#include "engine/backlog.h"

#include "engine/internal.h"
#include "engine/record.h"
#include "engine/sys.h"

#include <errno.h>
#include <fcntl.h>

static bool keep(struct ns_backlog *b, int out, int in)
{
    b->out = ns_internal(out);
    b->in = ns_internal(in);
    if (b->out < 0 || b->in < 0) {
        ns_internal_close(b->out);
        ns_internal_close(b->in);
        return false;
    }
    ns_internal_inherit(b->out);
    ns_internal_inherit(b->in);
    b->open = true;
    return true;
}

bool ns_backlog_open(struct ns_backlog *b)
{
    int pair[2];
    if (b->open || ns_sys_socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return b->open;
    return keep(b, pair[0], pair[1]);
}

static bool is_end(int fd)
{
    int domain = 0;
    socklen_t len = sizeof domain;
    return fd > 2 && ns_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

bool ns_backlog_adopt(struct ns_backlog *b)
{
    b->open = false;
    return is_end(b->out) && is_end(b->in) && keep(b, b->out, b->in);
}

void ns_backlog_close(struct ns_backlog *b)
{
    if (!b->open)
        return;
    b->open = false;
    ns_internal_close(b->out);
    ns_internal_close(b->in);
}

bool ns_backlog_waits(const struct ns_backlog *b)
{
    struct pollfd p = { .fd = b->out, .events = POLLIN };
    return b->open && ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) == 1 && (p.revents & POLLIN);
}

bool ns_backlog_put(const struct ns_backlog *b, int fd, const struct ns_name *peer)
{
    return ns_record_send(b->in, peer, sizeof *peer, &fd, 1) == sizeof *peer;
}

/* With no number free for it, what is taken out would be lost. */
static int number_free(int like)
{
    int fd = ns_sys_fcntl(like, F_DUPFD_CLOEXEC, 0);
    return fd < 0 ? fd : ns_sys_close(fd);
}

int ns_backlog_take(const struct ns_backlog *b, struct ns_name *peer, int flags)
{
    size_t count = 0;
    int fd = number_free(b->out);
    if (fd < 0)
        return fd;
    ssize_t n = ns_record_receive(b->out, peer, sizeof *peer, &fd, 1, &count, NULL);
    if (n < 0 || count == 0)
        return n < 0 ? (int)n : -EMFILE;
    if (peer->length > sizeof peer->address)
        peer->length = sizeof peer->address; /* another process's word */
    if (!(flags & SOCK_CLOEXEC))
        ns_sys_fcntl(fd, F_SETFD, 0);
    if (flags & SOCK_NONBLOCK)
        ns_sys_fcntl(fd, F_SETFL, ns_sys_fcntl(fd, F_GETFL, 0) | O_NONBLOCK);
    return fd;
}
