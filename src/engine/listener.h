/*
 * A listening socket of the application. Connections that are none of its
 * business (HELLO, RESUME) are taken out of its sight, in accept(2) or, when
 * the application is busy elsewhere, by the helper: then its own connections
 * wait in a queue here.
 */
#ifndef NS_ENGINE_LISTENER_H
#define NS_ENGINE_LISTENER_H

#include "engine/backlog.h"
#include "engine/queue.h"
#include "engine/sock.h"
#include "engine/thread.h"

struct ns_listener {
    struct ns_object o;
    struct ns_queue queue;   /* put into and sifted with the table held */
    struct ns_source source; /* helper */
    struct ns_timer timer;   /* helper */
    struct ns_time queued;   /* when something was put into the queue last; table */
    bool watched;            /* helper */
    bool pumping;            /* what waits is being put into the queue; table, atomic */
    bool announced;          /* a wait has reported it readable, nobody has accepted since; atomic */
    bool accepting;                       /* the application has accepted since the helper looked; atomic */
    bool shared;                          /* with a forked child: left to the kernel; table */
    bool passed;                          /* so are those that came or went by SCM_RIGHTS (shared.h); table */
    uint32_t parent;                      /* the process that it was inherited from, 0 for none; table */
    bool paused;                          /* exec is near: left to the kernel; table */
    bool shareable;                       /* SO_REUSEPORT: others may listen beside it; constant */
    bool stood_in;                        /* it is readable whatever its socket says (watch.h); table */

    bool accompanied;             /* by its backlog (watch.h); table */
    struct ns_backlog backlog;    /* what whoever of several processes accepts next is to get; table */
    struct ns_door *door;         /* several processes accept from it (door.h); table, atomic */
    int bell;                     /* rings, for all of them, when it is unlocked */
    struct ns_source door_source, bell_source; /* helper */
    int room;                     /* this process's in the door, or -1; helper, atomic */
    uint32_t seen;                /* how much was accepted when something began to wait; helper */
    uint32_t delay_ms;            /* how long it is left to the application; helper */
};

static inline struct ns_listener *ns_listener_at(int fd)
{
    struct ns_object *o = ns_object_at(fd);
    return o && o->kind == NS_KIND_LISTENER ? (struct ns_listener *)o : NULL;
}

/*
 * Accepts what is waiting, without blocking, until there is a connection for
 * the application; at most `most` of them. For blocking listeners too: nothing is
 * done while a thread is inside accept. Table held. Returns 1 if that is so, or
 * the application has a connection in the queue; 0; or what accept4 failed with.
 */
int ns_listener_pump(struct ns_listener *l, int fd, unsigned most);

/* Whether a wait may report the listener readable: pumps. Any thread, no lock held. */
bool ns_listener_ready(struct ns_listener *l, int fd);

/* Whether a connection that the application has not accepted yet begins with a NEW
 * for session `id`. Table held. */
bool ns_listener_queued(const uint8_t id[16]);

/* Whether a connection waits that its socket does not tell of. Any thread. */
bool ns_listener_waits(const struct ns_listener *l);

/* The same, but for a backlog that is readable itself. */
bool ns_listener_hidden(const struct ns_listener *l);

/* Its backlog stands beside it for whoever waits, while `on`. Table held. */
void ns_listener_accompany(struct ns_listener *l, bool on);

/* Whoever waits for it finds it readable, while `on`. Table held. */
void ns_listener_stand_in(struct ns_listener *l, bool on);

/* What is queued becomes another process's, too: a child is about to be made, or the next
 * program to begin. Table held. */
void ns_listener_share_queue(struct ns_listener *l);

/* Whether what comes to a listener of this process comes to this process only. Table held. */
bool ns_listener_alone(void);

/* Whether this process accepts at a port where nobody answers HELLO, since the listener
 * is others' as well. Any thread. */
bool ns_listener_own(uint16_t port);

/* Whether connections wait that nobody can look into: any session's first may be among
 * them. Table held. */
bool ns_listener_hides(void);

/* Exec is near: what waits is the next program's, too, and nothing more is taken from the
 * kernel; until it has failed. Table held. */
void ns_listener_pause(struct ns_listener *l);
void ns_listener_go_on(struct ns_listener *l);

/* What waits in there is this process's alone from now on. Table held. */
void ns_listener_keep_backlog(struct ns_listener *l);
/* What waits in there is others'. Table held. */
void ns_listener_drop_backlog(struct ns_listener *l);

/* Whether something waits in what it shares with other processes. Any thread. */
bool ns_listener_backlogged(const struct ns_listener *l);

/* Closes what is queued and stops the helper's watch; table held. */
void ns_listener_close(struct ns_listener *l);

/* Stops the helper's watch, because the number it uses goes; table held. */
void ns_listener_unwatch(struct ns_listener *l);

/* `fd` listens, and has no object yet. `passed`: as the field. Table held. */
void ns_listener_new(int fd, bool passed);

/* Another process may accept from it from now on, which may not know what to make of a
 * NEW: nothing is promised there, and no lease holds any more. What comes all the same
 * this process takes off. Any thread, no lock held. */
void ns_listener_leave(int fd);

/* On the helper: looks after listeners made and closed since. */
void ns_listeners_watch(struct ns_time now);

#endif
