/*
 * Paths: pairs of a local and a remote address, best first. Thesis 5.1.1: for
 * each address of the server the local address that matches it best by scope,
 * flags and prefix. The draft that the thesis followed has become RFC 6724,
 * section 5 (sources) and section 6 (destinations).
 *
 * Nothing here allocates, locks, or keeps anything. All arguments are borrowed
 * for the call. Every function may be called from any thread.
 */
#ifndef NS_CORE_PATH_H
#define NS_CORE_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* More than these are not looked at: later ones in the order given are left out. */
#define NS_PATH_DESTINATIONS_MAX 32
#define NS_PATH_LOCALS_MAX       128 /* of those with carrier and not tentative */

/* Holds every address that ns_address_format can write, NUL included. */
#define NS_ADDRESS_TEXT_BYTES 64

struct ns_address {
    uint8_t family;    /* AF_INET or AF_INET6; v4-mapped addresses are AF_INET here */
    uint8_t bytes[16]; /* network order; IPv4 in the first four, the rest zero */
    uint32_t scope_id; /* interface index; counts for IPv6 link-local addresses only */
};

/* One of this host's own addresses. */
struct ns_local {
    struct ns_address address; /* IPv6 link-local: scope_id is ifindex */
    uint32_t ifindex;
    uint8_t prefix_length; /* bits, as configured on the interface */
    bool carrier;          /* the interface is up and has a link */
    bool deprecated;       /* preferred lifetime is over (RFC 4862) */
    bool temporary;        /* RFC 8981 */
    bool tentative;        /* duplicate address detection has not finished, or has failed */
    bool loopback;         /* on the loopback interface */
};

/* A candidate. `ifindex` is the interface of the source address. */
struct ns_pair {
    struct ns_address source, destination;
    uint32_t ifindex;
};

/* Multicast scope values of RFC 4291, 2.7; RFC 6724, 3.1 and 3.2 map the rest to them. */
enum ns_scope {
    NS_SCOPE_INTERFACE = 1,
    NS_SCOPE_LINK = 2,
    NS_SCOPE_SITE = 5,
    NS_SCOPE_GLOBAL = 14,
};

/*
 * Told how sources were chosen, as the thesis's library prints it (6.2). `what`
 * is "Destination address" or "Candidate source address", with the address, or
 * "Chosen by ..." ("default", "same address", "scope", "address flags", "interface",
 * "label", "prefix match length"; the candidate named last is the best so far) and "No
 * usable source address", with NULL.
 */
struct ns_path_trace {
    void (*say)(void *ctx, const char *what, const struct ns_address *address);
    void *ctx;
};

/*
 * Writes the candidate pairs for `m` destinations from `n` local addresses to
 * out[0..max), best first, no pair twice, and returns how many.
 *
 * Order: every destination with its best source first, destinations ordered by
 * RFC 6724, 6; then every destination with its next source, and so on. A next
 * source on an interface that this destination has not been paired with goes
 * before a further address of the same interface. Of the rules that need routes
 * (outgoing interface, next hop, home addresses, native transport) only this is
 * followed: the loopback interface is not the outgoing one. `avoid`, when not
 * NULL, is the pair that has just failed: it goes last, if it is still among
 * them. Its ifindex may be 0: not known.
 *
 * Left out: sources without carrier or tentative; 127.0.0.0/8 and ::1 for any but
 * loopback destinations and own addresses, and sources on other interfaces for
 * loopback destinations; IPv6 link-local addresses but in pairs of one interface;
 * destinations that no source is left for.
 *
 * A prefix length of 0 limits the prefix match to nothing, as RFC 6724 says.
 */
size_t ns_path_pairs(const struct ns_local *locals, size_t n, const struct ns_address *destinations, size_t m,
                     const struct ns_pair *avoid, struct ns_pair *out, size_t max);

/* The same, telling `trace` (may be NULL) on the way, destinations in the order given. */
size_t ns_path_pairs_traced(const struct ns_local *locals, size_t n, const struct ns_address *destinations,
                            size_t m, const struct ns_pair *avoid, struct ns_pair *out, size_t max,
                            const struct ns_path_trace *trace);

/* Same family, same bytes, and for IPv6 link-local addresses the same scope_id. */
bool ns_address_equal(const struct ns_address *a, const struct ns_address *b);

/* 127.0.0.0/8 or ::1. */
bool ns_address_loopback(const struct ns_address *a);

/* 0.0.0.0 or ::. */
bool ns_address_wildcard(const struct ns_address *a);

/* One of enum ns_scope, or the scope of a multicast address as it stands (RFC 4291, 2.7). */
int ns_scope_of(const struct ns_address *a);

/*
 * Takes address and port (host order; `port` may be NULL) out of `addr`. Returns
 * 0, -EAFNOSUPPORT for another family, or -EINVAL when `len` is too short.
 */
int ns_address_from_sockaddr(struct ns_address *a, uint16_t *port, const struct sockaddr *addr,
                             socklen_t len);

/*
 * The reverse; `port` in host order. With `mapped` IPv4 is written as
 * ::ffff:a.b.c.d, for an AF_INET6 socket. Returns the length of what was
 * written to `out`; the rest of `out` is zero.
 */
socklen_t ns_address_to_sockaddr(const struct ns_address *a, uint16_t port, bool mapped,
                                 struct sockaddr_storage *out);

/*
 * Reads the numeric text of an address, of either family; `%` and an interface
 * number may follow an IPv6 one (a name would need the system). Returns 0 or
 * -EINVAL.
 */
int ns_address_parse(struct ns_address *a, const char *text);

/*
 * Writes the text of an address (RFC 5952; %scope_id where that counts) and a
 * NUL to `out`. Returns its length without the NUL; 0, with an empty string
 * where there is room for one, when it does not fit.
 */
size_t ns_address_format(const struct ns_address *a, char *out, size_t out_bytes);

#endif
