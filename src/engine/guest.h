/*
 * Accepted connections that the application never sees, and the limits on what
 * strangers may cost by them (docs/protocol.md, "Keys"). On the helper.
 *
 * Strangers, leases and exchanges that only ask so far have a table each. When one is
 * full, the oldest of the source that has most in it goes: who fills it pushes out his own.
 */
#ifndef NS_ENGINE_GUEST_H
#define NS_ENGINE_GUEST_H

#include "core/path.h"
#include "core/session.h"
#include "engine/thread.h"

enum ns_guest_state {
    NS_GUEST_FREE,
    NS_GUEST_STRANGER, /* nothing complete has been read */
    NS_GUEST_ANSWERED, /* RESUME_ACK is out, CONFIRM is awaited */
    NS_GUEST_SKIPPING, /* DONE is out; what we had already is being discarded */
    NS_GUEST_OFFERED,  /* a RESUME for none of our sessions: the broker is asked whose it is */
    NS_GUEST_LEASE,    /* HELLO_ACK is out, the connection stands for this process */
};

struct ns_sock;

struct ns_guest {
    struct ns_guest *next, *previous; /* oldest first */
    enum ns_guest_state state;
    bool counted; /* in the table of its state */
    enum {
        NS_PASSED_NOT,
        NS_PASSED_BY_BROKER, /* and not to it again */
        NS_PASSED_BY_FAMILY, /* and no further */
    } passed;
    uint8_t crowd;
    struct ns_address from;
    struct ns_source source;
    struct ns_timer timer;
    struct ns_sock *sock;
    struct ns_exchange exchange;
    uint64_t skip; /* bytes still to be discarded */
    size_t have;
    uint8_t in[NS_PACKET_BYTES_RESUME]; /* no packet that a server takes is longer */
};

extern struct ns_guest *ns_guests; /* the oldest */

/* A stranger on the accepted connection `fd`, which becomes its; not in the
 * table of strangers yet. NULL without memory: `fd` is closed. */
struct ns_guest *ns_guest_new(int fd, void (*ready)(struct ns_source *, uint32_t, struct ns_time),
                              void (*expired)(struct ns_timer *, struct ns_time));

/* Puts it into the table of its state; another may have to go. */
void ns_guest_count(struct ns_guest *g);
/* The one that would, or NULL. */
struct ns_guest *ns_guest_in_the_way(const struct ns_guest *g);

/* It becomes something else, and leaves the table that it is in. */
void ns_guest_become(struct ns_guest *g, enum ns_guest_state state);

/* Its connection is closed, or was taken (source.fd -1). It stays readable, as
 * NS_GUEST_FREE, until the next ns_guest_new. */
void ns_guest_free(struct ns_guest *g);

/* Every lease ends; the helper clears up after it. Any thread. */
void ns_guest_end_leases(void);

void ns_guest_fork_child(void);

#endif
