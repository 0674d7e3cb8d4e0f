#include "report.h"
#include "stats.h"

#include <string.h>
#include <sys/utsname.h>
#include <time.h>

const char *const ns_benchmark_names[NS_BENCHMARKS] = {
    "throughput-512", "throughput-2048", "throughput-8192", "throughput-65536", "latency", "connection",
};

static const char *const titles[NS_BENCHMARKS] = {
    "Throughput - 512 B", "Throughput - 2048 B", "Throughput - 8192 B", "Throughput - 65536 B", "Latency",
    "Connection",
};

static const char *const columns[NS_VARIANTS] = { "Normal", "Namesocket shim", "Library", "MPTCP",
                                                  "Unprotected" };

static bool is_throughput(enum ns_benchmark b)
{
    return b <= NS_THROUGHPUT_65536;
}

static int spreads(const struct ns_results *r, enum ns_benchmark b, enum ns_variant v,
                   struct ns_spread *value, struct ns_spread *ratio)
{
    size_t n = (size_t)r->rounds;
    int err = ns_spread(r->samples[b][v], n, value);

    return err ? err : ns_ratio_spread(r->samples[b][v], r->samples[b][NS_PLAIN], n, ratio);
}

static void table_head(FILE *out, const struct ns_results *r)
{
    fprintf(out, "%-20s | %-17s", "Benchmark", columns[NS_PLAIN]);
    for (int v = NS_PLAIN + 1; v < NS_VARIANTS; v++)
        if (r->present[v])
            fprintf(out, " | %-17s | %-9s", columns[v], "Ratio");
    fputc('\n', out);
}

static void put_value(FILE *out, enum ns_benchmark b, const struct ns_spread *s, bool quartiles)
{
    double unit = is_throughput(b) ? 1e6 : 1;
    int digits = is_throughput(b) ? 1 : 0;
    char cell[64];

    if (quartiles)
        snprintf(cell, sizeof(cell), "%.*f-%.*f", digits, s->low / unit, digits, s->high / unit);
    else
        snprintf(cell, sizeof(cell), "%.*f %s", digits, s->median / unit,
                 is_throughput(b) ? "10^6 B/s" : "ops/s");
    fprintf(out, " | %-17s", cell);
}

static void put_ratio(FILE *out, const struct ns_spread *s, bool quartiles)
{
    char cell[64];

    if (quartiles)
        snprintf(cell, sizeof(cell), "%.2f-%.2f", s->low, s->high);
    else
        snprintf(cell, sizeof(cell), "%.3f", s->median);
    fprintf(out, " | %-9s", cell);
}

static int table_line(FILE *out, const struct ns_results *r, enum ns_benchmark b, bool quartiles)
{
    fprintf(out, "%-20s", quartiles ? "" : titles[b]);
    for (int v = 0; v < NS_VARIANTS; v++) {
        struct ns_spread value, ratio;
        int err;

        if (!r->present[v])
            continue;
        err = spreads(r, b, (enum ns_variant)v, &value, &ratio);
        if (err)
            return err;
        put_value(out, b, &value, quartiles);
        if (v != NS_PLAIN)
            put_ratio(out, &ratio, quartiles);
    }
    fputc('\n', out);
    return 0;
}

int ns_report_table(FILE *out, const struct ns_results *results)
{
    table_head(out, results);
    for (int b = 0; b < NS_BENCHMARKS; b++) {
        int err;

        if (!results->measured[b])
            continue;
        err = table_line(out, results, (enum ns_benchmark)b, false);
        if (!err)
            err = table_line(out, results, (enum ns_benchmark)b, true);
        if (err)
            return err;
    }
    fprintf(out,
            "\nMedians of %d rounds; below each, the quartiles. Ratios are medians of the ratios to the\n"
            "plain sample of the same round.\n",
            results->rounds);
    return 0;
}

static void json_spread(FILE *out, const char *name, const struct ns_spread *s)
{
    fprintf(out, "\"%s\": {\"q1\": %.6g, \"median\": %.6g, \"q3\": %.6g}", name, s->low, s->median, s->high);
}

static int json_variant(FILE *out, const struct ns_results *r, enum ns_benchmark b, enum ns_variant v)
{
    struct ns_spread value, ratio;
    int err = spreads(r, b, v, &value, &ratio);

    if (err)
        return err;
    fprintf(out, "%s\n      \"%s\": {", v == NS_PLAIN ? "" : ",", ns_variant_names[v]);
    json_spread(out, "value", &value);
    fputs(", ", out);
    json_spread(out, "ratio", &ratio);
    fputs(", \"samples\": [", out);
    for (int i = 0; i < r->rounds; i++)
        fprintf(out, "%s%.6g", i ? ", " : "", r->samples[b][v][i]);
    fputs("]}", out);
    return 0;
}

int ns_report_json(FILE *out, const struct ns_results *results)
{
    const char *separator = "";
    struct utsname host;
    char date[32] = "";
    time_t now = time(NULL);
    struct tm utc;

    if (uname(&host) < 0)
        memset(&host, 0, sizeof(host));
    if (gmtime_r(&now, &utc))
        strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
    fprintf(out,
            "{\n  \"kernel\": \"%s\", \"machine\": \"%s\", \"date\": \"%s\", \"rounds\": %d,\n"
            "  \"benchmarks\": {",
            host.release, host.machine, date, results->rounds);
    for (int b = 0; b < NS_BENCHMARKS; b++) {
        if (!results->measured[b])
            continue;
        fprintf(out, "%s\n    \"%s\": {\"unit\": \"%s\", \"variants\": {", separator, ns_benchmark_names[b],
                is_throughput((enum ns_benchmark)b) ? "B/s" : "ops/s");
        separator = ",";
        for (int v = 0; v < NS_VARIANTS; v++) {
            int err = results->present[v]
                          ? json_variant(out, results, (enum ns_benchmark)b, (enum ns_variant)v)
                          : 0;

            if (err)
                return err;
        }
        fputs("}}", out);
    }
    fputs("\n  }\n}\n", out);
    return 0;
}
