/*
 * Where a session is that this process has not: dormant here (dormant.h), or closed
 * here and another's since. A listener's process is asked for the sessions of all its
 * children, so it goes on watching the shares of those that it had (*witnesses*).
 */
#ifndef NS_ENGINE_WITNESS_H
#define NS_ENGINE_WITNESS_H

#include "engine/estate.h"

enum ns_route {
    NS_ROUTE_NONE,
    NS_ROUTE_LATER, /* it is, or may be, another process's, which cannot be reached yet */
    NS_ROUTE_THERE, /* it is at `mailbox` */
};

/* Where the server's session `id` is. Table held. */
enum ns_route ns_witness_find(const uint8_t id[16], uint8_t mailbox[16]);

/* The share is no more a session's here, but that session may be asked for here. The
 * use of the estate passes on. Table held. */
void ns_witness_bear(struct ns_estate *e, struct ns_share *x);

#endif
