#include "core/ring.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>

/*
 * The memory of one ring that has ended, of the size that each begins with: for the next, so
 * that a connection which is soon over costs no mapping. Atomic.
 */
static uint8_t *spare;

static uint8_t *take_pages(size_t bytes)
{
    uint8_t *kept = bytes == NS_RING_FIRST_BYTES ? __atomic_exchange_n(&spare, NULL, __ATOMIC_ACQ_REL) : NULL;

    if (kept)
        return kept;
    int saved = errno;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    errno = saved;
    return p == MAP_FAILED ? NULL : p;
}

static void give_pages_back(uint8_t *data, size_t bytes)
{
    int saved = errno;
    uint8_t *none = NULL;

    if (data && bytes == NS_RING_FIRST_BYTES &&
        __atomic_compare_exchange_n(&spare, &none, data, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    if (data)
        munmap(data, bytes);
    errno = saved;
}

/* The smallest capacity allowed that holds `bytes`; 0 when it would exceed the limit. */
static size_t capacity_for(size_t bytes, size_t limit_bytes)
{
    size_t capacity = NS_RING_FIRST_BYTES;

    while (capacity < bytes && capacity <= limit_bytes / 2)
        capacity *= 2;
    return capacity >= bytes && capacity <= limit_bytes ? capacity : 0;
}

static size_t position(const struct ns_ring *r, uint64_t offset)
{
    return (size_t)(offset - r->base) & (r->capacity - 1);
}

void ns_ring_init(struct ns_ring *r, uint64_t offset)
{
    *r = (struct ns_ring){ .tail = offset, .head = offset };
}

void ns_ring_destroy(struct ns_ring *r)
{
    give_pages_back(r->data, r->mapped);
    ns_ring_init(r, 0);
}

/* Within what is mapped: bytes that had gone on at the beginning follow the others. */
static void widen(struct ns_ring *r, size_t capacity)
{
    size_t at = position(r, r->tail), first = r->capacity - at, used = ns_ring_used(r);

    if (used > first)
        memcpy(r->data + r->capacity, r->data, used - first);
    r->base = r->tail - at;
    r->capacity = capacity;
}

int ns_ring_reserve(struct ns_ring *r, size_t bytes, size_t limit_bytes)
{
    size_t used = ns_ring_used(r);

    if (bytes <= ns_ring_free(r))
        return 0;
    if (bytes > SIZE_MAX - used)
        return -EFBIG;
    size_t capacity = capacity_for(used + bytes, limit_bytes);
    if (capacity == 0)
        return -EFBIG;
    if (capacity <= r->mapped) {
        widen(r, capacity);
        return 0;
    }
    struct ns_ring grown = {
        .capacity = capacity, .mapped = capacity, .base = r->base, .tail = r->tail, .head = r->tail
    };
    grown.data = take_pages(grown.mapped);
    if (!grown.data)
        return -ENOMEM;

    struct iovec held[2];
    int pieces = ns_ring_get(r, r->tail, held);
    for (int i = 0; i < pieces; i++)
        ns_ring_put(&grown, held[i].iov_base, held[i].iov_len);
    give_pages_back(r->data, r->mapped);
    *r = grown;
    return 0;
}

void ns_ring_put_wrapped(struct ns_ring *r, const void *bytes, size_t len)
{
    assert(len <= ns_ring_free(r));
    size_t at = position(r, r->head);
    size_t first = r->capacity - at;

    memcpy(r->data + at, bytes, first);
    memcpy(r->data, (const uint8_t *)bytes + first, len - first);
    r->head += len;
}

void ns_ring_trim(struct ns_ring *r, uint64_t to)
{
    assert(to <= r->head);
    if (to > r->tail)
        r->tail = to;
}

void ns_ring_narrow(struct ns_ring *r)
{
    size_t used = ns_ring_used(r);

    if (r->capacity <= NS_RING_FIRST_BYTES || used > r->capacity / 8)
        return;
    size_t at = position(r, r->tail);
    if (used > r->capacity - at)
        return; /* in two pieces: the next time */
    memmove(r->data, r->data + at, used);
    r->base = r->tail;
    r->capacity = capacity_for(2 * used, r->capacity);
}

int ns_ring_get(const struct ns_ring *r, uint64_t from, struct iovec out[2])
{
    assert(from >= r->tail && from <= r->head);
    size_t len = (size_t)(r->head - from);
    if (len == 0)
        return 0;

    size_t at = position(r, from);
    size_t first = r->capacity - at;
    if (len <= first) {
        out[0] = (struct iovec){ r->data + at, len };
        return 1;
    }
    out[0] = (struct iovec){ r->data + at, first };
    out[1] = (struct iovec){ r->data, len - first };
    return 2;
}

void ns_ring_release(struct ns_ring *r)
{
    if (r->head != r->tail)
        return;
    give_pages_back(r->data, r->mapped);
    r->data = NULL;
    r->capacity = r->mapped = 0;
}
