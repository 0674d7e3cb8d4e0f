/*
 * Sessions that several processes hold, after a fork. One of them has it at a
 * time, as if it were alone; for the others it is dormant. Who calls for it first
 * has it (ns_sock_wake, sock.h); who is done with it (close, exit) lays its state
 * down for the next. When a second process calls while another has it, a third gets it
 * (joint.h); where there is none, it becomes plain TCP for all, since nobody could know
 * what is in the stream.
 *
 *                     fork
 *        this process's ──► dormant, in parent and child
 *              ▲                │
 *              │ first to call  │ another was first, and
 *              ├────────────────┤   has it still: a relay's,
 *              │                │   or plain TCP
 *              │  laid down     ▼
 *              └──────────── another's ── closed, or its process ends
 *
 * Why so, and not a ring in memory that all write to: nearly all programs that
 * fork with a connection go on with it in one process, and until then, or in the
 * steady state, this costs them nothing.
 */
#ifndef NS_ENGINE_DORMANT_H
#define NS_ENGINE_DORMANT_H

#include "engine/sock.h"

/* ---- around a fork; table held ---- */

void ns_dormant_prepare(void);
/* In the child, of an object with descriptors: false when it is the parent's alone. */
bool ns_dormant_inherit(struct ns_sock *s);
void ns_dormant_fork_child(void);

/* ---- around an exec; table held ---- */

enum ns_bequest {
    NS_BEQUEST_READY,
    NS_BEQUEST_SOON,    /* an exchange about it is under way, or much of it unacknowledged */
    NS_BEQUEST_NOT_YET, /* there is no connection that has all of the stream */
    NS_BEQUEST_NEVER,   /* it is, or has to be, plain TCP */
};

/* Whether the program that follows in this process can go on with it. */
enum ns_bequest ns_dormant_bequest(struct ns_sock *s);
/* Puts it to sleep, unless it is. It stays this process's (*kept*): the next program
 * has the same number. False when a thread is inside it. */
bool ns_dormant_bequeath(struct ns_sock *s);
/* A new session, its state read: as the program before has left it. `kept`: it was
 * that one's; else it is dormant as after a fork. `x` may be NULL. */
void ns_dormant_found(struct ns_sock *s, struct ns_estate *e, struct ns_share *x, bool kept);
/* What has been put to sleep is awake again. Table not held. */
void ns_dormant_exec_failed(void);

/* ---- whose it is ---- */

/* Whether this process has it, and nobody has called for it meanwhile. */
bool ns_dormant_ours(const struct ns_sock *s);

/* The same, and no other process that has a descriptor of it could go on with it. Table held. */
bool ns_dormant_alone(const struct ns_sock *s);

/* It is about to be moved to another connection, which the others do not have:
 * false when it is not ours alone. tx held. */
bool ns_dormant_move(struct ns_sock *s);

/* It has become plain TCP, for the others too. */
void ns_dormant_plain(struct ns_sock *s);

/* It has an id, and is this process's: whoever of the family accepts a RESUME for it
 * lets it wait. Table held. */
/* The owner has made the key that it has in common with this client, which its parent may keep. */
void ns_dormant_met(struct ns_sock *s, const uint8_t client_key[32]);
void ns_dormant_name(struct ns_sock *s);
/* On the helper, which is there to take it: from now on it is sent here, and who calls for
 * it asks here. */
void ns_dormant_address(struct ns_sock *s);

/* ---- where a relay is to have it (joint.h); table held ---- */

enum ns_owner {
    NS_OWNER_NONE,  /* nobody goes on with it, or can be asked */
    NS_OWNER_SOON,  /* one does, and cannot be asked yet, if ever */
    NS_OWNER_NEXT,  /* a relay is about to, and can be asked then */
    NS_OWNER_THERE, /* by `mailbox` */
};
/* Who has it, if it is dormant here. */
enum ns_owner ns_dormant_owner(const struct ns_sock *s, uint8_t mailbox[16]);
/* It is this process's, and about to be a relay's: who does not ask has a connection that is
 * gone. False when it is not ours alone. `before` is for ns_dormant_part: it is not, after all. */
bool ns_dormant_join(struct ns_sock *s, uint64_t *before);
void ns_dormant_part(struct ns_sock *s, uint64_t before);
/* It is ours, could not be laid down, and others have it still. Table held. */
bool ns_dormant_stranded(struct ns_sock *s);
/* The relay has it. */
void ns_dormant_relay(struct ns_sock *s, struct ns_estate *e, struct ns_share *x);
/* It is no session here any more; of a server's, a RESUME may still come here. */
void ns_dormant_leave(struct ns_sock *s);

/* ---- around a sandbox; table held ---- */

/*
 * This process will make no call of ours any more. What another process may go on with
 * afterwards is lent to this one: it reads and writes the connection itself, and what it
 * has written by its end the kernel has counted. Anything else that is dormant becomes
 * plain TCP.
 */
void ns_dormant_lend(struct ns_sock *s);

/* ---- ending; table held ---- */

/* Its last descriptor here is about to be closed. Returns true when other processes
 * have it, or will: then it is freed here, and nothing else is to be done. False:
 * it is this process's, and awake. */
bool ns_dormant_close(struct ns_sock *s, int fd);

/* The same where the number has been closed already, or is something else. */
void ns_dormant_dispose(struct ns_sock *s);
/* It is freed: it leaves the share. */
void ns_dormant_drop(struct ns_sock *s);

/* The process ends: lays all down. */
void ns_dormant_lay_all(void); /* table not held */

/* ---- on the helper ---- */

/* What nobody has called for goes back to where it was. Returns whether there is any left. */
bool ns_dormant_reclaim(struct ns_time now);

#endif
