/*
 * Starts the server and the client process of a variant, each on a CPU of its
 * own where there are two, and passes orders to the client.
 */
#ifndef NS_BENCH_WORKER_H
#define NS_BENCH_WORKER_H

#include "transport.h"

#include <stdio.h>
#include <sys/types.h>

/* What the workers of a run have in common; borrowed by every call. */
struct ns_setup {
    const char *program; /* path of tcpbench itself */
    const char *shim;    /* path of the shim, NULL when there is none */
    const char *address; /* numeric, of a loopback */
    int port;            /* first one to try; each variant looks 100 ports on */
    int timeout_ms;      /* the longest that an order may take */
};

struct ns_worker {
    pid_t pid; /* 0: not running */
    FILE *to, *from;
};

struct ns_pair {
    enum ns_variant variant;
    struct ns_worker server, client;
};

/* Starts both. Returns 0, or -1 with a line on standard error and neither running. */
int ns_pair_start(struct ns_pair *pair, const struct ns_setup *setup, enum ns_variant variant);

/* Gives the client an order (roles.h), waits for its two numbers. Returns 0, or
 * -1 with a line on standard error: the sample failed or took too long. */
__attribute__((format(printf, 4, 5))) int ns_pair_order(struct ns_pair *pair, const struct ns_setup *setup,
                                                        double result[2], const char *format, ...);

/* Ends both and waits for them. */
void ns_pair_stop(struct ns_pair *pair);

#endif
