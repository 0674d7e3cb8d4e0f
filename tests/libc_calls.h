/*
 * Definitions of the libc functions that the shim interposes and that c-ares
 * is built to call (socket, connect, close, recvfrom, send, setsockopt,
 * getsockname, fopen). They do what libc's do, and count. A program that is
 * linked with this file calls these instead of libc's own, as it would the
 * shim's; what is to stay away from the shim must stay away from these.
 */
#ifndef NS_TESTS_LIBC_CALLS_H
#define NS_TESTS_LIBC_CALLS_H

#include <stdbool.h>

/* Calls are counted from true to false. Calls of other threads count too. */
void ns_test_watch_libc(bool watch);

/* How many there have been while watched. */
int ns_test_libc_calls(void);

#endif
