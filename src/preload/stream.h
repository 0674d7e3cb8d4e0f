/* Streams on sessions (stdio.c), and the three that are there already (standard.c). */
#ifndef NS_PRELOAD_STREAM_H
#define NS_PRELOAD_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A cookie is the descriptor's number, not null. */
static inline void *ns_stream_cookie(int fd)
{
    return (void *)(uintptr_t)((unsigned)fd + 1);
}

static inline int ns_stream_number(const void *cookie)
{
    return (int)((uintptr_t)cookie - 1);
}

/* A stream on `fd`, as fopencookie(3) takes `mode`; `reads` in place of the usual
 * function. NULL with errno. */
FILE *ns_stream_open(int fd, const char *mode, cookie_read_function_t *reads);

/* Whether ns_stream_open made it. */
bool ns_stream_ours(const FILE *f);

/* Writes what they hold, at exit. */
void ns_streams_flush(void);

/*
 * A session has come to stand under `fd`, which may be 0, 1 or 2: the standard
 * stream is then one of ours. Where the old one is known to others, the session
 * becomes plain TCP.
 */
void ns_std_adopt(int fd);

static inline void ns_std_check(int fd)
{
    if (__builtin_expect((unsigned)fd <= 2, 0))
        ns_std_adopt(fd);
}

/* Around fclose of a stream: whether it stands for a standard one; then it no longer does. */
bool ns_std_closing(const FILE *f);
void ns_std_closed(const FILE *f);

#endif
