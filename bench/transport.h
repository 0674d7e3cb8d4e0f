/*
 * The ways to carry a stream that tcpbench compares, behind one set of calls.
 *
 * Every call has the form of the socket call of the same name: -1 and errno on
 * failure. The shim has no calls of its own: it is the plain ones in a process
 * that was started under it.
 */
#ifndef NS_BENCH_TRANSPORT_H
#define NS_BENCH_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum ns_variant {
    NS_PLAIN,       /* the reference: TCP without the shim in the process */
    NS_SHIM,        /* under the shim, sessions protected */
    NS_LIBRARY,     /* the thesis's calls, sessions protected */
    NS_MPTCP,       /* IPPROTO_MPTCP at both ends */
    NS_UNPROTECTED, /* under the shim, sessions left plain by policy */
    NS_VARIANTS,
};

extern const char *const ns_variant_names[NS_VARIANTS];

/* What the connection is right now; the shim's own numbering. */
enum ns_protection {
    NS_STATE_PLAIN,
    NS_STATE_ASKING,
    NS_STATE_PROTECTED,
    NS_STATE_SUSPENDED,
};

struct ns_transport {
    /* Binds `port` of `address` (numeric; the library ignores it, as the
     * thesis's nlisten does) and listens. */
    int (*listen)(const char *address, int port);
    int (*accept)(int fd);
    int (*connect)(const char *address, int port);
    ssize_t (*send)(int fd, const void *data, size_t len, int flags);
    ssize_t (*recv)(int fd, void *data, size_t len, int flags);
    int (*shutdown)(int fd, int how);
    int (*close)(int fd);
    enum ns_protection (*state)(int fd);
};

/* The calls of `variant`, or NULL when it was not built in. */
const struct ns_transport *ns_transport(enum ns_variant variant);

/*
 * Whether this process is one in which to measure `variant`: under the shim for
 * the two that are about it, and not under it for the others. To be called once,
 * before any other call of the transport. False with a line on standard error.
 */
bool ns_transport_fits(enum ns_variant variant);

/* Whether this kernel makes MPTCP sockets. */
bool ns_mptcp_available(void);

/* The state that a sample of `variant` must have at both ends to count. */
enum ns_protection ns_expected_state(enum ns_variant variant);

/* send and recv until all of `len` is through. Return 0, or -1 with errno;
 * an early end of the stream is ECONNRESET. */
int ns_send_all(const struct ns_transport *t, int fd, const void *data, size_t len);
int ns_recv_all(const struct ns_transport *t, int fd, void *data, size_t len);

#endif
