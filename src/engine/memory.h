/* Memory that is never given back. */
#ifndef NS_ENGINE_MEMORY_H
#define NS_ENGINE_MEMORY_H

#include <stddef.h>

/* Reserves `bytes` for the table, once, and some more in front of it. NULL without memory. */
void *ns_memory_begin(size_t bytes);

/* Zeroed, on a cache line of its own; NULL without memory. Any thread. It comes from in front
 * of the table as long as that lasts: a fork copies one mapping, and one table of its pages,
 * where several would cost it as much as a dozen written pages. */
void *ns_memory(size_t bytes);

/* The same, or NULL where that would not be in front of the table. What is taken first shares a
 * page with the table's first entries, so that of what each connection writes a fork copies little. */
void *ns_memory_near(size_t bytes);

#endif
