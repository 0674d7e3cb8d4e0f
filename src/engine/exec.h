/*
 * What exec needs of process.c: what is not settled yet, and what must be delivered
 * before the process is another one.
 */
#ifndef NS_ENGINE_EXEC_H
#define NS_ENGINE_EXEC_H

/* Waits for the answers to HELLO as a first write does, and sends each NEW that is
 * owed. Returns with the table held. */
void ns_offers_settle(void);

/* Waits until no suspended session has bytes that the peer has not, 30 s at most. */
void ns_await_delivered(void);

#endif
