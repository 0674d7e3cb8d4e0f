#include "engine/slot.h"

#include "engine/internal.h"
#include "engine/large.h"
#include "engine/memory.h"
#include "engine/quiet.h"
#include "engine/scratch.h"
#include "engine/sys.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/eventfd.h>

/* Slots live in chunks that are never unmapped: others read them at any time. The first is
 * of a program with one thread, and its helper's. */
#define FIRST_SLOTS 2
#define CHUNK_SLOTS 64

struct chunk {
    struct chunk *next;
    int count;
    struct ns_slot slots[];
};

static struct chunk *chunks;
bool ns_quiet; /* quiet.h; here, so that a slot needs no more of the engine */
static pthread_key_t thread_end;
static char no_slot; /* the main thread's value of that key, until it has a slot */
static void (*on_main_leaving)(void);
static __thread struct ns_slot *self __attribute__((tls_model("initial-exec")));

static void release(void *value)
{
    struct ns_slot *slot = value;
    if (ns_sys_gettid() == ns_sys_getpid())
        on_main_leaving();
    if (value == &no_slot)
        return;
    self = NULL;
    ns_scratch_release(slot);
    /* Whoever is about to wake us must not write to what has this number next. */
    __atomic_store_n(&slot->waiting, 0, __ATOMIC_SEQ_CST);
    ns_lock(&slot->wake);
    int wait_fd = slot->wait_fd;
    slot->wait_fd = -1;
    ns_unlock(&slot->wake);
    if (!ns_is_quiet())
        ns_internal_close(wait_fd);
    for (int i = 0; i < NS_SLOT_DEPTH; i++)
        __atomic_store_n(&slot->inside[i], NULL, __ATOMIC_RELEASE);
    __atomic_store_n(&slot->claimed, 0, __ATOMIC_RELEASE);
}

int ns_slots_init(void (*main_leaves)(void))
{
    on_main_leaving = main_leaves;
    return pthread_key_create(&thread_end, release) == 0 && pthread_setspecific(thread_end, &no_slot) == 0 ? 0
                                                                                                         : -EAGAIN;
}

static struct ns_slot *claim_from(struct chunk *chunk)
{
    for (int i = 0; i < chunk->count; i++) {
        struct ns_slot *slot = &chunk->slots[i];
        uint32_t free = 0;
        if (__atomic_compare_exchange_n(&slot->claimed, &free, ns_self(), false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            slot->wait_fd = -1;
            slot->depth = 0;
            return slot;
        }
    }
    return NULL;
}

static struct ns_slot *claim(void)
{
    struct chunk *head = __atomic_load_n(&chunks, __ATOMIC_ACQUIRE);
    for (struct chunk *c = head; c; c = c->next) {
        struct ns_slot *slot = claim_from(c);
        if (slot)
            return slot;
    }
    int count = head ? CHUNK_SLOTS : FIRST_SLOTS;
    struct chunk *c = ns_memory(sizeof *c + (size_t)count * sizeof *c->slots);
    if (!c)
        return NULL;
    c->count = count;
    struct ns_slot *slot = claim_from(c);
    c->next = head;
    while (!__atomic_compare_exchange_n(&chunks, &c->next, c, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
    return slot;
}

struct ns_slot *ns_slot_self(void)
{
    if (__builtin_expect(self != NULL, 1))
        return self;
    int saved = errno;
    self = claim();
    if (self)
        pthread_setspecific(thread_end, self);
    errno = saved;
    return self;
}

NS_EACH_FORK void ns_slots_fork_child(void)
{
    if (!self)
        pthread_setspecific(thread_end, &no_slot); /* it is the main thread now */
    for (struct chunk *c = chunks; c; c = c->next)
        for (int i = 0; i < c->count; i++) {
            struct ns_slot *slot = &c->slots[i];
            if (!slot->claimed)
                continue;
            /* The eventfd is shared with the parent: never read or write it here. */
            if (slot->wait_fd >= 0)
                ns_internal_close(slot->wait_fd);
            slot->wait_fd = -1;
            slot->waiting = 0;
            ns_lock_reset(&slot->wake);
            if (slot == self) {
                slot->claimed = ns_self();
            } else {
                for (int d = 0; d < NS_SLOT_DEPTH; d++)
                    slot->inside[d] = NULL;
                slot->claimed = 0;
            }
        }
}

/*
 * Drops entries that were left by longjmp. On the same stack such a frame lies
 * below ours. A handler on an alternate stack says nothing about the frames of
 * the thread's own stack, so there all of those are kept.
 */
static void drop_stale(struct ns_slot *slot, uintptr_t frame)
{
    uintptr_t low = 0, high = UINTPTR_MAX;
    stack_t alt;
    if (sigaltstack(NULL, &alt) == 0 && (alt.ss_flags & SS_ONSTACK)) {
        low = (uintptr_t)alt.ss_sp;
        high = low + alt.ss_size;
    }
    while (slot->depth > 0) {
        uintptr_t f = slot->frame[slot->depth - 1];
        if (f > frame || f < low || f >= high)
            break;
        __atomic_store_n(&slot->inside[--slot->depth], NULL, __ATOMIC_RELEASE);
    }
}

#define READING 1 /* the lowest bit of an entry; objects are aligned */

static bool enter(struct ns_slot *slot, uintptr_t entry, uintptr_t frame)
{
    if (__builtin_expect(slot->depth > 0, 0)) {
        drop_stale(slot, frame);
        /* So many handlers on top of each other are not to be believed: frames
         * that were left for shallower ones, and cannot be told from live ones. */
        if (slot->depth == NS_SLOT_DEPTH)
            while (slot->depth > 0)
                __atomic_store_n(&slot->inside[--slot->depth], NULL, __ATOMIC_RELEASE);
    }
    uint32_t d = slot->depth;
    slot->frame[d] = frame;
    slot->depth = d + 1;
    /* Sequentially consistent: either we see that the queue was taken over, or
     * whoever takes it over sees us. */
    __atomic_store_n(&slot->inside[d], (const void *)entry, __ATOMIC_SEQ_CST);
    return true;
}

bool ns_slot_enter(struct ns_slot *slot, const void *object)
{
    return enter(slot, (uintptr_t)object, (uintptr_t)__builtin_frame_address(0));
}

bool ns_slot_enter_reading(struct ns_slot *slot, const void *object)
{
    return enter(slot, (uintptr_t)object | READING, (uintptr_t)__builtin_frame_address(0));
}

void ns_slot_reading_over(struct ns_slot *slot)
{
    if (slot->depth == 0)
        return;
    const void **entry = &slot->inside[slot->depth - 1];
    __atomic_store_n(entry, (const void *)((uintptr_t)*entry & ~(uintptr_t)READING), __ATOMIC_RELEASE);
}

void ns_slot_leave(struct ns_slot *slot)
{
    if (slot->depth > 0)
        __atomic_store_n(&slot->inside[--slot->depth], NULL, __ATOMIC_RELEASE);
}

static bool any_entry(uintptr_t entry, uintptr_t mask)
{
    for (struct chunk *c = __atomic_load_n(&chunks, __ATOMIC_ACQUIRE); c; c = c->next)
        for (int i = 0; i < c->count; i++) {
            struct ns_slot *slot = &c->slots[i];
            if (!__atomic_load_n(&slot->claimed, __ATOMIC_ACQUIRE))
                continue;
            for (int d = 0; d < NS_SLOT_DEPTH; d++)
                if (((uintptr_t)__atomic_load_n(&slot->inside[d], __ATOMIC_SEQ_CST) & mask) == entry)
                    return true;
        }
    return false;
}

bool ns_slots_inside(const void *object)
{
    return any_entry((uintptr_t)object, ~(uintptr_t)READING);
}

bool ns_slots_reading(const void *object)
{
    return any_entry((uintptr_t)object | READING, UINTPTR_MAX);
}

size_t ns_slots_readers(const void *object, uint32_t *out, size_t room)
{
    size_t n = 0;
    for (struct chunk *c = __atomic_load_n(&chunks, __ATOMIC_ACQUIRE); c; c = c->next)
        for (int i = 0; i < c->count; i++) {
            struct ns_slot *slot = &c->slots[i];
            uint32_t thread = __atomic_load_n(&slot->claimed, __ATOMIC_ACQUIRE);
            bool reads = false;
            for (int d = 0; thread && d < NS_SLOT_DEPTH && !reads; d++)
                reads = (uintptr_t)__atomic_load_n(&slot->inside[d], __ATOMIC_SEQ_CST) == ((uintptr_t)object | READING);
            if (reads && n++ < room)
                out[n - 1] = thread;
        }
    return n;
}

int ns_slot_wait_prepare(struct ns_slot *slot)
{
    if (slot->wait_fd < 0) {
        int fd = ns_sys_eventfd2(0, EFD_CLOEXEC);
        if (fd < 0)
            return fd;
        slot->wait_fd = ns_internal(fd);
    }
    __atomic_store_n(&slot->waiting, 1, __ATOMIC_SEQ_CST);
    /* What an earlier wait left behind is taken away: once `waiting` is seen, a
     * wake may come at any time, and what it is about is looked at after this. */
    if (__builtin_expect(__atomic_exchange_n(&slot->signalled, 0, __ATOMIC_SEQ_CST), 0)) {
        uint64_t count;
        struct pollfd p = { .fd = slot->wait_fd, .events = POLLIN };
        if (ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) == 1)
            ns_sys_read(slot->wait_fd, &count, sizeof count);
    }
    return slot->wait_fd;
}

void ns_slot_wait_finish(struct ns_slot *slot)
{
    uint64_t one = 1;
    /* A handler waited on top of a wait: its wake may have been for both. */
    if (slot->depth > 1) {
        __atomic_store_n(&slot->signalled, 1, __ATOMIC_SEQ_CST);
        ns_sys_write(slot->wait_fd, &one, sizeof one);
    } else
        __atomic_store_n(&slot->waiting, 0, __ATOMIC_SEQ_CST);
}

/* What was written while the thread was past waiting, the next wait takes away. */
static void wake(struct ns_slot *slot)
{
    uint64_t one = 1;
    ns_lock(&slot->wake);
    if (slot->wait_fd >= 0) {
        __atomic_store_n(&slot->signalled, 1, __ATOMIC_SEQ_CST);
        ns_sys_write(slot->wait_fd, &one, sizeof one);
    }
    ns_unlock(&slot->wake);
}

void ns_slot_poke(void)
{
    struct ns_slot *slot = self;
    if (slot && __atomic_load_n(&slot->waiting, __ATOMIC_RELAXED))
        wake(slot);
}

void ns_slots_wake(void)
{
    for (struct chunk *c = __atomic_load_n(&chunks, __ATOMIC_ACQUIRE); c; c = c->next)
        for (int i = 0; i < c->count; i++)
            if (__atomic_load_n(&c->slots[i].waiting, __ATOMIC_SEQ_CST))
                wake(&c->slots[i]);
}
