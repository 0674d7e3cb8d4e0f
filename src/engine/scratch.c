#include "engine/scratch.h"

#include "engine/sys.h"

#include <sys/mman.h>

/* Blocks of the usual size are kept for the next call, since the kernel's zeroing
 * of new pages costs as much as copying them. */
#define USUAL_BYTES (256 * 1024)
#define KEPT        4

static void *kept[KEPT]; /* atomic */

static void *take_kept(void)
{
    void *p = NULL;
    for (int i = 0; i < KEPT && !p; i++)
        if (__atomic_load_n(&kept[i], __ATOMIC_RELAXED))
            p = __atomic_exchange_n(&kept[i], NULL, __ATOMIC_ACQUIRE);
    return p;
}

static bool keep(void *p)
{
    for (int i = 0; i < KEPT; i++) {
        void *none = NULL;
        if (__atomic_compare_exchange_n(&kept[i], &none, p, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return true;
    }
    return false;
}

static void give_back(struct ns_scratch *s)
{
    struct ns_scratch gone = *s;
    s->memory = NULL;
    if (gone.memory && !(gone.bytes == USUAL_BYTES && keep(gone.memory)))
        munmap(gone.memory, gone.bytes);
}

/* The innermost entry is the caller's. */
static struct ns_scratch *own(struct ns_slot *slot)
{
    return &slot->scratch[slot->depth - 1];
}

void *ns_scratch(struct ns_slot *slot, size_t bytes)
{
    struct ns_scratch *s = own(slot);
    if (bytes < USUAL_BYTES)
        bytes = USUAL_BYTES;
    if (s->memory && s->bytes >= bytes)
        return s->memory;
    give_back(s);
    void *p = bytes == USUAL_BYTES ? take_kept() : NULL;
    if (!p)
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    s->bytes = bytes;
    return s->memory = p;
}

void ns_scratch_drop(struct ns_slot *slot)
{
    give_back(own(slot));
}

void ns_scratch_release(struct ns_slot *slot)
{
    for (int i = 0; i < NS_SLOT_DEPTH; i++)
        give_back(&slot->scratch[i]);
}
