/*
 * What the kernel says about links, addresses and routes (rtnetlink(7)).
 *
 * The removal of the source address and the loss of carrier are the signs by
 * which a path is known to be dead long before TCP notices.
 *
 * All state is in the kernel and in the descriptor. The functions may be
 * called from any thread; ns_link_read from one at a time for each descriptor.
 * None blocks; none is async-signal-safe.
 */
#ifndef NS_ENGINE_LINK_H
#define NS_ENGINE_LINK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/path.h"

enum ns_link_kind {
    /* `address` was removed from `ifindex`. */
    NS_LINK_ADDRESS_GONE,

    /* `address` may be used on `ifindex`: duplicate address detection (RFC 4862 5.4) is over, or was not
     * needed, or is optimistic (RFC 4429). Repeated whenever its lifetimes or flags change. */
    NS_LINK_ADDRESS_CAME,

    /* `ifindex` is down, has no carrier, or is gone. Its addresses may still be there. */
    NS_LINK_DOWN,

    /* `ifindex` is up and has carrier. */
    NS_LINK_UP,

    /* A unicast route of other than the local table came or went; `ifindex` is its link, 0 if it has
     * several or none. The kernel does not announce IPv4 routes that vanish with their link. */
    NS_LINK_ROUTE_CHANGED,

    /* Announcements were lost: look at everything again (ns_link_addresses). */
    NS_LINK_OVERRUN,
};

/* LINK_UP and LINK_DOWN tell a state, not an edge: the same one may come several times. */
struct ns_link_event {
    enum ns_link_kind kind;
    uint32_t ifindex;          /* 0 with NS_LINK_OVERRUN */
    struct ns_address address; /* of ADDRESS_GONE and ADDRESS_CAME; else zero (family AF_UNSPEC) */
};

/*
 * Opens a descriptor that becomes readable when a link, address or route of
 * this network namespace (the calling thread's) changes. It is the caller's,
 * to close with ns_sys_close; non-blocking, close-on-exec, high. Returns it or
 * a negative errno (of socket(2), bind(2)).
 */
int ns_link_open(void);

/*
 * Stores this network namespace's addresses, `max` at most, those that
 * duplicate address detection has not passed included (tentative is set then).
 * Returns how many were stored, or a negative errno: that of the kernel,
 * -EIO for an answer that makes no sense, -EAGAIN when the addresses changed
 * during every one of a few attempts, -ENOMEM.
 */
ssize_t ns_link_addresses(struct ns_local *out, size_t max);

/*
 * Reads `fd` (borrowed, of ns_link_open) until it is empty, or has brought so
 * many announcements (thousands) that others should have a turn; it stays
 * readable then. Calls `event` for each announcement that matters, in their
 * order. The event is borrowed for the call. `event` must not close `fd`.
 */
void ns_link_read(int fd, void (*event)(void *ctx, const struct ns_link_event *), void *ctx);

#endif
