/* Shared by the parts of the sweep (check_preload_sweep.c). */
#ifndef NS_TESTS_CHECK_PRELOAD_SWEEP_H
#define NS_TESTS_CHECK_PRELOAD_SWEEP_H

#include <errno.h>

extern const char *sweep_kind; /* of descriptor, or of call, that is being swept */

void sweep_note(const char *what, long r, int error);

#define SHOW(call)                                                                                         \
    ((void)({                                                                                              \
        long shown_;                                                                                       \
                                                                                                           \
        errno = 0;                                                                                         \
        shown_ = (long)(call);                                                                             \
        sweep_note(#call, shown_, errno);                                                                  \
    }))

void sweep_signals(void);

#endif
