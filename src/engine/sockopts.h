/* The application's settings of a socket, carried over to its successor. */
#ifndef NS_ENGINE_SOCKOPTS_H
#define NS_ENGINE_SOCKOPTS_H

/* Some that a socket forgets with its connection: what they are before that. */
#define NS_SOCKOPTS_FORGOTTEN 3
void ns_sockopts_remember(int fd, int values[NS_SOCKOPTS_FORGOTTEN]);

/* Reads each option from `from` and sets what differs on `to`. The kernel is
 * asked, so that settings made around us count as well. `values`: those that
 * `from` had. */
void ns_sockopts_copy(int from, int to, const int values[NS_SOCKOPTS_FORGOTTEN]);

#endif
