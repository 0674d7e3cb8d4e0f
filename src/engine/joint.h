/*
 * A session that two processes use at once. While one has it, it cannot be another's
 * (dormant.h), so a third gets it: a *relay*, a process of the broker's (adopt.h). The two, and
 * whoever has their descriptors later, share a connection to the relay instead, which is
 * an ordinary one: what each of them may do with it is the kernel's business (relayed.h).
 *
 *     who calls            who has it            relay
 *        │ JOINT, by the        │                  │
 *        │ mailbox              │                  │
 *        │ ───────────────────► │ state, socket,   │
 *        │                      │ a loopback pair  │
 *        │                      │ ───────────────► │ has it from here on
 *        │ ◄── the users' end   │                  │
 *        ▼                      ▼                  ▼
 *     both put it under their descriptors       relays
 *
 * Between the two messages to and from the relay nobody knows whose it is (NS_KIND_GOING, sock.h):
 * no lock is held, and whoever calls waits (ns_object_await). It is the helper that ends that.
 *
 * A third asks the relay, which keeps the users' end for as long as others have a descriptor of
 * the session: they are users, too, though they have not called yet, and the stream does not end
 * before they close.
 *
 * Why not a ring in memory that all write to, as well as they can: nobody's send, receive or
 * wait gets another lock, no two processes can disagree about the state, and it does not matter
 * which of them closes, executes or is killed first. It costs a copy through the loopback.
 *
 * Where there is no relay to be had (no broker), or the other process has no helper to ask, the
 * session becomes plain TCP for both.
 */
#ifndef NS_ENGINE_JOINT_H
#define NS_ENGINE_JOINT_H

#include "engine/sock.h"

/* What is said to who asks, with the end beside NS_JOINT_YES. */
enum { NS_JOINT_YES = 'Y', NS_JOINT_LATER = 'L', NS_JOINT_NO = 'N' };

struct ns_joint_question {
    uint8_t proof[16]; /* which session is meant, and that the asker has it (ns_joint_prove) */
};

struct ns_joint_answer {
    uint8_t word;
    uint8_t proof[16];
    uint32_t size; /* of this: another version of the engine must not read it */
    struct ns_name local, peer;
};

/* What only they can say who have had a descriptor of it since a fork: some of them before it was
 * a session, and without its keys. False where nobody can. Table held. */
bool ns_joint_prove(const struct ns_sock *s, bool answer, uint8_t out[16]);

/* A dormant session is called for. If another process has it, and goes on with it, it is that
 * one's and this one's afterwards (NS_KIND_RELAYED); else nothing has changed. Takes
 * some milliseconds, five seconds at most. No lock held. */
void ns_joint_ask(struct ns_sock *s);

/*
 * This process is about to close its last descriptor, `fd`, or to end (-1). What it has moved to
 * another connection, or is about to, nobody else could go on with: where others have it still,
 * it becomes a relay's before; what is on its way to one is waited for. No lock held.
 */
void ns_joint_leave(int fd);
/* On the helper: that (NS_TODO_LEFT). */
void ns_joint_left(struct ns_sock *s, struct ns_time now);

/* On the helper: another process, of user `from`, calls for what this one has. `asker` becomes ours. */
void ns_joint_asked(const struct ns_joint_question *q, uid_t from, int asker, struct ns_time now);

/* ---- in the relay ---- */

/* `end` becomes the session's: the users' end. Table held. */
void ns_joint_keep(struct ns_sock *s, int end);
void ns_joint_drop(struct ns_sock *s);
/* On the helper: one is kept. */
void ns_joint_look(struct ns_time now);

#endif
