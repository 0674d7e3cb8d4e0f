/*
 * One session's search for another path: what resume.c begins and ends, rounds.c
 * drives over the pairs of addresses, and attempt.c does on each. All on the
 * helper.
 */
#ifndef NS_ENGINE_RECOVERY_H
#define NS_ENGINE_RECOVERY_H

#include "engine/ledger.h"
#include "engine/resume.h"
#include "engine/sock.h"

struct ns_lookup;

/* One pair being tried. */
struct ns_attempt {
    bool active, connected;
    struct ns_source source;
    struct ns_timer timer;
    struct ns_recovery *recovery;
    struct ns_pair pair;
    struct ns_exchange exchange;
    size_t have;
    uint8_t in[NS_PACKET_BYTES_RESUME_ACK];
};

/* At a time: enough that addresses which never answer do not keep one that
 * would from its turn. When all are taken, the oldest gives way. */
#define NS_ATTEMPTS_MAX 12

#define NS_PAIRS_MAX        32
#define NS_DESTINATIONS_MAX 40
#define NS_ROUND_MIN_MS     100 /* between rounds over all pairs; doubles */

struct ns_recovery {
    struct ns_sock *sock;
    enum ns_urgency urgency;
    struct ns_time begun, lost;
    uint64_t acknowledged, received; /* when it began: has the old path moved on since? */
    struct ns_attempt attempts[NS_ATTEMPTS_MAX];
    struct ns_attempt *committed; /* CONFIRM is out on this one */
    struct ns_timer stagger, round, patience;
    int64_t round_ms, stagger_ms;
    uint64_t hurried; /* the pass of ns_resume_hurry that it has had its round in */
    struct ns_pair pairs[NS_PAIRS_MAX];
    size_t pair_count, next_pair;
    struct ns_address found[NS_DESTINATIONS_MAX]; /* by the name, this time */
    size_t found_count;
    struct ns_lookup *lookup;
    unsigned foreign;  /* answers in a row, where the session was, that are none of ours */
    bool refused_here; /* the host that had the session says that it has not */
    bool refused_there; /* so does another, at the address where the session was */
    struct ns_time strange; /* since when that is all that rounds find there, or 0 */
};

static inline bool ns_same_pair(const struct ns_pair *a, const struct ns_pair *b)
{
    return ns_address_equal(&a->source, &b->source) && ns_address_equal(&a->destination, &b->destination);
}

/* ---- attempt.c ---- */

/* Connects over the pair; false if that is under way already, or cannot be. */
bool ns_attempt_start(struct ns_recovery *r, const struct ns_pair *pair, struct ns_time now);

/* Gives it up, and its connection. */
void ns_attempt_end(struct ns_attempt *a);

bool ns_attempts_active(const struct ns_recovery *r);

/* ---- rounds.c ---- */

/* All pairs again, after asking for the name again. */
void ns_rounds_new(struct ns_recovery *r, struct ns_time now);

/* Starts pairs until one is under way, then waits a little before the next. */
void ns_rounds_next(struct ns_recovery *r, struct ns_time now);

/* The timers' ends. */
void ns_rounds_stagger_over(struct ns_timer *timer, struct ns_time now);
void ns_rounds_due(struct ns_timer *timer, struct ns_time now);

/* ---- resume.c ---- */

/* The search is over, whatever came of it. */
void ns_recovery_finish(struct ns_recovery *r, struct ns_time now);

/* What the kernel counts on the session's connection. */
struct ns_ledger ns_recovery_ledger(struct ns_sock *s);

#endif
