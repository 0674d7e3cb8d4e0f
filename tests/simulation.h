/*
 * Whole lives of sessions in virtual time: two hosts (sim_host.h) over a network
 * that fails in every way it can (sim_net.h), and two applications that check
 * every byte. The same input gives the same life.
 */
#ifndef NS_TESTS_SIMULATION_H
#define NS_TESTS_SIMULATION_H

#include <stddef.h>
#include <stdint.h>

struct ns_simulation {
    const char *failure; /* what did not hold, or NULL; static */
    int64_t at_ns;       /* when it ended, or failed */
    unsigned resumes;    /* of both sides */
    uint64_t bytes;      /* of both streams */
};

/* One that follows from a seed. */
struct ns_simulation ns_simulate_seed(uint64_t seed);

/* One whose circumstances and faults are read from `bytes` of `data`. */
struct ns_simulation ns_simulate_input(const uint8_t *data, size_t bytes);

#endif
