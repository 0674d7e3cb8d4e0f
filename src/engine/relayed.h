/*
 * What a process keeps of a session that a relay has (joint.h): its descriptors lead to the
 * relay, by a connection that the kernel alone looks after, as it does with any that two
 * processes share. Nothing of ours stands in the way of a call on it but where it would tell
 * whose connection that is: getsockname(2) and getpeername(2) tell the session's ends.
 */
#ifndef NS_ENGINE_RELAYED_H
#define NS_ENGINE_RELAYED_H

#include "engine/sock.h"

/* Puts `end` under the descriptors of a session, whose local and peer are known, and which is
 * one no more. `end` stays the caller's. Table held; if the session is awake, rx and tx, too,
 * and on the helper. */
void ns_relayed_put(struct ns_sock *s, int end);

/* What stands at `fd`, or NULL. */
static inline struct ns_sock *ns_relayed_at(int fd)
{
    struct ns_object *o = ns_object_at(fd);
    return o && ns_object_kind(o) == NS_KIND_RELAYED ? (struct ns_sock *)o : NULL;
}

/* The same for a new object, to which descriptors that the program before had are put. Table held. */
void ns_relayed_found(struct ns_sock *s, enum ns_role role, const struct ns_name *local, const struct ns_name *peer);

/* In a forked child: it has it, too. */
void ns_relayed_inherit(struct ns_sock *s);

#endif
