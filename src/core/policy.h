/*
 * Policy: which destinations are spoken to, with which protocol version, within
 * which limits. The core does not read the environment: the engine passes in
 * what it finds as NAMESOCKET_<key> (nsrun(1)).
 *
 * Nothing here allocates or locks. ns_policy_for may be called from any thread
 * once the policy is no longer being set.
 */
#ifndef NS_CORE_POLICY_H
#define NS_CORE_POLICY_H

#include "core/log.h"
#include "core/path.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_POLICY_DESTINATIONS_MAX 64
#define NS_POLICY_NAME_BYTES       256 /* a host name and its NUL (RFC 1035, 2.3.4) */
#define NS_POLICY_PATH_BYTES       1024
#define NS_POLICY_BROKER_BYTES     108 /* what a Unix socket's address holds */
#define NS_POLICY_PSK_BYTES_MIN    16
#define NS_POLICY_PSK_BYTES_MAX    64 /* BLAKE2b's longest key (RFC 7693, 2.1) */

enum ns_ask {
    NS_ASK_PROBE,  /* ask destinations by HELLO; but ephemeral ports only if known */
    NS_ASK_ALWAYS, /* take every destination for known */
    NS_ASK_NEVER,  /* protect no outgoing connection */
    NS_ASK_KNOWN,  /* protect connections to known destinations only */
};

/* One entry of a list of destinations. */
struct ns_destination {
    enum { NS_DESTINATION_ANY, NS_DESTINATION_NAME, NS_DESTINATION_ADDRESS } kind;
    char name[NS_POLICY_NAME_BYTES]; /* _NAME: no trailing dot; compared without regard to case */
    struct ns_address address;       /* _ADDRESS: scope_id 0 matches any */
    uint16_t port;                   /* host order; 0: any */
};

struct ns_destinations {
    size_t count;
    struct ns_destination entries[NS_POLICY_DESTINATIONS_MAX];
};

struct ns_policy {
    enum ns_ask ask;
    uint8_t version;           /* 2, or 1: the thesis's protocol, for closed networks */
    int64_t give_up_ms;        /* suspended for longer: the application gets the error */
    int64_t park_ms;           /* a server keeps a suspended session for as long */
    int64_t reset_grace_ms;    /* a server waits for a RESUME as long after a reset */
    int64_t hold_margin_ms;    /* beyond two round trips that first bytes wait for an answer to HELLO */
    int64_t near_ms;           /* calls that must not block wait, too, if a round trip takes no longer */
    int64_t keepalive_idle_ms; /* an idle session's connection is probed after this */
    int64_t lease_ms;          /* a server leaves HELLO's connection open for as long */
    uint16_t ephemeral_low, ephemeral_high; /* both included; the engine fills in the system's */
    enum ns_log_level log_level;
    bool log_microseconds;               /* else the thesis's form, in seconds */
    char log_file[NS_POLICY_PATH_BYTES]; /* empty: none */
    char broker[NS_POLICY_BROKER_BYTES]; /* empty: the machine's, if there is one */
    bool verbose;                        /* one line to standard error for each event a user cares about */
    uint8_t psk[NS_POLICY_PSK_BYTES_MAX];
    size_t psk_bytes;  /* 0: none */
    size_t ring_bytes; /* limit of one session's retransmission ring */
    struct ns_destinations known, never; /* last, since they are large and mostly empty */
};

enum ns_verdict {
    NS_VERDICT_PLAIN, /* leave the connection alone */
    NS_VERDICT_ASK,   /* ask by HELLO whether the peer is one of us */
    /*
     * The peer is said to be one of us. Version 1: send NEW without asking.
     * Version 2: NEW needs the server's key, so HELLO is sent all the same,
     * whatever the port.
     */
    NS_VERDICT_TRUST,
};

/* The values that hold when nothing is set. */
void ns_policy_defaults(struct ns_policy *p);

/*
 * Sets one thing. `key` is what follows NAMESOCKET_ in the environment; both
 * strings are copied. A list replaces the list before it.
 *
 *   ASK        probe, always, never or known
 *   VERSION    1 or 2
 *   GIVE_UP    time: seconds, or a number with ms, s or min
 *   PARK       time
 *   KNOWN      destinations, separated by commas: host or address, then :port or
 *   NEVER      :* or nothing, IPv6 addresses in [] where a port follows; host *
 *              is every host. At most 64. NEVER wins over KNOWN.
 *   LOG_LEVEL  error, info or debug
 *   LOG_FILE   path, kept as it is
 *   VERBOSE    0 or 1
 *   PSK        key shared by the peers, 16 to 64 bytes: text, or hex: and digits
 *   RING       bytes, or a number with k, M or G (of 1024): 64k to 1G; see ns_ring_reserve
 *   HOLD       time: hold_margin_ms
 *   NEAR       time
 *   BROKER     @name, a path from /, or none
 *   LOG_TIME   s or us
 *
 * Returns 0; -ENOENT for an unknown key; -EINVAL for a bad value, and then the
 * policy is as it was. With an error, `error` (room for `error_bytes`; may be
 * NULL with 0) gets one line without newline that says what is wrong, where,
 * and what to write instead. It never shows a PSK.
 */
int ns_policy_set(struct ns_policy *p, const char *key, const char *value, char *error, size_t error_bytes);

/* Every key that ns_policy_set takes, and a NULL. Static. */
const char *const *ns_policy_keys(void);

/* `line` says what is wrong with NAMESOCKET_<key>, as ns_policy_set does; `error` is what it returned. */
typedef void ns_policy_complaint(void *ctx, const char *key, int error, const char *line);

/*
 * Sets whatever an environment (environ(7)) has as NAMESOCKET_<key>; where it has one
 * twice, the first counts, as for getenv. Complains of each that is bad and of each that
 * is no setting; the others are set all the same.
 */
void ns_policy_read(struct ns_policy *p, char *const environment[], ns_policy_complaint *complain, void *ctx);

/*
 * What to do about a connection to `a`, port `port` (host order), which the
 * application looked up as `name` (NULL: not known). RFC 4343 for the name's case.
 */
enum ns_verdict ns_policy_for(const struct ns_policy *p, const struct ns_address *a, uint16_t port,
                              const char *name);

#endif
