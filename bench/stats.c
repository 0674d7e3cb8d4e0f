#include "stats.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double ns_quantile(const double *sorted, size_t n, double q)
{
    double rank = q * (double)(n - 1);
    size_t below = (size_t)rank;

    if (below + 1 >= n)
        return sorted[n - 1];
    return sorted[below] + (rank - (double)below) * (sorted[below + 1] - sorted[below]);
}

int ns_spread(const double *samples, size_t n, struct ns_spread *out)
{
    double *sorted;

    if (n == 0)
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(samples[i]))
            return -EINVAL;
    sorted = malloc(n * sizeof(*sorted));
    if (!sorted)
        return -ENOMEM;
    memcpy(sorted, samples, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), rising);
    out->low = ns_quantile(sorted, n, 0.25);
    out->median = ns_quantile(sorted, n, 0.5);
    out->high = ns_quantile(sorted, n, 0.75);
    free(sorted);
    return 0;
}

int ns_ratio_spread(const double *samples, const double *base, size_t n, struct ns_spread *out)
{
    double *ratio;
    int err;

    if (n == 0)
        return -EINVAL;
    ratio = malloc(n * sizeof(*ratio));
    if (!ratio)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        ratio[i] = base[i] > 0 ? samples[i] / base[i] : NAN;
    err = ns_spread(ratio, n, out);
    free(ratio);
    return err;
}
