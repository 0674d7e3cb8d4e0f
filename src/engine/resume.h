/*
 * The client's side of a resume: other paths are tried beside the old one, and
 * the session moves when one has proved itself. Also what becomes of sessions
 * that nobody resumes. All on the helper.
 */
#ifndef NS_ENGINE_RESUME_H
#define NS_ENGINE_RESUME_H

#include "engine/sock.h"

enum ns_urgency {
    NS_HEDGE, /* the path is only suspected: move if it makes no progress meanwhile */
    NS_LOST,  /* its link or address is gone: move as soon as another answers */
    NS_DEAD,  /* the connection is dead: the session is suspended */
};

/* Whether that would be news: nothing as urgent is under way. */
bool ns_resume_worse(const struct ns_sock *s, enum ns_urgency urgency);

/* Tries other paths for a client's session; raises the urgency of an attempt
 * that is under way. */
void ns_resume_try(struct ns_sock *s, enum ns_urgency urgency, struct ns_time now);

/* Something about links or addresses changed for the better: attempts that wait
 * for their next round go on at once. */
void ns_resume_hurry(struct ns_time now);

/* The session was suspended by a dead connection (NS_TODO_SUSPENDED). */
void ns_resume_suspended(struct ns_sock *s, struct ns_time now);

/* The old path works again: an attempt that is only a hedge ends. */
void ns_resume_not_needed(struct ns_sock *s, struct ns_time now);

/* What the kernel counts on the old path now. Where that has moved since the
 * attempt began, the link has come back or the suspicion was wrong: an attempt
 * that went on would keep the ring from being trimmed. */
void ns_resume_progress(struct ns_sock *s, uint64_t acknowledged, uint64_t received, struct ns_time now);

/* Ends what is under way, if anything is. */
void ns_resume_stop(struct ns_sock *s, struct ns_time now);

/* The session has a connection again. */
void ns_resume_over(struct ns_sock *s, struct ns_time now);

#endif
