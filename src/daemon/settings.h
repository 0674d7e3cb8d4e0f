/* The settings that a program has in its environment (nsrun(1)). */
#ifndef NS_DAEMON_SETTINGS_H
#define NS_DAEMON_SETTINGS_H

#include <stddef.h>

/*
 * Looks whether each NAMESOCKET_* is good, and whether the log that they name can be
 * written. Returns 0, or -EINVAL with one line in `error` about the first that is not. A
 * line about each that is no setting goes to `warn`.
 */
int ns_settings_check(char *error, size_t error_bytes, void (*warn)(const char *line));

#endif
