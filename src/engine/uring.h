/* Whether the process sends and receives where nobody sees it. */
#ifndef NS_ENGINE_URING_H
#define NS_ENGINE_URING_H

#include <stdbool.h>

/*
 * Whether it has an io_uring(7), however that was made: liburing makes bare system
 * calls, but the rings are mapped. What is asked of one goes past every function of
 * libc's, and what sleeps in one cannot be woken by us. Reads /proc/self/maps; any thread.
 */
bool ns_uring_here(void);

#endif
