/*
 * The thesis's logging facility (5.1.4): three levels, one line format,
 *
 *   Info: 646 - Thu Dec  9 01:53:25 1999 - Successfully resumed at server
 *
 * The number is the process's. Where lines go, which process this is and what
 * time it is are the caller's to say, in a struct ns_log.
 *
 * ns_log and ns_log_error may be called from any thread and from a signal
 * handler, as far as the sink and the clock may: they do not allocate, take no
 * lock, use the stack only (under 2 KiB, vsnprintf apart), and leave errno
 * alone. Formats with floating point or wide characters are not for them.
 */
#ifndef NS_CORE_LOG_H
#define NS_CORE_LOG_H

#include "core/time.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In order of decreasing urgency. */
enum ns_log_level {
    NS_LOG_ERROR,
    NS_LOG_INFO,
    NS_LOG_DEBUG,
};

/* The longest line, newline and NUL included. A longer one ends in "...". */
#define NS_LOG_LINE_BYTES 1024

struct ns_log {
    enum ns_log_level level; /* lines of this urgency and more urgent ones are written */
    /*
     * Gets each line, borrowed for the call: `bytes` bytes of which the last is
     * the only newline, then a NUL. NULL: nothing is logged.
     */
    void (*sink)(void *ctx, enum ns_log_level level, const char *line, size_t bytes);
    int64_t (*wall_us)(void *ctx); /* microseconds since 1970-01-01 00:00 UTC; NULL: always that moment */
    void *ctx;                     /* passed to both */
    int32_t utc_offset_s;          /* local time less UTC */
    const int32_t *pid; /* not owned, so that a fork changes nothing here; NULL: 0 */
    bool microseconds; /* 01:53:25.000000 in place of the thesis's 01:53:25 */
};

/* Whether a line of `level` would be written: spare yourself its arguments. */
static inline bool ns_log_wanted(const struct ns_log *log, enum ns_log_level level)
{
    return log && log->sink && level <= log->level;
}

/*
 * Writes one line. A newline at the end of the text is not needed and not
 * doubled; other control characters become '?', so that a line stays a line
 * whatever a peer sends. `log` may be NULL: nothing is written.
 */
void ns_log(const struct ns_log *log, enum ns_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * The thesis's logerror: `what`, and the error's description. `errnum` is an
 * errno, positive or negated. ns_log_error(log, NS_LOG_ERROR, "connect",
 * -EHOSTUNREACH) writes "connect: No route to host".
 */
void ns_log_error(const struct ns_log *log, enum ns_log_level level, const char *what, int errnum);

/* "Error", "Info" or "Debug". Static. */
const char *ns_log_level_name(enum ns_log_level level);

/*
 * A token bucket, for lines that a peer can provoke: at most NS_LOG_BURST at
 * once and one in NS_LOG_INTERVAL_MS over time. All zero is a full bucket.
 * Not locked.
 */
#define NS_LOG_BURST       5
#define NS_LOG_INTERVAL_MS 1000

struct ns_log_limit {
    struct ns_time full; /* when the bucket is full again */
    uint32_t suppressed; /* lines not allowed since the last one that was */
};

/*
 * Takes a token. True: write the line; the caller may say how many were
 * suppressed before it, and must then set limit->suppressed to 0. False: do not.
 */
bool ns_log_allowed(struct ns_log_limit *limit, struct ns_time now);

#endif
