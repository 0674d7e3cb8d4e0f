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

/* The same for a connection within the host: not what is about the way that segments take,
 * how they are sent on it or how long one is waited for. */
void ns_sockopts_copy_within(int from, int to);

#endif
