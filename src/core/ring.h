/*
 * The retransmission buffer: the application's own bytes, by 64-bit stream
 * offset, from the oldest that the peer may still lack to the newest written.
 * Thesis 5.1.3 (its circular buffer, with offsets in place of its counters, and
 * grown to need in place of a fixed size that overwrites).
 *
 * The byte at offset o sits at data[(o - base) % capacity]; capacity is 0 or a
 * power of two, and may be less than what is mapped. Memory comes straight from mmap and goes back by munmap: a send may
 * happen in a signal handler, so malloc is never entered, and an idle session
 * returns all of it.
 *
 * Nothing here locks; the caller serialises calls on one ring. Nothing here
 * changes errno. All functions are async-signal-safe.
 */
#ifndef NS_CORE_RING_H
#define NS_CORE_RING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

/* The first allocation. */
#define NS_RING_FIRST_BYTES ((size_t)64 << 10)

struct ns_ring {
    uint8_t *data;   /* owned; NULL while capacity is 0 */
    size_t capacity; /* bytes in use, from the beginning of data */
    size_t mapped;   /* bytes owned */
    uint64_t base;   /* an offset that sits at the beginning of data */
    uint64_t tail;   /* offset of the oldest byte held */
    uint64_t head;   /* offset after the newest: the next byte's */
};

/* An empty ring at `offset`. Takes no memory. */
void ns_ring_init(struct ns_ring *r, uint64_t offset);

/* Gives the memory back, whatever it holds. The ring is then empty at offset 0. */
void ns_ring_destroy(struct ns_ring *r);

/* How many bytes are held. */
static inline size_t ns_ring_used(const struct ns_ring *r)
{
    return (size_t)(r->head - r->tail);
}

/* How many bytes can be put without growing. */
static inline size_t ns_ring_free(const struct ns_ring *r)
{
    return r->capacity - ns_ring_used(r);
}

/*
 * Makes room for `bytes` more, so that ns_ring_put of as many may follow.
 * Capacity never grows beyond `limit_bytes`: a limit that is no power of two
 * counts as the next lower one. Room that is there already is granted whatever
 * the limit. Returns 0, -EFBIG (over the limit), or -ENOMEM. After an error the
 * ring is as it was.
 */
int ns_ring_reserve(struct ns_ring *r, size_t bytes, size_t limit_bytes);

/* ns_ring_put where the bytes cross the end of the buffer. Not for callers. */
void ns_ring_put_wrapped(struct ns_ring *r, const void *bytes, size_t len);

/* Copies `len` bytes to the head. There must be room (ns_ring_free). */
static inline void ns_ring_put(struct ns_ring *r, const void *bytes, size_t len)
{
    size_t at = (r->head - r->base) & (r->capacity - 1);

    if (len == 0)
        return;
    if (len > r->capacity - at) {
        ns_ring_put_wrapped(r, bytes, len);
        return;
    }
    memcpy(r->data + at, bytes, len);
    r->head += len;
}

/*
 * Forgets what lies below offset `to`; nothing when `to` is below the tail
 * already. `to` must not lie above the head (asserted: that byte was never sent).
 * Keeps the memory.
 */
void ns_ring_trim(struct ns_ring *r, uint64_t to);

/*
 * Goes back to the beginning of the memory, and uses less of it, if the ring holds
 * little for its size: a peak has passed. What is written next then goes where the
 * caches still hold what was there. Keeps the memory for the next peak. Takes
 * pieces (ns_ring_get) back.
 */
void ns_ring_narrow(struct ns_ring *r);

/*
 * The bytes from offset `from` to the head, in order, in up to two pieces.
 * `from` must lie within tail..head (asserted). Returns the number of pieces set,
 * 0 to 2. They are borrowed, until the next reserve, trim, release or destroy.
 */
int ns_ring_get(const struct ns_ring *r, uint64_t from, struct iovec out[2]);

/* Gives the memory back if the ring is empty. The offsets stay. */
void ns_ring_release(struct ns_ring *r);

#endif
