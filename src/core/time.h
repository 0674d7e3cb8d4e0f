/* A point in monotonic time, or a span of it. The core is told the time; it never asks. */
#ifndef NS_CORE_TIME_H
#define NS_CORE_TIME_H

#include <stdbool.h>
#include <stdint.h>

struct ns_time {
    int64_t ns;
};

#define NS_NEVER ((struct ns_time){ INT64_MAX })

static inline struct ns_time ns_time_ms(int64_t ms)
{
    return (struct ns_time){ ms * 1000000 };
}

static inline struct ns_time ns_time_add(struct ns_time a, struct ns_time b)
{
    if (a.ns == INT64_MAX || b.ns == INT64_MAX)
        return NS_NEVER;
    return (struct ns_time){ a.ns + b.ns };
}

static inline struct ns_time ns_time_sub(struct ns_time a, struct ns_time b)
{
    return (struct ns_time){ a.ns - b.ns };
}

static inline bool ns_time_before(struct ns_time a, struct ns_time b)
{
    return a.ns < b.ns;
}

static inline struct ns_time ns_time_min(struct ns_time a, struct ns_time b)
{
    return ns_time_before(a, b) ? a : b;
}

#endif
