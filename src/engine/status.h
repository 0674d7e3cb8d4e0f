/* What a descriptor's session is doing, for whoever asks (namesocket.h's nstatus). */
#ifndef NS_ENGINE_STATUS_H
#define NS_ENGINE_STATUS_H

#include <stdint.h>
#include <sys/socket.h>

enum ns_status_state {
    NS_STATUS_PLAIN,     /* plain TCP, or listening */
    NS_STATUS_ASKING,    /* connected, the peer's answer to HELLO is not known yet */
    NS_STATUS_CONNECTED, /* protected, connection up */
    NS_STATUS_SUSPENDED, /* protected, connection lost, being resumed */
    NS_STATUS_FAILED,    /* was protected; given up */
};

struct ns_status {
    enum ns_status_state state;
    int version; /* of the protocol with this peer, 1 or 2; 0 when none is spoken */
    uint64_t resumes;
    uint64_t sent_bytes;     /* stream bytes taken from the application */
    uint64_t received_bytes; /* stream bytes acknowledged to the peer */
    uint64_t replayed_bytes;
    /* Of the connection in use; ss_family AF_UNSPEC when there is none. */
    struct sockaddr_storage local;
    struct sockaddr_storage peer;
    char name[256]; /* what the peer was resolved from, "" when not known; NUL-terminated */
};

/*
 * Fills in all of *status for `fd`. Any thread.
 * Returns 0, or NS_NOT_OURS (engine/socket.h) with *status untouched: plain TCP or no
 * socket at all.
 */
int ns_status(int fd, struct ns_status *status);

#endif
