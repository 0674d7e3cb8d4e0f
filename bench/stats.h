/*
 * Medians, quartiles and pairwise ratios of samples.
 *
 * Quantiles are by linear interpolation between the two nearest samples
 * (Hyndman and Fan's definition 7, what R and NumPy do by default). All
 * functions are pure and may be called from any thread.
 */
#ifndef NS_BENCH_STATS_H
#define NS_BENCH_STATS_H

#include <stddef.h>

/* Where the middle half of the samples lies, in the samples' own unit. */
struct ns_spread {
    double low; /* first quartile */
    double median;
    double high; /* third quartile */
};

/* The `q`-quantile, 0 <= q <= 1, of `n` >= 1 samples in rising order (borrowed). */
double ns_quantile(const double *sorted, size_t n, double q);

/*
 * Fills `out` from `n` samples in any order (borrowed, left as they are).
 * Returns 0, -EINVAL for no samples or one that is not finite, -ENOMEM.
 */
int ns_spread(const double *samples, size_t n, struct ns_spread *out);

/*
 * Fills `out` with the spread of samples[i] / base[i]: each sample is compared
 * with the one taken beside it in the same round, so that what slows the whole
 * machine for a while cancels out. Returns 0, -EINVAL as above and for a base
 * that is not positive, -ENOMEM.
 */
int ns_ratio_spread(const double *samples, const double *base, size_t n, struct ns_spread *out);

#endif
