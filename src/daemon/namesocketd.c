/*
 * namesocketd: gateways for programs that the shim cannot get into, and the
 * machine's broker.
 *
 * It is itself an ordinary program of plain sockets, and runs under the shim as
 * any other would: it starts itself again with libnsshim.so preloaded. So a
 * gateway's sessions are the engine's, with nothing of their own.
 */
#include "core/message.h"
#include "core/policy.h"
#include "daemon/adopter.h"
#include "daemon/broker.h"
#include "daemon/gateway.h"
#include "daemon/settings.h"
#include "daemon/shim.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define EXIT_USAGE 2

/* Where the engine looks for it (engine/broker.h). */
#define MACHINE "/run/namesocket/broker"

/* As many as one process has use for; each may be given many connections. */
#define ROUTES_MAX 64

/* Set for the second start, so that a shim that does not get in is not tried for ever. */
#define STARTED "NAMESOCKETD_STARTED"

struct daemon {
    uv_loop_t loop;
    uv_signal_t terminate, interrupt;
    struct ns_gateway *gateways[ROUTES_MAX];
    size_t count;
    struct ns_broker *broker;
    bool stopping;
};

static const struct option options[] = {
    { "accept", required_argument, NULL, 'a' },  { "broker", optional_argument, NULL, 'b' },
    { "forward", required_argument, NULL, 'f' }, { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },       { NULL, 0, NULL, 0 },
};

static const char usage[] =
    "usage: namesocketd [--broker[=WHERE]] [--forward [ADDRESS:]PORT:HOST:PORT]...\n"
    "                   [--accept [ADDRESS:]PORT:HOST:PORT]...\n"
    "Lets programs that cannot run under namesocket use it, and processes that can reach each other.\n"
    "\n"
    "  -f, --forward ROUTE  for a client: listen here, and relay to HOST by connections\n"
    "                       that outlive their links\n"
    "  -a, --accept ROUTE   for a server: listen for such connections, and relay each to\n"
    "                       HOST by an ordinary one\n"
    "  -b, --broker[=WHERE] be the broker of this machine's processes, or of those that name WHERE\n"
    "                       in NAMESOCKET_BROKER: a path, or @name (default " MACHINE ")\n"
    "  -h, --help           this text\n"
    "  -V, --version        the version\n"
    "\n"
    "Without ADDRESS --forward listens on this machine's loopback only, --accept on\n"
    "every address. Settings are those of nsrun(1), from the environment.\n";

__attribute__((format(printf, 2, 3), noreturn)) static void fail(int status, const char *format, ...)
{
    va_list args;

    fputs("namesocketd: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(status);
}

static void say(const char *line)
{
    fprintf(stderr, "namesocketd: %s\n", line);
}

/* ---- settings ---- */

/* Adds a destination to one of the shim's lists. */
static void add_to_list(const char *variable, const struct ns_gateway_route *route)
{
    const char *old = getenv(variable);
    bool v6 = strchr(route->host, ':') != NULL;
    char *list;

    if (asprintf(&list, "%s%s%s%s%s:%s", old ? old : "", old && *old ? "," : "", v6 ? "[" : "", route->host,
                 v6 ? "]" : "", route->port) < 0 ||
        setenv(variable, list, 1) < 0)
        fail(EXIT_USAGE, "no memory for the environment");
    free(list);
}

static void check_settings(void)
{
    char error[NS_POLICY_PATH_BYTES + 256];

    if (ns_settings_check(error, sizeof(error), say) < 0)
        fail(EXIT_USAGE, "%s", error);
}

struct settings {
    struct ns_gateway_route routes[ROUTES_MAX];
    size_t count;
    const char *broker; /* where it listens; NULL: none */
};

/*
 * HOST of --forward is known to speak namesocket. HOST of --accept is said not
 * to: it is not asked, and never sees a connection that its client did not make.
 */
static void add_route(struct settings *settings, const char *text, bool forward)
{
    struct ns_gateway_route *route = &settings->routes[settings->count];
    char error[800];

    if (settings->count == ROUTES_MAX)
        fail(EXIT_USAGE, "more than %d routes; start another namesocketd for the rest", ROUTES_MAX);
    if (ns_gateway_parse(text, route, error, sizeof(error)) < 0)
        fail(EXIT_USAGE, "--%s: %s", forward ? "forward" : "accept", error);
    if (forward && !*route->listen_host)
        strcpy(route->listen_host, "localhost");
    if (!getenv(STARTED))
        add_to_list(forward ? "NAMESOCKET_KNOWN" : "NAMESOCKET_NEVER", route);
    settings->count++;
}

static void parse(int argc, char **argv, struct settings *settings)
{
    int c;

    while ((c = getopt_long(argc, argv, ":a:b::f:hV", options, NULL)) != -1) {
        switch (c) {
        case 'a':
        case 'f':
            add_route(settings, optarg, c == 'f');
            break;
        case 'b':
            settings->broker = optarg ? optarg : MACHINE;
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        case 'V':
            puts("namesocketd (namesocket " NS_VERSION ")");
            exit(0);
        case ':':
            fail(EXIT_USAGE, "option %s needs a route; see namesocketd --help", argv[optind - 1]);
        default:
            fail(EXIT_USAGE, "unknown option %s; see namesocketd --help", argv[optind - 1]);
        }
    }
    if (optind < argc)
        fail(EXIT_USAGE, "unexpected argument %s; see namesocketd --help", argv[optind]);
    if (settings->count == 0 && !settings->broker)
        fail(EXIT_USAGE, "nothing to do: give --broker, --forward or --accept; see namesocketd --help");
}

/* Starts this program again, under the shim. Returns when it runs there. */
static void get_under_shim(char **argv)
{
    char shim[PATH_MAX];
    const char *preload;

    if (ns_shim_find(shim, sizeof(shim)) < 0)
        fail(EXIT_USAGE, "cannot find libnsshim.so, looked for %s last; install namesocket as a whole", shim);
    preload = getenv("LD_PRELOAD");
    if (getenv(STARTED)) {
        if (!preload || !strstr(preload, shim))
            fail(EXIT_USAGE, "libnsshim.so did not get in; is this program set-user-ID?");
        unsetenv(STARTED);
        return;
    }
    if (ns_shim_preload(shim) == -EINVAL)
        fail(EXIT_USAGE, "%s cannot be preloaded from a path with a blank or colon; install it elsewhere",
             shim);
    setenv(STARTED, "1", 1);
    execv("/proc/self/exe", argv);
    fail(EXIT_USAGE, "cannot start again under the shim: %s", strerror(errno));
}

/* ---- running ---- */

/* First: no new connections, and the end when the last is over. Then: at once. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *d = handle->data;

    if (d->stopping)
        exit(128 + number);
    d->stopping = true;
    for (size_t i = 0; i < d->count; i++)
        ns_gateway_close(d->gateways[i]);
    d->count = 0;
    if (d->broker)
        ns_broker_close(d->broker);
}

/* As many processes as the system allows. */
static void start_broker(struct daemon *d, const char *where)
{
    struct rlimit files;
    int fd;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (strcmp(where, MACHINE) == 0)
        mkdir("/run/namesocket", 0755); /* or it is there */
    fd = ns_broker_listen(where);
    if (fd == -EINVAL)
        fail(EXIT_USAGE, "--broker: %s is neither @name nor a path from /, of at most %d bytes", where,
             NS_MESSAGE_ADDRESS_MAX);
    if (fd == -ENOENT)
        fail(1,
             "--broker: there is no directory for %s; make it, as root does, or give another place: "
             "--broker=WHERE",
             where);
    if (fd < 0)
        fail(1, "--broker: cannot listen at %s: %s", where, strerror(-fd));
    d->broker = ns_broker_new(&d->loop, fd, (uid_t)-1, NULL, NULL);
    if (!d->broker)
        fail(1, "--broker: no memory");
}

static void watch_signal(struct daemon *d, uv_signal_t *handle, int number)
{
    uv_signal_init(&d->loop, handle);
    handle->data = d;
    uv_signal_start(handle, on_signal, number);
    uv_unref((uv_handle_t *)handle);
}

int main(int argc, char **argv)
{
    struct settings settings = { .count = 0 };
    struct daemon d = { .count = 0 };
    char error[800];
    int r;

    ns_adopter_resume();
    parse(argc, argv, &settings);
    if (!getenv(STARTED))
        check_settings();
    if (settings.count > 0)
        get_under_shim(argv);
    r = uv_loop_init(&d.loop);
    if (r < 0)
        fail(1, "%s", uv_strerror(r));
    signal(SIGPIPE, SIG_IGN);
    watch_signal(&d, &d.terminate, SIGTERM);
    watch_signal(&d, &d.interrupt, SIGINT);
    for (; d.count < settings.count; d.count++) {
        d.gateways[d.count] = ns_gateway_open(&d.loop, &settings.routes[d.count], say, error, sizeof(error));
        if (!d.gateways[d.count])
            fail(1, "%s", error);
    }
    if (settings.broker)
        start_broker(&d, settings.broker);
    say("ready");
    uv_run(&d.loop, UV_RUN_DEFAULT);
    return 0;
}
