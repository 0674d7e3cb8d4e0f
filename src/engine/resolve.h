/*
 * Every address of a name, asked afresh.
 *
 * A session that has lost its path asks again for its peer's name, because the
 * address that it first connected to may no longer be the way there (thesis
 * 4.2 knows only the addresses of the first connect). A and AAAA are asked side
 * by side; /etc/hosts, /etc/resolv.conf and the order that /etc/nsswitch.conf
 * gives are read anew for each lookup, so that a network that has just changed
 * is seen as it is now.
 *
 * One lookup is one object, used by one thread; different lookups know nothing
 * of each other. Nothing here blocks: the caller waits for the descriptors
 * and the deadline and calls ns_resolve_process. Not async-signal-safe.
 */
#ifndef NS_ENGINE_RESOLVE_H
#define NS_ENGINE_RESOLVE_H

#include <poll.h>
#include <stddef.h>

#include "core/path.h"
#include "core/time.h"

/* A lookup ends within this time of its start, whatever servers do. */
#define NS_RESOLVE_LIMIT_MS 5000

/* Once one of A and AAAA has brought addresses, the other is given this much longer. */
#define NS_RESOLVE_OTHER_FAMILY_MS 1000

/* A server that is silent this long is asked again (or the next one is); doubles with each round. */
#define NS_RESOLVE_TRY_MS 400

/* No answer holds more addresses than this; the rest is left out. */
#define NS_RESOLVE_ADDRESSES_MAX 64

/* No more descriptors than this are ever in use. */
#define NS_RESOLVE_FDS_MAX 16

struct ns_resolve;

/*
 * Starts a lookup of `name` (copied), a host name or the text of an address
 * (then without any network; "fe80::1%eth0" and "fe80::1%3" fill scope_id).
 *
 * `done` is called at most once, from ns_resolve_process only, never from
 * here: also what is known at once (a literal, a line of /etc/hosts) is
 * delivered by the first ns_resolve_process, and the deadline says so.
 *   error  0 with n >= 1; otherwise n == 0 and
 *          -ENOENT       there is no such name, or it has no address
 *          -ETIMEDOUT    no server answered within NS_RESOLVE_LIMIT_MS
 *          -EAGAIN       no server could be reached, or none would answer;
 *                        asking again may help when the network has changed
 *          -EINVAL       not a name
 *          -ENOMEM
 *   list   without duplicates and without 0.0.0.0 and ::, in the order of the
 *          answers, which is no preference (core/path.h orders them);
 *          borrowed for the call, and dead once the lookup is cancelled.
 * `done` may cancel this lookup and start others.
 *
 * Returns the lookup, which the caller must give to ns_resolve_cancel in the
 * end, or NULL for -ENOMEM.
 */
struct ns_resolve *
ns_resolve_start(const char *name,
                 void (*done)(void *ctx, int error, const struct ns_address *list, size_t n), void *ctx);

/*
 * Stores what the lookup waits for (descriptor and events, at most `max`,
 * NS_RESOLVE_FDS_MAX suffices) and returns how many. Valid until the next
 * ns_resolve_process, which may close any of them and open others, perhaps
 * under the same numbers: ask again after each and register all of them again
 * (EPOLL_CTL_ADD; on EEXIST, EPOLL_CTL_MOD). A descriptor that is gone has
 * left every epoll set by being closed. None once `done` was called.
 */
size_t ns_resolve_fds(const struct ns_resolve *r, struct pollfd *out, size_t max);

/*
 * When ns_resolve_process wants to be called at the latest; `now` or earlier:
 * at once. NS_NEVER once `done` was called. `now` is CLOCK_MONOTONIC.
 */
struct ns_time ns_resolve_deadline(const struct ns_resolve *r, struct ns_time now);

/*
 * Goes on with the lookup: `ready` (n entries; none when the deadline has
 * come) is what ns_resolve_fds gave, with revents; other descriptors in it
 * are passed over. Too early a call does no harm. Calling `done` is the last
 * thing that it does.
 */
void ns_resolve_process(struct ns_resolve *r, struct ns_time now, const struct pollfd *ready, size_t n);

/*
 * Ends and frees the lookup, before or after `done` (which is not called any
 * more). NULL is let pass. In a forked child this closes the child's copies
 * and leaves the parent's lookup alone.
 */
void ns_resolve_cancel(struct ns_resolve *r);

#endif
