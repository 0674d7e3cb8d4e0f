/* The application's settings of a socket, carried over to its successor. */
#ifndef NS_ENGINE_SOCKOPTS_H
#define NS_ENGINE_SOCKOPTS_H

/* Reads each option from `from` and sets what differs on `to`. The kernel is
 * asked, so that settings made around us count as well. */
void ns_sockopts_copy(int from, int to);

#endif
