#include "engine/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define FRONT_BYTES ((size_t)256 * 1024)
#define REACH_BYTES ((size_t)2 * 1024 * 1024) /* of one table of pages, the last */

static char *front;
static size_t taken; /* of it; atomic */

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void *ns_memory_begin(size_t bytes)
{
    char *p = map(REACH_BYTES + FRONT_BYTES + bytes);
    if (p)
        front = p + (REACH_BYTES - (uintptr_t)p % REACH_BYTES) % REACH_BYTES;
    return front ? front + FRONT_BYTES : NULL;
}

void *ns_memory(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t at = __atomic_load_n(&taken, __ATOMIC_RELAXED);
    bytes = (bytes + page - 1) & ~(page - 1);
    while (front && bytes <= FRONT_BYTES - at)
        if (__atomic_compare_exchange_n(&taken, &at, at + bytes, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return front + at;
    return map(bytes);
}
