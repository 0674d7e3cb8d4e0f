/*
 * tcpbench: the thesis's three benchmarks (its chapter 7) for plain TCP, the
 * shim, the library and MPTCP.
 *
 * Every variant has a server and a client process of its own, which live for
 * the whole run. A round takes one sample of each benchmark from each variant
 * in turn, and each round begins with another variant, so that whatever else
 * the machine does hits all of them alike.
 */
#include "report.h"
#include "roles.h"
#include "worker.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef NS_LIBDIR
#define NS_LIBDIR "/usr/local/lib"
#endif

/* A closed connection stays in TIME_WAIT for a minute and keeps its port. One
 * run, however short, leaves no more than this per variant: well below the
 * 28,232 ports that Linux gives to one destination, and with five variants
 * below the smallest usual limit of TIME_WAITs. */
#define NS_CONNECTIONS_PER_RUN    10000
#define NS_CONNECTIONS_PER_SAMPLE 1000

struct options {
    int rounds;
    double seconds;
    long ops;    /* 0: by time */
    long memory; /* connections to hold; 0: run the benchmarks */
    bool json;
    bool only[NS_BENCHMARKS];
    bool variants[NS_VARIANTS];
    bool variants_given;
    int serve, drive; /* a variant, or -1: this process is a worker */
    struct ns_setup setup;
};

static const char usage_text[] =
    "Usage: tcpbench [options]\n"
    "  -n, --rounds N      rounds, each with a sample of everything (default 15, at most 300)\n"
    "  -t, --seconds S     length of a throughput or latency sample (default 1)\n"
    "      --ops N         samples of N operations instead, whatever they take\n"
    "  -o, --only LIST     benchmarks: throughput, throughput-SIZE, latency, connection;\n"
    "                      SIZE is 512, 2048, 8192 or 65536\n"
    "  -v, --variants LIST of plain, shim, library, mptcp, unprotected (default: all there are)\n"
    "      --memory[=N]    instead: resident bytes per idle connection, over N of them (1000)\n"
    "      --shim PATH     the shim (default: beside this program's tree, then installed)\n"
    "  -p, --port N        first port to try (default 20000; the shim leaves ephemeral ports alone)\n"
    "      --address A     numeric loopback address (default ::1)\n"
    "  -j, --json          print JSON\n"
    "  -h, --help          print this\n"
    "Exit status: 0; 1 a sample failed or was not of a session in the right state; 2 bad usage.\n";

static void usage_error(const char *what, const char *value)
{
    fprintf(stderr, "tcpbench: %s: %s (--help lists the options)\n", what, value);
    exit(2);
}

static long number(const char *what, const char *text, long low, long high)
{
    char *end;
    long n;

    errno = 0;
    n = strtol(text, &end, 10);
    if (errno || *end || end == text || n < low || n > high)
        usage_error(what, text);
    return n;
}

static double positive(const char *what, const char *text)
{
    char *end;
    double d = strtod(text, &end);

    if (*end || end == text || !(d > 0 && d <= 600))
        usage_error(what, text);
    return d;
}

static int variant_of(const char *name)
{
    for (int v = 0; v < NS_VARIANTS; v++)
        if (strcmp(name, ns_variant_names[v]) == 0)
            return v;
    usage_error("unknown variant", name);
    return -1;
}

static void choose_variants(struct options *o, char *list)
{
    memset(o->variants, 0, sizeof(o->variants));
    o->variants[NS_PLAIN] = true; /* every ratio needs it */
    o->variants_given = true;
    for (char *save, *name = strtok_r(list, ",", &save); name; name = strtok_r(NULL, ",", &save))
        o->variants[variant_of(name)] = true;
}

static void choose_benchmarks(struct options *o, char *list)
{
    memset(o->only, 0, sizeof(o->only));
    for (char *save, *name = strtok_r(list, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        bool found = false;

        for (int b = 0; b < NS_BENCHMARKS; b++) {
            bool all = strcmp(name, "throughput") == 0 && b <= NS_THROUGHPUT_65536;

            if (all || strcmp(name, ns_benchmark_names[b]) == 0)
                o->only[b] = found = true;
        }
        if (!found)
            usage_error("unknown benchmark", name);
    }
}

enum { OPT_OPS = 256, OPT_MEMORY, OPT_SHIM, OPT_ADDRESS, OPT_SERVE, OPT_DRIVE };

/* --serve and --drive are how this program starts its own workers. */
static const struct option long_options[] = {
    { "rounds", required_argument, NULL, 'n' },
    { "seconds", required_argument, NULL, 't' },
    { "ops", required_argument, NULL, OPT_OPS },
    { "only", required_argument, NULL, 'o' },
    { "variants", required_argument, NULL, 'v' },
    { "memory", optional_argument, NULL, OPT_MEMORY },
    { "shim", required_argument, NULL, OPT_SHIM },
    { "port", required_argument, NULL, 'p' },
    { "address", required_argument, NULL, OPT_ADDRESS },
    { "json", no_argument, NULL, 'j' },
    { "help", no_argument, NULL, 'h' },
    { "serve", required_argument, NULL, OPT_SERVE },
    { "drive", required_argument, NULL, OPT_DRIVE },
    { NULL, 0, NULL, 0 },
};

static void take_option(struct options *o, int c)
{
    switch (c) {
    case 'n':
        o->rounds = (int)number("bad number of rounds", optarg, 1, NS_ROUNDS_MAX);
        break;
    case 't':
        o->seconds = positive("bad length of a sample", optarg);
        break;
    case 'o':
        choose_benchmarks(o, optarg);
        break;
    case 'v':
        choose_variants(o, optarg);
        break;
    case 'p':
        o->setup.port = (int)number("bad port", optarg, 1, 65000);
        break;
    case 'j':
        o->json = true;
        break;
    case OPT_OPS:
        o->ops = number("bad number of operations", optarg, 1, INT_MAX);
        break;
    case OPT_MEMORY:
        o->memory = optarg ? number("bad number of connections", optarg, 1, 4000) : 1000;
        break;
    case OPT_SHIM:
        o->setup.shim = optarg;
        break;
    case OPT_ADDRESS:
        o->setup.address = optarg;
        break;
    case OPT_SERVE:
        o->serve = variant_of(optarg);
        break;
    case OPT_DRIVE:
        o->drive = variant_of(optarg);
        break;
    case 'h':
        fputs(usage_text, stdout);
        exit(0);
    }
}

/* getopt's own message is one line more, and does not say where to look. */
static void bad_option(char **argv, int kind)
{
    const struct option *o = long_options;

    while (o->name && o->val != optopt)
        o++;
    if (kind == ':')
        usage_error("no value for option", argv[optind - 1]);
    if (optopt && o->name)
        usage_error("option takes no value", argv[optind - 1]);
    usage_error("unknown or ambiguous option", argv[optind - 1]);
}

static void parse(struct options *o, int argc, char **argv)
{
    int c;

    *o = (struct options){
        .rounds = 15, .seconds = 1, .serve = -1, .drive = -1, .setup = { .address = "::1", .port = 20000 }
    };
    for (int b = 0; b < NS_BENCHMARKS; b++)
        o->only[b] = true;
    while ((c = getopt_long(argc, argv, ":n:t:o:v:p:jh", long_options, NULL)) != -1) {
        if (c == '?' || c == ':')
            bad_option(argv, c);
        take_option(o, c);
    }
    if (optind < argc)
        usage_error("unexpected argument", argv[optind]);
    /* Generous: an order also waits for the sessions to be established. */
    o->setup.timeout_ms = 60000 + (int)(o->seconds * 4000) + (o->ops ? 600000 : 0);
}

/* The shim of the tree that `program` was built in, or the installed one. */
static const char *find_shim(const char *program)
{
    static char path[PATH_MAX];
    const char *slash = strrchr(program, '/');

    snprintf(path, sizeof(path), "%.*s/../src/preload/libnsshim.so", (int)(slash - program), program);
    if (access(path, R_OK) == 0)
        return path;
    snprintf(path, sizeof(path), "%s/libnsshim.so", NS_LIBDIR);
    return access(path, R_OK) == 0 ? path : NULL;
}

/* The dynamic linker searches elsewhere for a name without a slash, and the
 * workers' directory need not stay ours: only an absolute path will do. */
static const char *given_shim(const char *path)
{
    static char absolute[PATH_MAX];

    if (!realpath(path, absolute) || access(absolute, R_OK) < 0)
        usage_error("cannot read the shim", path);
    return absolute;
}

static const char *missing(const struct options *o, enum ns_variant v)
{
    if ((v == NS_SHIM || v == NS_UNPROTECTED) && !o->setup.shim)
        return "no libnsshim.so found (--shim)";
    if (v == NS_LIBRARY && !ns_transport(v))
        return "built without the library";
    if (v == NS_MPTCP && !ns_mptcp_available())
        return "this kernel makes no MPTCP sockets";
    return NULL;
}

/* By default what is missing is left out, with a word; what was asked for must be there. */
static int settle_variants(struct options *o)
{
    for (int v = 0; v < NS_VARIANTS; v++) {
        const char *why;

        if (o->variants_given && !o->variants[v])
            continue;
        why = missing(o, (enum ns_variant)v);
        o->variants[v] = !why;
        if (!why)
            continue;
        fprintf(stderr, "tcpbench: %s left out: %s\n", ns_variant_names[v], why);
        if (o->variants_given)
            return -1;
    }
    return 0;
}

static int take_sample(const struct options *o, struct ns_pair *pair, enum ns_benchmark b, double *sample)
{
    static const size_t sizes[] = { 512, 2048, 8192, 65536 };
    long connections = NS_CONNECTIONS_PER_RUN / o->rounds;
    double result[2];
    int err;

    if (connections > NS_CONNECTIONS_PER_SAMPLE)
        connections = NS_CONNECTIONS_PER_SAMPLE;
    if (o->ops)
        connections = o->ops;
    if (b == NS_LATENCY)
        err = ns_pair_order(pair, &o->setup, result, "latency %g %ld", o->seconds, o->ops);
    else if (b == NS_CONNECTION)
        err = ns_pair_order(pair, &o->setup, result, "connection %ld", connections);
    else
        err = ns_pair_order(pair, &o->setup, result, "throughput %zu %g %ld", sizes[b], o->seconds, o->ops);
    *sample = result[0];
    return err;
}

static int take_round(const struct options *o, struct ns_pair *pairs, struct ns_results *r, int round)
{
    for (int b = 0; b < NS_BENCHMARKS; b++) {
        if (!o->only[b])
            continue;
        r->measured[b] = true;
        for (int i = 0; i < NS_VARIANTS; i++) {
            int v = (i + round) % NS_VARIANTS;

            if (o->variants[v] &&
                take_sample(o, &pairs[v], (enum ns_benchmark)b, &r->samples[b][v][round]) < 0)
                return -1;
        }
    }
    return 0;
}

static int run_benchmarks(const struct options *o, struct ns_pair *pairs)
{
    static struct ns_results r;
    int err;

    memcpy(r.present, o->variants, sizeof(r.present));
    for (r.rounds = 0; r.rounds < o->rounds; r.rounds++)
        if (take_round(o, pairs, &r, r.rounds) < 0)
            return 1;
    err = o->json ? ns_report_json(stdout, &r) : ns_report_table(stdout, &r);
    if (!err)
        return 0;
    fprintf(stderr, "tcpbench: no result: %s\n", strerror(-err));
    return 1;
}

static int run_memory(const struct options *o, struct ns_pair *pairs)
{
    const char *separator = "";

    if (o->json)
        printf("{\"connections\": %ld, \"bytes_per_connection\": {", o->memory);
    else
        printf("Resident bytes per idle connection, over %ld\n%-12s | %8s | %8s\n", o->memory, "Variant",
               "client", "server");
    for (int v = 0; v < NS_VARIANTS; v++) {
        double bytes[2];

        if (!o->variants[v])
            continue;
        if (ns_pair_order(&pairs[v], &o->setup, bytes, "memory %ld", o->memory) < 0)
            return 1;
        if (o->json)
            printf("%s\"%s\": {\"client\": %.1f, \"server\": %.1f}", separator, ns_variant_names[v], bytes[0],
                   bytes[1]);
        else
            printf("%-12s | %8.0f | %8.0f\n", ns_variant_names[v], bytes[0], bytes[1]);
        separator = ", ";
    }
    if (o->json)
        puts("}}");
    return 0;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int run(const struct options *o)
{
    static struct ns_pair pairs[NS_VARIANTS];
    int status = 0;

    for (int v = 0; v < NS_VARIANTS && status == 0; v++)
        if (o->variants[v] && ns_pair_start(&pairs[v], &o->setup, (enum ns_variant)v) < 0)
            status = 1;
    if (status == 0)
        status = o->memory ? run_memory(o, pairs) : run_benchmarks(o, pairs);
    for (int v = 0; v < NS_VARIANTS; v++)
        ns_pair_stop(&pairs[v]);
    return status;
}

int main(int argc, char **argv)
{
    static char program[PATH_MAX];
    struct options o;

    parse(&o, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if ((o.serve >= 0 && !ns_transport_fits((enum ns_variant)o.serve)) ||
        (o.drive >= 0 && !ns_transport_fits((enum ns_variant)o.drive)))
        return 1;
    if (o.serve >= 0)
        return ns_serve((enum ns_variant)o.serve, o.setup.address, o.setup.port);
    if (o.drive >= 0)
        return ns_drive((enum ns_variant)o.drive, o.setup.address, o.setup.port);
    if (readlink("/proc/self/exe", program, sizeof(program) - 1) < 0) {
        perror("tcpbench: /proc/self/exe");
        return 1;
    }
    o.setup.program = program;
    o.setup.shim = o.setup.shim ? given_shim(o.setup.shim) : find_shim(program);
    if (settle_variants(&o) < 0)
        return 2;
    raise_descriptor_limit();
    return run(&o);
}
