#include "engine/resume.h"

#include "engine/detect.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/linger.h"
#include "engine/lookup.h"
#include "engine/recovery.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/watch.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#define STAGGER_MIN_MS 10  /* between one pair and the next; two round trips of */
#define STAGGER_MAX_MS 250 /* the old path in between (RFC 8305, 5 and 8) */

struct ns_ledger ns_recovery_ledger(struct ns_sock *s)
{
    struct ns_ledger l = { 0 };
    struct ns_hold hold;
    ns_table_hold(&hold);
    ns_ledger_read(s->o.fd >= 0 ? s->o.fd : s->linger_fd, &l);
    ns_table_unhold(&hold);
    return l;
}

static void patience_over(struct ns_timer *timer, struct ns_time now)
{
    struct ns_recovery *r = (struct ns_recovery *)((char *)timer - offsetof(struct ns_recovery, patience));
    struct ns_sock *s = r->sock;
    if (ns_sock_state(s) == NS_SUSPENDED)
        ns_sock_give_up(s, s->error ? s->error : -ETIMEDOUT, now);
    else
        ns_recovery_finish(r, now);
}

void ns_recovery_finish(struct ns_recovery *r, struct ns_time now)
{
    for (int i = 0; i < NS_ATTEMPTS_MAX; i++)
        ns_attempt_end(&r->attempts[i]);
    ns_timer_clear(&r->stagger);
    ns_timer_clear(&r->round);
    ns_timer_clear(&r->patience);
    if (r->lookup)
        ns_lookup_cancel(r->lookup);
    r->sock->recovery = NULL;
    free(r);
}

static int64_t stagger_ms(uint32_t rtt_us)
{
    int64_t ms = 2 * (int64_t)rtt_us / 1000;
    return ms < STAGGER_MIN_MS ? STAGGER_MIN_MS : ms > STAGGER_MAX_MS ? STAGGER_MAX_MS : ms;
}

void ns_resume_stop(struct ns_sock *s, struct ns_time now)
{
    if (s->recovery)
        ns_recovery_finish(s->recovery, now);
}

/* TCP_USER_TIMEOUT says "no longer than this" (RFC 5482): then the application
 * gets the error, resumable or not. */
static int64_t patience_ms(struct ns_sock *s)
{
    struct ns_hold hold;
    unsigned user_ms = 0;
    socklen_t len = sizeof user_ms;
    ns_table_hold(&hold);
    ns_sys_getsockopt(s->o.fd >= 0 ? s->o.fd : s->linger_fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, &len);
    ns_table_unhold(&hold);
    return user_ms > 0 && user_ms < ns_engine.policy.give_up_ms ? user_ms : ns_engine.policy.give_up_ms;
}

static struct ns_recovery *begin(struct ns_sock *s, enum ns_urgency urgency, struct ns_time now)
{
    struct ns_ledger l = ns_recovery_ledger(s);
    struct ns_recovery *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    *r = (struct ns_recovery){ .sock = s,
                               .urgency = urgency,
                               .begun = now,
                               .lost = urgency == NS_HEDGE ? (struct ns_time){ 0 } : now,
                               .acknowledged = l.acknowledged,
                               .received = l.received,
                               .round_ms = NS_ROUND_MIN_MS,
                               .stagger_ms = stagger_ms(l.rtt_us),
                               .stagger.fire = ns_rounds_stagger_over,
                               .round.fire = ns_rounds_due,
                               .patience.fire = patience_over };
    for (int i = 0; i < NS_ATTEMPTS_MAX; i++)
        r->attempts[i].source.fd = -1;
    s->recovery = r;
    ns_timer_set(&r->patience, ns_time_add(now, ns_time_ms(patience_ms(s))));
    return r;
}

bool ns_resume_worse(const struct ns_sock *s, enum ns_urgency urgency)
{
    return !s->recovery || urgency > s->recovery->urgency;
}

void ns_resume_try(struct ns_sock *s, enum ns_urgency urgency, struct ns_time now)
{
    static const char *const words[] = { "suspected", "lost", "dead" };
    struct ns_recovery *r = s->recovery;
    if (s->session.role != NS_CLIENT || !ns_session_protected(&s->session) ||
        ns_object_kind(&s->o) == NS_KIND_DORMANT || s->remains == NS_REMAINS_HANDED)
        return;
    if (!ns_resume_worse(s, urgency))
        return;
    ns_info("path %s, attempting resume...", words[urgency]);
    if (urgency != NS_HEDGE)
        ns_tell("link lost (%s), trying other paths", words[urgency]);
    if (r) {
        /* What has come since the suspicion came before the loss. */
        struct ns_ledger l = ns_recovery_ledger(s);
        r->acknowledged = l.acknowledged;
        r->received = l.received;
        r->urgency = urgency;
        if (r->lost.ns == 0)
            r->lost = now;
        if (r->round.set || !ns_attempts_active(r))
            ns_rounds_new(r, now);
        return;
    }
    r = begin(s, urgency, now);
    if (r)
        ns_rounds_new(r, now);
    else
        ns_error("no memory for a resume");
}

void ns_resume_not_needed(struct ns_sock *s, struct ns_time now)
{
    if (s->recovery && !s->recovery->committed && !s->retired && s->recovery->urgency != NS_DEAD)
        ns_recovery_finish(s->recovery, now);
}

void ns_resume_progress(struct ns_sock *s, uint64_t acknowledged, uint64_t received, struct ns_time now)
{
    struct ns_recovery *r = s->recovery;
    if (r && (acknowledged > r->acknowledged || received > r->received))
        ns_resume_not_needed(s, now);
}

static bool waits_for_round(const struct ns_object *o)
{
    const struct ns_sock *s = (const struct ns_sock *)o;
    return o->kind == NS_KIND_SOCK && s->recovery && !s->recovery->committed && s->recovery->round.set;
}

void ns_resume_hurry(struct ns_time now)
{
    static uint64_t passes;
    struct ns_hold hold;
    struct ns_object *o;
    passes++;
    do {
        /* From the start each time, since a round may end sessions. But each has
         * one round: it may be over at once and wait for the next. */
        ns_table_hold(&hold);
        for (o = ns_objects; o; o = o->next)
            if (waits_for_round(o) && ((struct ns_sock *)o)->recovery->hurried != passes)
                break;
        ns_table_unhold(&hold);
        if (o) {
            struct ns_recovery *r = ((struct ns_sock *)o)->recovery;
            r->hurried = passes;
            r->round_ms = NS_ROUND_MIN_MS;
            ns_timer_clear(&r->round);
            ns_rounds_new(r, now);
        }
    } while (o);
}

static void park_over(struct ns_timer *timer, struct ns_time now)
{
    struct ns_sock *s = (struct ns_sock *)((char *)timer - offsetof(struct ns_sock, parked));
    ns_info("nobody has resumed the session in time");
    ns_sock_give_up(s, s->error ? s->error : -ETIMEDOUT, now);
}

/*
 * Both directions were shut here, and the peer has all of ours. Where it goes on sending, the kernel
 * answers with a reset (RFC 9293, 3.10.7.4; RFC 1122, 4.2.2.13), and would on every other path. A
 * reset may be the network's, too: so one is resumed, the next is the end.
 */
static bool reset_in_vain(struct ns_sock *s)
{
    if (s->error != -ECONNRESET || ns_sock_number(s) < 0 || !s->rx_shut || !s->fin_queued ||
        ns_recovery_ledger(s).unacknowledged > 0)
        return false;
    bool again = s->reset_shut;
    s->reset_shut = true;
    return again;
}

void ns_resume_suspended(struct ns_sock *s, struct ns_time now)
{
    struct ns_hold hold;
    if (ns_sock_state(s) != NS_SUSPENDED || s->remains == NS_REMAINS_HANDED)
        return;
    ns_swap_stop_replay(s);
    ns_table_hold(&hold);
    ns_watch_suspend(&s->o);
    ns_table_unhold(&hold);
    ns_slots_wake();
    ns_info("session suspended: %s",
            s->error && s->error != NS_ERROR_END ? strerror(-s->error) : "no connection");
    if (reset_in_vain(s)) {
        ns_sock_give_up(s, s->error, now);
        return;
    }
    if (s->session.role == NS_CLIENT) {
        ns_resume_try(s, NS_DEAD, now);
        return;
    }
    /* A reset is as often the client's end as the network's: its own patience. */
    bool reset = s->error == -ECONNRESET || s->error == -EPIPE || s->error == NS_ERROR_END;
    int64_t ms = ns_engine.policy.park_ms;
    if (reset && ms > ns_engine.policy.reset_grace_ms)
        ms = ns_engine.policy.reset_grace_ms;
    s->parked.fire = park_over;
    ns_timer_set(&s->parked, ns_time_add(now, ns_time_ms(ms)));
}

void ns_resume_over(struct ns_sock *s, struct ns_time now)
{
    ns_timer_clear(&s->parked);
    ns_detect_moved(s, now);
    /* The link that it has moved to may have gone meanwhile. */
    if (s->session.role == NS_CLIENT)
        ns_detect_doubt_links();
    if (s->linger_fd >= 0)
        ns_linger_look(s, now);
}
