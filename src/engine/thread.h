/*
 * The one helper thread of a process: sleeps on rtnetlink, on its own sockets
 * and on timers, with all signals blocked. Started when the first session or
 * listener needs it, never before. Everything said here to run "on the helper"
 * needs no lock against itself.
 */
#ifndef NS_ENGINE_THREAD_H
#define NS_ENGINE_THREAD_H

#include "core/time.h"

#include <stdbool.h>
#include <stdint.h>

struct ns_sock;

enum {
    NS_TODO_ASK = 1,       /* first contact: send HELLO for it */
    NS_TODO_SUSPENDED = 2, /* its connection died */
    NS_TODO_CLOSED = 4,    /* its last descriptor is gone: deliver what is left, then free it */
    NS_TODO_BORN = 8,      /* it has become protected */
    NS_TODO_ADOPTED = 32,  /* another process has left it to this one */
    NS_TODO_LEFT = 64,     /* this process is done with it, and others are not: to a relay (joint.h) */
    NS_TODO_STALLED = 16,  /* its first bytes may begin a NEW, and no more come */
};

/* Starts it unless it runs. Any thread. Returns 0 or a negative errno. */
int ns_helper_start(void);
bool ns_helper_running(void);

/*
 * For a server's session in a forked child, where none runs: most such children are
 * done with their connection before a thread would be up. So it starts *late*: with
 * work that cannot wait, with a call on a session that comes NS_LATE_MS after this one,
 * or waits so long. Any thread.
 */
void ns_helper_start_late(void);
#define NS_LATE_MS 20

/* Whether it is still to be started so; and until when a wait needs none. */
extern uint32_t ns_helper_late;
static inline bool ns_helper_is_late(void)
{
    return __builtin_expect(__atomic_load_n(&ns_helper_late, __ATOMIC_RELAXED), 0);
}
struct ns_time ns_helper_due(void);

/* Whether it runs, or could be started late. */
bool ns_helper_here(void);

/* Ends it, and waits until it is gone. It is not started again. */
void ns_helper_stop(void);

/* Leaves work for the helper. Any thread, no lock needed. */
void ns_helper_post(struct ns_sock *s, uint32_t todo);
/* The same without waking it: it will look within a second. */
void ns_helper_post_lazily(struct ns_sock *s, uint32_t todo);
/* It looks within a second, unasked; atomic. */
extern uint32_t ns_helper_ticking;
/* Wakes it when it had settled down for lack of traffic on `s`; where it is late, sees
 * that it starts in time. */
extern uint32_t ns_helper_settled;
void ns_helper_rouse(const struct ns_sock *s);

/* Wakes it to look after listeners that were made or closed. */
void ns_helper_look(void);

/* Hands over an accepted connection that begins with HELLO or RESUME. Any thread. */
void ns_helper_give(int fd);

void ns_helper_fork_child(void);

/* ---- on the helper ---- */

/* A session has become protected, here: it is looked after from now on. */
void ns_helper_attend(struct ns_sock *s, struct ns_time now);

struct ns_source {
    int fd;
    void (*ready)(struct ns_source *source, uint32_t events, struct ns_time now);
};

int ns_loop_add(struct ns_source *source, uint32_t events);
int ns_loop_change(struct ns_source *source, uint32_t events);
void ns_loop_remove(struct ns_source *source);

struct ns_timer {
    struct ns_timer *next;
    struct ns_time at;
    bool set;
    void (*fire)(struct ns_timer *timer, struct ns_time now);
};

void ns_timer_set(struct ns_timer *timer, struct ns_time at);
void ns_timer_clear(struct ns_timer *timer);

#endif
