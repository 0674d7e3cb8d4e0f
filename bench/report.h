/* The samples of a run, and how they are shown. */
#ifndef NS_BENCH_REPORT_H
#define NS_BENCH_REPORT_H

#include "transport.h"

#include <stdio.h>

enum ns_benchmark {
    NS_THROUGHPUT_512,
    NS_THROUGHPUT_2048,
    NS_THROUGHPUT_8192,
    NS_THROUGHPUT_65536,
    NS_LATENCY,
    NS_CONNECTION,
    NS_BENCHMARKS,
};

extern const char *const ns_benchmark_names[NS_BENCHMARKS];

#define NS_ROUNDS_MAX 300

struct ns_results {
    int rounds;
    bool measured[NS_BENCHMARKS];
    bool present[NS_VARIANTS];                                 /* [NS_PLAIN] always */
    double samples[NS_BENCHMARKS][NS_VARIANTS][NS_ROUNDS_MAX]; /* bytes/s or operations/s */
};

/*
 * Table 7.1's layout: per benchmark a line of medians, each followed by the
 * median of the ratios to plain TCP in the same round, and below it a line of
 * quartiles. Returns 0 or a negative errno of ns_spread().
 */
int ns_report_table(FILE *out, const struct ns_results *results);

/* The same with every sample, as one JSON object. */
int ns_report_json(FILE *out, const struct ns_results *results);

#endif
