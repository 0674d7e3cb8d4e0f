/*
 * A DNS server for tests, in the test's own network namespace.
 */
#ifndef NS_TESTS_DNSMASQ_H
#define NS_TESTS_DNSMASQ_H

#include <sys/types.h>

/*
 * Starts dnsmasq on 127.0.0.1, port 53, which serves the file `zone` (hosts(5)
 * lines) and says of every other name that there is none. Returns when it
 * serves: its process, which dies with this one at the latest; or -1 if it
 * does not start.
 */
pid_t ns_test_start_dnsmasq(const char *zone);

/* Ends it. */
void ns_test_stop_dnsmasq(pid_t server);

#endif
