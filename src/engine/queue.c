#include "engine/queue.h"

#include "engine/internal.h"
#include "engine/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

static void count(struct ns_queue *q, uint32_t n)
{
    __atomic_store_n(&q->count, n, __ATOMIC_SEQ_CST);
}

int ns_queue_put(struct ns_queue *q, int fd, const struct ns_name *peer)
{
    sigset_t saved;
    fd = ns_internal(fd);
    if (fd < 0)
        return fd;
    ns_lock_quiet(&q->lock, &saved);
    q->entries[(q->head + q->count) % NS_QUEUE_MAX] = (struct ns_queued){ fd, *peer };
    int n = (int)q->count + 1;
    count(q, (uint32_t)n);
    ns_unlock_quiet(&q->lock, &saved);
    return n;
}

/* Under the lowest number, which may be its own: the last there is. */
static int give_out(int internal, int flags)
{
    int fd = ns_sys_fcntl(internal, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
    if (fd >= 0) {
        ns_internal_close(internal);
    } else if (fd == -EMFILE) {
        fd = internal;
        ns_internal_release(fd);
        if (!(flags & SOCK_CLOEXEC))
            ns_sys_fcntl(fd, F_SETFD, 0);
    }
    return fd;
}

int ns_queue_take(struct ns_queue *q, struct ns_name *peer, int flags)
{
    sigset_t saved;
    int fd = -EAGAIN;
    ns_lock_quiet(&q->lock, &saved);
    if (q->count > 0) {
        struct ns_queued oldest = q->entries[q->head];
        fd = give_out(oldest.fd, flags);
        if (fd >= 0) {
            *peer = oldest.peer;
            q->head = (q->head + 1) % NS_QUEUE_MAX;
            count(q, q->count - 1);
        }
    }
    ns_unlock_quiet(&q->lock, &saved);
    if (fd >= 0 && (flags & SOCK_NONBLOCK))
        ns_sys_fcntl(fd, F_SETFL, ns_sys_fcntl(fd, F_GETFL, 0) | O_NONBLOCK);
    return fd;
}

bool ns_queue_any(struct ns_queue *q, bool (*is)(void *ctx, const struct ns_queued *entry), void *ctx)
{
    sigset_t saved;
    bool any = false;
    ns_lock_quiet(&q->lock, &saved);
    for (uint32_t i = 0; i < q->count && !any; i++)
        any = is(ctx, &q->entries[(q->head + i) % NS_QUEUE_MAX]);
    ns_unlock_quiet(&q->lock, &saved);
    return any;
}

unsigned ns_queue_sift(struct ns_queue *q, uint32_t least, bool (*goes)(void *ctx, const struct ns_queued *entry),
                       void *ctx)
{
    sigset_t saved;
    ns_lock_quiet(&q->lock, &saved);
    uint32_t n = q->count, stayed = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct ns_queued entry = q->entries[(q->head + i) % NS_QUEUE_MAX];
        if (stayed + (n - i) <= least || !goes(ctx, &entry))
            q->entries[(q->head + stayed++) % NS_QUEUE_MAX] = entry;
    }
    count(q, stayed);
    ns_unlock_quiet(&q->lock, &saved);
    return n - stayed;
}

void ns_queue_forget(struct ns_queue *q)
{
    ns_lock_reset(&q->lock);
    q->head = q->count = 0;
}
