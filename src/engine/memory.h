/* Memory that is never given back. */
#ifndef NS_ENGINE_MEMORY_H
#define NS_ENGINE_MEMORY_H

#include <stddef.h>

/* Reserves `bytes` for the table, once, and some more in front of it. NULL without memory. */
void *ns_memory_begin(size_t bytes);

/* Zeroed, on pages of its own; NULL without memory. Any thread. It comes from in front of
 * the table as long as that lasts: a fork copies one mapping, and one table of its pages,
 * where several would cost it as much as a dozen written pages. */
void *ns_memory(size_t bytes);

#endif
