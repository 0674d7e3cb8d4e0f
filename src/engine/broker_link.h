/* Between the parts of this process's side of the broker: broker.c has the
 * connection, broker_ask.c what was asked over it, broker_hold.c what is told.
 * All on the helper. */
#ifndef NS_ENGINE_BROKER_LINK_H
#define NS_ENGINE_BROKER_LINK_H

#include "engine/broker.h"

/* Sends a record now, or as soon as there is room. `fd` (or -1) is duplicated if need be.
 * False: there is no connection, or too much waits. */
bool ns_broker_send(const struct ns_message *m, int fd);
/* Whether so little waits that more may be told. */
bool ns_broker_roomy(void);

/* broker_ask.c: an answer has come; the connection has gone. */
void ns_ask_answered(const struct ns_message *m, struct ns_time now);
void ns_ask_lost(struct ns_time now);
void ns_ask_reset(void);

/* broker_hold.c: everything is to be told (again); what had to wait may go on. */
void ns_hold_tell_all(void);
void ns_hold_report(uint32_t serial);
void ns_hold_more(void);

#endif
