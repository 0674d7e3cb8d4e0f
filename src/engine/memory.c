#include "engine/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#define FRONT_BYTES  ((size_t)256 * 1024)
#define REACH_BYTES  ((size_t)2 * 1024 * 1024) /* of one table of pages, the last */
#define ASIDE_BYTES  ((size_t)64 * 1024 * 1024)
#define PAGE_BYTES   ((size_t)4096)
#define SHARED_BYTES ((size_t)384) /* of the table: what begins it, on a page with what lies before */
#define LINE_BYTES   ((size_t)64)

static char *front, *table;
static size_t taken; /* before the table; atomic */

/* `where` is no more than a wish. */
static void *map(void *where, size_t bytes)
{
    void *p = mmap(where, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void *ns_memory_begin(size_t bytes)
{
    /* Aside: what is mapped next, the helper's stack above all, is to lie beside the libraries, in
     * the reach of a table of pages that is there already. */
    uintptr_t aside = (uintptr_t)&front - ASIDE_BYTES;
    char *p = map((void *)(aside - aside % PAGE_BYTES), REACH_BYTES + FRONT_BYTES + bytes);
    if (p) {
        front = p + (REACH_BYTES - (uintptr_t)p % REACH_BYTES) % REACH_BYTES;
        table = front + FRONT_BYTES - SHARED_BYTES;
    }
    return table;
}

/* What is taken first lies next to the table. */
void *ns_memory_near(size_t bytes)
{
    size_t at = __atomic_load_n(&taken, __ATOMIC_RELAXED);
    bytes = (bytes + LINE_BYTES - 1) & ~(LINE_BYTES - 1);
    while (table && bytes <= (size_t)(table - front) - at)
        if (__atomic_compare_exchange_n(&taken, &at, at + bytes, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return table - at - bytes;
    return NULL;
}

void *ns_memory(size_t bytes)
{
    void *p = ns_memory_near(bytes);
    return p ? p : map(NULL, bytes);
}
