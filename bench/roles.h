/*
 * The two processes that each variant has, and what they say to each other.
 *
 * The client opens a connection and sends one of the bytes below; a connection
 * that is closed without one is what the connection benchmark does. The server
 * takes one connection at a time. To every request it answers first with one
 * byte, the state of its own end (enum ns_protection), so that the client can
 * vouch for both.
 */
#ifndef NS_BENCH_ROLES_H
#define NS_BENCH_ROLES_H

#include "transport.h"

#include <stdint.h>

enum ns_request {
    NS_ASK_CHECK = 'C', /* the state byte, no more */
    NS_ASK_SINK = 'S',  /* then 32-bit buffer size; reads to the end, answers 64-bit byte count */
    NS_ASK_ECHO = 'E',  /* returns each byte until the end */
    NS_ASK_HOLD = 'H',  /* the server keeps the connection open and takes the next */
    NS_ASK_WEIGH = 'W', /* answers 64-bit resident bytes of its process */
    NS_ASK_DROP = 'D',  /* closes every held connection */
};

/* Largest buffer of the throughput benchmark, in bytes. */
#define NS_BUFFER_MAX 65536

/* The most connections that the memory measurement holds. */
#define NS_HOLD_MAX 4096

/*
 * The server: listens on the first free port from `port` up, prints "ready PORT"
 * on standard output, serves until it is killed. Returns the exit status, with
 * a line on standard error.
 */
int ns_serve(enum ns_variant variant, const char *address, int port);

/*
 * The client: reads orders from standard input, a line each, and answers each
 * with a line on standard output, "ok NUMBER [NUMBER]" or "fail REASON". It
 * ends with its input. Returns the exit status.
 *
 *   throughput SIZE SECONDS OPS   bytes per second, sends of SIZE bytes
 *   latency SECONDS OPS           bytes sent and returned per second
 *   connection COUNT              connections opened and closed per second
 *   memory COUNT                  resident bytes per idle connection, here and there
 *
 * OPS of 0 means: for SECONDS; otherwise exactly so many operations.
 */
int ns_drive(enum ns_variant variant, const char *address, int port);

/* Resident bytes of this process once two readings agree; 0 when unreadable. */
uint64_t ns_resident_bytes(void);

#endif
