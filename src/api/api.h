/* What the files of the library share. Not installed. */
#ifndef NS_API_API_H
#define NS_API_API_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Starts the engine at its first call; any thread. False: nothing is protected
 * in this process and the engine must not be called, because there is no
 * memory for it or because libnsshim.so is loaded and has an engine of its own.
 */
bool ns_api_start(void);

/* Whether ns_api_start has returned true. Never starts anything. Any thread. */
bool ns_api_started(void);

/*
 * The library's boundary to POSIX: a result that is negative becomes -1 with
 * errno set to its opposite; others are returned as they are.
 */
ssize_t ns_api_result(ssize_t result);

/*
 * Finds the port (host order) of a service in text, a decimal number or a name in
 * services(5) (thesis 5.1.1). Returns 0, or -EINVAL when it is neither.
 */
int ns_api_port(const char *service, uint16_t *port);

/*
 * What ns_connect_name does, without a session, over libc alone: tries the
 * addresses of `host` one after the other on `fd` itself. Returns as it does.
 */
int ns_api_connect_plain(int fd, const char *host, uint16_t port);

#endif
