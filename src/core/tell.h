/*
 * Which of its own addresses a server tells a stranger (docs/protocol.md, "HELLO").
 * Pure; any thread.
 */
#ifndef NS_CORE_TELL_H
#define NS_CORE_TELL_H

#include "core/path.h"

/* Not routed in the Internet: RFC 1918, shared (RFC 6598), unique local (RFC
 * 4193), site-local (RFC 3879), link-local and loopback addresses. */
bool ns_address_private(const struct ns_address *a);

/*
 * Whether `l`, one of the `n` own addresses in `all`, may be told to `peer`: it is
 * of use to somebody else at all, and it is a public one, or the peer is on
 * the inside as well: comes from a private address, or from a network that one
 * of our interfaces is in.
 */
bool ns_local_may_be_told(const struct ns_local *l, const struct ns_address *peer, const struct ns_local *all,
                          size_t n);

#endif
