/*
 * The application's epoll registrations of our descriptors. The kernel forgets
 * them when another socket is put under the number, so they are made again; and
 * while a session is suspended they are taken away, so that nobody sees the
 * failure. The application's 64 bits of data stay its own.
 */
#ifndef NS_ENGINE_WATCH_H
#define NS_ENGINE_WATCH_H

#include "engine/sock.h"

struct ns_watch {
    struct ns_watch *next;      /* of the same object */
    struct ns_watch *next_in;   /* in the same epoll descriptor */
    struct ns_watch *hash_next; /* by epoll descriptor and data */
    struct ns_object *object, *epoll;
    int fd; /* the number it was registered under */
    struct epoll_event event;
    int stand_in; /* an always readable descriptor registered beside it, or -1 */
    int companion; /* a listener's backlog, registered beside it, or -1 */
    bool removed; /* not in the kernel now */
    bool strayed; /* its number was closed: it is under another of the object's, which nobody chose */
    bool told_writable; /* since it was made or changed, while the first bytes were awaited */
    bool muted;   /* in the kernel without what asks for writability */
};

/* All with the table held. */

void ns_watch_suspend(struct ns_object *o);
void ns_watch_resume(struct ns_object *o);

/* What the object is ready for is reported again, to edge-triggered waits too:
 * a write was turned away although the socket had room all the time. */
void ns_watch_renew(struct ns_object *o);

/* While the object is held (ns_sock_held) nobody is told that it is writable;
 * afterwards everybody is, edge-triggered waits too. */
void ns_watch_mute(struct ns_object *o);
void ns_watch_mute_now(struct ns_sock *s); /* table not held */
void ns_watch_unmute(struct ns_object *o);

/*
 * While `on`, the object is readable whatever its socket says (an inbox, a
 * queue): a readable descriptor stands beside it in every epoll that asks for
 * input, so that the kernel reports it, to whoever waits already too.
 */
void ns_watch_stand_in(struct ns_object *o, bool on);

/* The registrations in `epoll` that an event of the kernel's with this data is about, one
 * after the other; NULL: no more. */
struct ns_watch *ns_watch_with(const struct ns_object *epoll, uint64_t data);
struct ns_watch *ns_watch_also(const struct ns_watch *w);

/* A one-shot registration whose event the application is not shown has not fired: the
 * kernel, which has disarmed it, gets it back, or loses it until the session resumes. */
void ns_watch_rearm(struct ns_watch *w);
void ns_watch_take_out(struct ns_watch *w);

/*
 * While `on`, a listener's backlog stands beside it in every epoll: it is readable itself while
 * something is in it, whichever process takes that, and whosever the epoll descriptor is.
 */
void ns_watch_accompany(struct ns_object *o, bool on);

/* Takes over a registration that was made before the object was. */
void ns_watch_adopt(struct ns_object *o, int fd);

/* In a forked child: what stands in belongs to the parent. */
void ns_watch_fork_child(void);

/* Forgets all registrations of an object. */
void ns_watch_drop_all(struct ns_object *o);

/* Forgets one of the registrations in an epoll descriptor that is closed. */
void ns_watch_drop_in(struct ns_object *epoll);

#endif
