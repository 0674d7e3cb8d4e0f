/*
 * What a protected descriptor stands for: one session on whatever connection it
 * has, or one listener. And the table from descriptor to it.
 *
 * Fields are written under the lock named beside them; `helper` means by the
 * helper thread only. Objects come from memory that is never unmapped or used
 * for anything else, so that a thread with a stale pointer can still take its
 * lock and then find, by the table, that it is too late.
 */
#ifndef NS_ENGINE_SOCK_H
#define NS_ENGINE_SOCK_H

#include "core/path.h"
#include "core/session.h"
#include "core/time.h"
#include "engine/lock.h"
#include "engine/slot.h"
#include "engine/socket.h"
#include "engine/sockopts.h"
#include "engine/thread.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/types.h>

enum ns_kind {
    NS_KIND_FREE,
    NS_KIND_SOCK,
    NS_KIND_LISTENER,
    NS_KIND_DORMANT, /* a session that another process may have: struct ns_sock, see dormant.h */
    NS_KIND_EPOLL, /* an epoll descriptor that has sessions or listeners in it */
    NS_KIND_RELAYED, /* a connection to who has the session: struct ns_sock, see relayed.h */
    NS_KIND_GOING,   /* a session of which it is not known yet whether another has it: the same, see joint.h */
};

struct ns_watch; /* watch.h */

struct ns_object {
    enum ns_kind kind;
    int fd;                   /* one of its descriptors, -1 when none is left; table, atomic */
    uint32_t fds;             /* how many descriptors; table */
    ino_t inode;              /* of the socket under them; table */
    struct ns_watch *watches; /* its epoll registrations, or those in it; table */
    struct ns_object *next, *previous; /* all objects; table */
};

/* The addresses of one end, as getsockname(2) and getpeername(2) tell them. There
 * are six in a session: room for TCP's own, the longer of which is IPv6's. */
struct ns_name {
    struct sockaddr_in6 address;
    socklen_t length;
};

/* Asks the kernel for one end, unless it is known; `ask` is ns_sys_getsockname
 * or ns_sys_getpeername. Returns whether it is known. */
bool ns_name_learn(struct ns_name *name, int fd, int (*ask)(int, struct sockaddr *, socklen_t *));

struct ns_estate;   /* estate.h */
struct ns_share;
struct ns_recovery; /* recovery.h: the paths being tried */

/* What detection remembers of a session; helper. */
struct ns_pulse {
    uint64_t acknowledged, received; /* the kernel's counters at the last look */
    struct ns_time progress;         /* when the acknowledged one last rose, or nothing was outstanding */
    struct ns_time heard;            /* when the received one last rose */
    struct ns_time hedged;           /* when a hedge was last opened */
    uint32_t hedge_backoff;          /* needless hedges in a row */
    uint64_t flowing;                /* looks in a row, of the last 64, in which something arrived: bits */
    uint32_t segments;               /* the kernel's count at the last look */
    uint32_t repeats;                /* looks in a row in which segments came, but nothing new in them */
    struct ns_time fresh;            /* when something new last came */
    bool doubted;                    /* the links were looked at since the last progress */
    bool preserved;                  /* the kernel moves this connection by itself (preserve.h) */
    struct ns_time stranded;         /* since when it is on an address that is gone */
};

struct ns_sock {
    struct ns_object o;
    struct ns_lock rx, tx;
    struct ns_session session; /* tx */

    bool rx_open;        /* the kernel's receive queue is next in order: read it without a lock; rx, atomic */
    bool tx_open;        /* the connection takes new bytes; tx, atomic */
    bool tx_full;        /* the ring has no room until the peer's kernel has more; tx, atomic */
    uint32_t generation; /* connections put under the descriptors; table, atomic */
    bool unfaithful;     /* something was written that the ring has not seen; atomic */
    bool resumed;        /* addresses may differ from what the application saw; table, atomic */
    struct ns_ring inbox; /* drained from the connection before; rx */
    bool inbox_filled;    /* it holds something; rx, atomic */
    int low_water;        /* the application's SO_RCVLOWAT while the socket has another, because of the
                           * inbox or of a part of NEW, else 0; rx, atomic */
    uint64_t tx_urgent;   /* 1 + the offset of the last urgent byte sent (RFC 6093), 0 for none; tx */
    int rx_urgent;        /* 256 + an urgent byte that came on the connection before, 0 for none; atomic */
    uint64_t received;   /* receive offset while there is no connection to ask; tx */
    uint64_t delivered;  /* what the peer had acknowledged when it was given up; tx */
    bool rx_shut;        /* the application has shut its reading side down; tx, atomic */
    bool rx_ended;       /* FIN has been seen; atomic */
    bool fin_queued;     /* our FIN is in the kernel's hands, on the connection in use; tx */
    bool retired;        /* the connection under the descriptors was given up; tx, atomic */
    bool retiring;       /* the helper is about it; table */
    bool connect_owed;   /* connect(2) has not said yet that it stands; atomic */
    int error;           /* what the kernel said when the connection died; tx */
    int failure;         /* SO_ERROR to be reported once after NS_FAILED; atomic */

    struct ns_name local, peer;   /* what the application first saw; constant once set */
    struct ns_name last_local, last_peer; /* of the connection in use: version 1 finds it by them; table */
    struct ns_name before_local, before_peer; /* of the one before; table */
    struct ns_pair pair;          /* addresses in use; table */
    uint16_t port;                /* the peer's (client) or own (server) port; constant */
    char name[256];               /* the name the application connected by, or empty; constant */
    struct ns_hello_address given[NS_HELLO_ADDRESSES]; /* the server's list; constant once CONNECTED */
    uint8_t given_count;

    struct ns_time hold_until; /* ASKING: when the first write waits no longer; set before ASKING */
    bool near;                 /* ASKING: calls that must not block wait, too (await.h); set before ASKING */
    int64_t verdict_until_ns;  /* SUSPENDED: they wait, too, until it is known whether the peer has hung up; atomic */
    uint32_t holders;          /* writers waiting in ASKING; tx */
    struct ns_master master;            /* OFFERING: what NEW is made from; tx */
    uint8_t offer[NS_PACKET_BYTES_NEW]; /* OFFERING: NEW, once it is made; tx */
    uint8_t offer_bytes;
    bool buried;     /* it has ended; helper */
    bool emptied;    /* freed, and its memory given back; table */
    bool reset_shut; /* it was reset, and resumed, with both directions shut (resume.c); helper */
    bool helped;     /* the helper knows of it, and is the one to free it; table where it is set by the
                      * helper, atomic */
    uint32_t guests; /* exchanges about it (serve.c); helper */
    bool touched; /* traffic since the helper last looked; atomic */
    struct ns_time partial_since; /* AWAITING: when a part of NEW was first seen; rx */
    struct ns_timer stalled;      /* AWAITING: how long the rest is waited for; helper */

    struct ns_sock *hash_next; /* sessions by id; table */
    int linger_fd;             /* after the last close: keeps the connection until delivered; helper */
    struct ns_time since;      /* when it was established, then when it was suspended; helper */
    uint32_t todo;             /* for the helper, NS_TODO_ bits; atomic */
    struct ns_sock *todo_next; /* atomic list */
    struct ns_recovery *recovery; /* helper */
    struct ns_source replay;      /* a duplicate while the ring is sent again, or fd 0 for none; helper */
    struct ns_time linger_until;  /* a closed connection waits for NEW; helper */
    bool linger_for_new;          /* it is counted among those */
    struct ns_timer parked;       /* a suspended server's patience, a lingering session's next look; helper */
    struct ns_pulse pulse;        /* helper */
    bool keepalive_ours;          /* the socket's keepalive settings are the helper's; atomic */
    int keepalive[4];             /* the application's: on, idle s, interval s, count */
    int forgotten[NS_SOCKOPTS_FORGOTTEN]; /* options of the connection that was given up; table */
    uint32_t resumes;          /* table */
    uint64_t replayed;         /* table */
    uint32_t told;             /* broker_hold.c: when it was last told of; helper */
    uint64_t established_s;    /* wall clock; helper */
    bool inherited;            /* held in common with a process that has told of it; table */

    enum {
        NS_REMAINS_HERE,
        NS_REMAINS_KEPT,   /* nobody has taken it */
        NS_REMAINS_HANDED, /* it is another process's (remains.h): nothing is done about it here */
    } remains;                 /* table */
    uint64_t leaving_at;       /* what the peer's kernel had when the process began to end; table */

    uint8_t family_secret[32];    /* what all know who have it since a fork, and nobody else (joint.h); table */
    struct ns_estate *estate;     /* other processes have it too: what they share; table and tx */
    struct ns_share *share;
    uint32_t laid;                /* which state of those laid down this is; table */
    int unborn;                   /* the place of the child that is being forked; table */
    bool young;                   /* it was another process's before; table */
    bool hollow;                  /* its state is with another process, and no longer here; table */
    bool kept;                    /* asleep over an exec, but this process's all the while; table */
    uint64_t heirloom;            /* where the program that follows finds it, 0: nowhere; table */
    struct ns_time dormant_since; /* table */
    bool leaving;                 /* it is to become a relay's, and a thread waits for that; atomic */
    int gate;                     /* 1 + a descriptor (gate.h), 0: none; atomic */
    int users_end;                /* 1 + a descriptor (joint.h), 0: none; in a relay; table */
};

/* The four settings of keepalive, in the order of ns_sock.keepalive (options.c). */
extern const struct ns_option {
    int level, name;
} ns_keepalive_options[4];

/* ---- the table ---- */

extern struct ns_lock ns_table_lock;

/* Holds the table lock, and quietly (lock.h). Nests. */
struct ns_hold {
    sigset_t saved;
};
void ns_table_hold(struct ns_hold *h);
void ns_table_unhold(struct ns_hold *h);
/* The same; not while what stands at `fd`, or its last descriptor (`if_last`), is NS_KIND_GOING. */
void ns_table_hold_settled(struct ns_hold *h, int fd, bool if_last);

static inline struct ns_object *ns_object_at(int fd)
{
    if ((unsigned)fd >= NS_FD_MAX || !ns_table)
        return NULL;
    return __atomic_load_n((struct ns_object **)&ns_table[fd], __ATOMIC_ACQUIRE);
}

/* One of its descriptors, or -1 when all are closed, for who does not hold the
 * table: it may have changed since. */
static inline int ns_sock_number(const struct ns_sock *s)
{
    return __atomic_load_n(&s->o.fd, __ATOMIC_SEQ_CST);
}

static inline enum ns_kind ns_object_kind(const struct ns_object *o)
{
    return __atomic_load_n(&o->kind, __ATOMIC_SEQ_CST);
}

/* Makes a dormant session this process's, or plain TCP where another has it
 * (dormant.h); waits until it is known of one that may be a relay's now (joint.h). NULL when it is
 * no session any more, or is still going, with the table held. No lock held but the table's. */
struct ns_sock *ns_sock_wake(struct ns_object *o);

static inline bool ns_kind_sleeps(enum ns_kind kind)
{
    return kind == NS_KIND_DORMANT || kind == NS_KIND_GOING;
}

/* The session at `fd`, or NULL. Only the slot (slot.h) or its tx lock keeps it
 * from being freed; look at the table again once either is held. No lock held
 * but the table's. */
static inline struct ns_sock *ns_sock_at(int fd)
{
    struct ns_object *o = ns_object_at(fd);
    enum ns_kind kind = o ? ns_object_kind(o) : NS_KIND_FREE; /* once: it may wake in between */
    if (__builtin_expect(kind == NS_KIND_SOCK, 1))
        return (struct ns_sock *)o;
    return ns_kind_sleeps(kind) ? ns_sock_wake(o) : NULL;
}

/* The object at `fd`, awake if it is a session, or NS_KIND_GOING. */
static inline struct ns_object *ns_object_awake(int fd)
{
    struct ns_object *o = ns_object_at(fd);
    return o && ns_object_kind(o) == NS_KIND_DORMANT ? (struct ns_object *)ns_sock_wake(o) : o;
}

/* Waits while it may be a relay's, or not (NS_KIND_GOING); not with the table held. */
void ns_object_await(const struct ns_object *o);

/* The session for who only asks about it: that wakes none. */
static inline struct ns_sock *ns_sock_peek(int fd)
{
    struct ns_object *o = ns_object_at(fd);
    enum ns_kind kind = o ? ns_object_kind(o) : NS_KIND_FREE;
    return kind == NS_KIND_SOCK || ns_kind_sleeps(kind) ? (struct ns_sock *)o : NULL;
}

/* Whether it is there, and awake; with any lock held. */
static inline bool ns_sock_is(const struct ns_sock *s, int fd)
{
    return ns_object_at(fd) == &s->o && ns_object_kind(&s->o) == NS_KIND_SOCK;
}

int ns_table_init(void);

/* Whether this is the process whose sessions are in the table. A child that libc did not
 * make has a copy of it, and the sessions, and their epoll registrations, are the
 * parent's still: what it closes ends nothing. Any thread, no lock. */
bool ns_table_own(void);
/* Whether this is a child that was made to share the parent's memory, and is about to execute
 * something: what is in the table is the parent's, which goes on with it. Any thread, no lock. */
bool ns_table_lent(void);

/* In a child that libc has made: it begins with no session by id. */
void ns_table_fork_child(void);

/* A new session or listener under `fd`; NULL without memory. Takes the table
 * lock, as do all below unless they say "table held". */
struct ns_sock *ns_sock_create(int fd, enum ns_role role, uint8_t version);

/* A new object that no descriptor stands for yet; table held. NULL without memory. */
struct ns_object *ns_object_new(enum ns_kind kind);

/* Puts a session's id into the hash; table held. And finds one. */
void ns_sock_index(struct ns_sock *s);
struct ns_sock *ns_sock_find(const uint8_t id[16]);
void ns_sock_unindex(struct ns_sock *s);

/* On the helper, which goes on with it after the table is let go; table held. */
static inline struct ns_sock *ns_sock_help(struct ns_sock *s)
{
    if (s)
        __atomic_store_n(&s->helped, true, __ATOMIC_RELEASE);
    return s;
}

/* Gives an object back once no thread is inside it; table held, no descriptor
 * left. On the helper only, where one runs: there pointers to objects stay good
 * between one event and the next. */
void ns_object_free(struct ns_object *o);

/* Takes `fd` out of the table; table held. Returns the object when that was its
 * last descriptor: the caller frees it or keeps it (linger). */
struct ns_object *ns_table_remove(int fd);
void ns_table_put(int fd, struct ns_object *o);

/* Whether `fd` still is the socket that the object had: a number reused behind
 * our back must never be written over. Table held. */
bool ns_object_verify(const struct ns_object *o, int fd);
/* Notes which socket it is, once it is worth it; table held. */
void ns_object_identify(struct ns_object *o);

/* Calls `each` for every descriptor of `o`; table held. */
void ns_object_each_fd(struct ns_object *o, void (*each)(void *ctx, int fd), void *ctx);
/* One of its descriptors that is open after exec, too, or -1; table held. */
int ns_object_inherited(struct ns_object *o);

/* All objects, newest first: ns_objects (socket.h); table, atomic. */

/* ---- changes of state that any thread may make ---- */

/* In place of an errno: the dead connection reads as an end of file. */
#define NS_ERROR_END (-ENODATA)
/* In place of an errno: the kernel has not been asked. It tells an error once, and that
 * once is the application's where the session cannot be resumed. */
#define NS_ERROR_UNREAD 0

/* The kernel has said `error` (negative errno) about the connection that was
 * under the descriptors at `generation`. Suspends the session and tells the
 * helper. tx not held. Returns false when the session cannot be resumed: the
 * error is the application's; or when it needs none, because both streams have
 * come to their ends. */
bool ns_sock_lost(struct ns_sock *s, uint32_t generation, int error);

/* Whether exactly what the ring has seen was written to the connection at `fd`,
 * so that it can be replayed. tx held. */
bool ns_sock_faithful(struct ns_sock *s, int fd);

/* Whether the peer's kernel has acknowledged all that was written; also when the
 * connection at `fd` is dead, or was given up. tx held. */
bool ns_sock_delivered(const struct ns_sock *s, int fd);

/* It has just become NS_CONNECTED for the first time: can be found by a RESUME,
 * and the helper watches over it. No lock held. */
void ns_sock_born(struct ns_sock *s);

static inline enum ns_state ns_sock_state(const struct ns_sock *s)
{
    return __atomic_load_n(&s->session.state, __ATOMIC_SEQ_CST);
}

/* The object is a session that waits for another connection; table held. */
static inline bool ns_object_suspended(const struct ns_object *o)
{
    return o->kind == NS_KIND_SOCK && ns_sock_state((const struct ns_sock *)o) == NS_SUSPENDED;
}

/*
 * The session takes no bytes now although its socket would: the peer is being
 * asked, or the ring is full. Meanwhile it is not writable to whoever waits (wait.c, watch.c).
 */
bool ns_sock_held(const struct ns_sock *s);
void ns_sock_set_full(struct ns_sock *s, bool full);

/* The error of a session that has ended, until somebody was told of it; else 0. */
static inline int ns_sock_failure(const struct ns_sock *s)
{
    return ns_sock_state(s) == NS_FAILED ? __atomic_load_n(&s->failure, __ATOMIC_SEQ_CST) : 0;
}

static inline bool ns_sock_inbox_filled(const struct ns_sock *s)
{
    return __atomic_load_n(&s->inbox_filled, __ATOMIC_SEQ_CST);
}

static inline void ns_sock_touch(struct ns_sock *s)
{
    if (!__atomic_load_n(&s->touched, __ATOMIC_RELAXED))
        __atomic_store_n(&s->touched, true, __ATOMIC_RELAXED);
    if (__builtin_expect(__atomic_load_n(&ns_helper_settled, __ATOMIC_RELAXED), 0))
        ns_helper_rouse(s);
}

/* Takes a session that is about to be freed out of the counters below. */
void ns_sock_uncount(struct ns_sock *s);
/* And in again. */
void ns_sock_count(struct ns_sock *s);

/* tx held: sets the state, and the log says so. */
bool ns_sock_event(struct ns_sock *s, enum ns_event event);

/* Counters that let the waits skip what is not there. */
extern uint32_t ns_count_offering;  /* sessions that owe a NEW */
extern uint32_t ns_count_asking;    /* sessions that connect, or whose peer is being asked */
extern uint32_t ns_count_awaiting;  /* sessions that do not know their first bytes */
extern uint32_t ns_count_swaps;     /* connections replaced, ever */
extern uint32_t ns_count_dormant;   /* sessions that another process may have */
extern uint32_t ns_count_special;   /* sessions suspended, full or with an inbox, listeners with a queue */

#endif
