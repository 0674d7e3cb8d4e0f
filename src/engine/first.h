/* The server's first bytes on an accepted connection: NEW, or the application's. */
#ifndef NS_ENGINE_FIRST_H
#define NS_ENGINE_FIRST_H

#include "engine/sock.h"

enum ns_first {
    NS_FIRST_KNOWN,   /* was settled before */
    NS_FIRST_NOTHING, /* nothing is here yet */
    NS_FIRST_PARTIAL, /* part of what may be a NEW; look again within milliseconds */
    NS_FIRST_NEW,     /* a NEW was taken off the stream: the caller calls ns_sock_born */
    NS_FIRST_PLAIN,   /* the application's own bytes: the caller calls ns_sock_forget */
};

/* Looks, without blocking; rx held, state NS_AWAITING. */
enum ns_first ns_first_bytes(struct ns_sock *s, int fd);

/* Settles what can be settled for a descriptor of a session that may await its
 * first bytes, so that a wait does not report NEW as data. No lock held.
 * Returns whether the session still awaits them. */
bool ns_first_settle(struct ns_sock *s, int fd);

#endif
