/*
 * Network and mount namespaces of a test program's own, so that it can change
 * links and /etc without anybody else noticing.
 */
#ifndef NS_TESTS_NAMESPACE_H
#define NS_TESTS_NAMESPACE_H

#include <stdbool.h>

/* The exit status by which a test program tells Meson that it was skipped. */
#define NS_TEST_SKIPPED 77

/*
 * Moves the process, which must have one thread, into new network and mount
 * namespaces (and a user namespace, unless it is root already), brings
 * loopback up, and puts a file system with nothing but root's account on /etc.
 * All of it is gone with the process and its children. Returns false, having
 * said why, where the system does not permit it.
 */
bool ns_test_enter_namespace(void);

/* Writes a file whole. Anything that goes wrong ends the program. */
void ns_test_write_file(const char *path, const char *text);

/* Runs a command with `sh -c`. Anything but success ends the program. */
void ns_test_run(const char *command);

/* How many descriptors this process has open. */
int ns_test_count_fds(void);

#endif
