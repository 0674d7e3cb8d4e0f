/* Two connected TCP sockets in this host, the second of which may be somebody else's. */
#ifndef NS_ENGINE_LOOPBACK_H
#define NS_ENGINE_LOOPBACK_H

/* `family`: AF_INET or AF_INET6. Internal descriptors; returns 0 or a negative errno: there is no
 * loopback interface that is up, or no port left. Nobody else is at either end. */
int ns_loopback_pair(int family, int ends[2]);

#endif
