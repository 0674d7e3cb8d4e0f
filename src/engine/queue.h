/*
 * The application's connections that the helper has accepted on the way to something
 * else (listener.h): they wait here until the application accepts. Some of them have said
 * nothing yet, and may turn out to be none of the application's.
 */
#ifndef NS_ENGINE_QUEUE_H
#define NS_ENGINE_QUEUE_H

#include "engine/sock.h"

#define NS_QUEUE_MAX 32

struct ns_queued {
    int fd; /* internal */
    struct ns_name peer;
};

struct ns_queue {
    struct ns_lock lock; /* a leaf: nothing is taken inside it */
    struct ns_queued entries[NS_QUEUE_MAX];
    uint32_t head, count; /* count atomic */
};

/* How many wait. Any thread, no lock. */
static inline uint32_t ns_queue_count(const struct ns_queue *q)
{
    return __atomic_load_n(&q->count, __ATOMIC_SEQ_CST);
}

/* Takes over `fd`; there is room. Returns how many wait now, or a negative errno: `fd` is closed then. */
int ns_queue_put(struct ns_queue *q, int fd, const struct ns_name *peer);

/* The oldest under the lowest free number, with `flags` as accept4 has them; -EAGAIN: there is none. */
int ns_queue_take(struct ns_queue *q, struct ns_name *peer, int flags);

/* Whether `is` holds for one of them; asked with the lock held, so it must not sleep. */
bool ns_queue_any(struct ns_queue *q, bool (*is)(void *ctx, const struct ns_queued *entry), void *ctx);

/* The same, the oldest first: those for which `goes` holds are its own from then on. At least
 * `least` stay. Returns how many have gone. */
unsigned ns_queue_sift(struct ns_queue *q, uint32_t least, bool (*goes)(void *ctx, const struct ns_queued *entry),
                       void *ctx);

/* In a forked child: what waits is the parent's. */
void ns_queue_forget(struct ns_queue *q);

#endif
