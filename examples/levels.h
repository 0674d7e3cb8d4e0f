/* The option -l of nsserver and nsclient. */
#ifndef LEVELS_H
#define LEVELS_H

#include <namesocket.h>
#include <string.h>

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

#endif
