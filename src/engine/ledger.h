/*
 * The kernel's counters of one TCP connection. They outlive it: a socket that
 * died of a timeout or of RST still answers (measured on Linux 6.1 to 6.18).
 */
#ifndef NS_ENGINE_LEDGER_H
#define NS_ENGINE_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#define NS_TCP_ESTABLISHED 1 /* include/net/tcp_states.h */
#define NS_TCP_CLOSE       7
#define NS_TCP_CLOSE_WAIT  8

struct ns_ledger {
    uint8_t state;           /* TCP_ESTABLISHED, ... */
    bool fin_received;       /* the peer's FIN, as far as the state tells: not on a dead socket */
    uint64_t acknowledged;   /* tcpi_bytes_acked: SYN (opener) and FIN count */
    uint64_t unacknowledged; /* SIOCOUTQ: FIN counts */
    uint64_t received;       /* tcpi_bytes_received: FIN counts */
    uint32_t segments;       /* data segments that came, duplicates included */
    uint32_t in_flight;      /* segments sent and not acknowledged */
    uint32_t unsent_bytes;
    uint32_t window_bytes;   /* the peer's, as last told; 0 when the kernel does not say */
    uint32_t rtt_us, rttvar_us;
    uint32_t last_ack_ms; /* since the last acknowledgement came */
    uint8_t probes;       /* of a closed window, unanswered (RFC 9293, 3.8.6.1) */
};

/* Returns 0, or -ENOTCONN, -EBADF, ... One or two system calls; any thread. */
int ns_ledger_read(int fd, struct ns_ledger *out);

/* The same, of one moment: its counters come from two calls, so it reads until nothing has
 * moved in between, a few times at most. */
int ns_ledger_read_still(int fd, struct ns_ledger *out);

/* SIOCOUTQ alone, or a negative errno. */
int64_t ns_ledger_unacknowledged(int fd);

#endif
