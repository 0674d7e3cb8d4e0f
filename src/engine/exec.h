/*
 * What exec needs of process.c: what is not settled yet, and what must be delivered
 * before the process is another one.
 */
#ifndef NS_ENGINE_EXEC_H
#define NS_ENGINE_EXEC_H

#include <stdbool.h>

/* Waits for the answers to HELLO as a first write does, and sends each NEW that is
 * owed. Returns with the table held. */
void ns_offers_settle(void);

/* Has what the peer lacks delivered (remains.h), or waits for that, 30 s at most. `by_exec`: what
 * the next program inherits stays here. */
void ns_await_delivered(bool by_exec);

#endif
