/* The option -l of nsserver and nsclient. */
#ifndef LEVELS_H
#define LEVELS_H

#include <namesocket.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Returns 0, or -1 when `text` is no level. */
static inline int parse_level(const char *text, int *level)
{
    static const struct {
        const char *name;
        int level;
    } levels[] = {
        { "none", NAMESOCKET_LOG_NONE },
        { "error", NAMESOCKET_LOG_ERROR },
        { "info", NAMESOCKET_LOG_INFO },
        { "debug", NAMESOCKET_LOG_DEBUG },
    };
    size_t i;

    for (i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (strcmp(text, levels[i].name) == 0) {
            *level = levels[i].level;
            return 0;
        }
    }
    return -1;
}

/* Says what is wrong with the option that getopt(3) gave as `c`, in place of its own message, and
 * what to do about it. Returns the exit status. */
static inline int bad_option(const char *program, int c)
{
    if (c == 'l')
        fprintf(stderr, "%s: '%s' is not a log level; write none, error, info or debug\n", program, optarg);
    else if (optopt == 'l')
        fprintf(stderr, "%s: option -l needs a log level: none, error, info or debug\n", program);
    else
        fprintf(stderr, "%s: unknown option -%c; see %s -h\n", program, optopt, program);
    return 2;
}

#endif
