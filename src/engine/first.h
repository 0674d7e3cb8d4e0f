/* The server's first bytes on an accepted connection: NEW, or the application's. */
#ifndef NS_ENGINE_FIRST_H
#define NS_ENGINE_FIRST_H

#include "engine/sock.h"

enum ns_first {
    NS_FIRST_KNOWN,   /* was settled before */
    NS_FIRST_NOTHING, /* nothing is here yet */
    NS_FIRST_PARTIAL, /* part of what may be a NEW; look again within milliseconds */
    NS_FIRST_STALLED, /* the same, but the kernel reports no input before there is more, or time is up */
    NS_FIRST_NEW,     /* a NEW was taken off the stream: the caller calls ns_sock_born */
    NS_FIRST_PLAIN,   /* the application's own bytes: the caller calls ns_sock_forget */
    NS_FIRST_GUEST,   /* HELLO or RESUME that came later than accept(2) looked */
    NS_FIRST_LONE_N,  /* HELLO without its urgency, or all that an application says */
};

/* How long what begins like NEW and stalls is kept from the application. */
#define NS_STALL_MS 200

/* Looks, without blocking; rx held, state NS_AWAITING. What is found has to be followed. */
enum ns_first ns_first_bytes(struct ns_sock *s, int fd);
void ns_first_follow(struct ns_sock *s, int fd, enum ns_first first); /* rx not held */

/* Both, for a descriptor of a session that may await its first bytes, so that a
 * wait does not report NEW as data. The table lock may be held, no other. */
enum ns_first ns_first_settle(struct ns_sock *s, int fd);

static inline bool ns_first_awaited(enum ns_first first)
{
    return first == NS_FIRST_NOTHING || first == NS_FIRST_PARTIAL || first == NS_FIRST_STALLED;
}

/* Input is reported as the application asked for, although a part of NEW is
 * here: the descriptor goes where nobody waits for the rest. No lock held. */
void ns_first_release(struct ns_sock *s, int fd);

/* On the helper: NS_TODO_STALLED. */
void ns_first_stalled(struct ns_sock *s);

/*
 * Whether a NEW for session `id` is in the receive queue of a connection whose
 * first bytes nobody has read yet; then it is taken off. Table held.
 */
bool ns_first_find(const uint8_t id[16]);

/* Whether the only byte of `fd` is urgent, as HELLO's. Any lock may be held. */
bool ns_first_urgent(int fd);

/*
 * Whether another connection from where `fd` comes from awaits its first bytes in this process, as
 * one does whose client asks by HELLO. No lock held but the table's, and leaves.
 */
bool ns_first_beside(int fd);

/* Whether a whole NEW is what comes first. */
bool ns_first_new(int fd);

/* Whether that is what the connection `fd` begins with. */
bool ns_first_names(int fd, const uint8_t id[16]);

#endif
