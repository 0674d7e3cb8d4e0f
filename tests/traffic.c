// See traffic.h. Exit status: 0 every byte right, in order and as many as expected; 1 not so; 2 usage;
// 3 the connection failed; 4 out of time.
#include "traffic.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SERVER_SLOTS 64
#define PROGRESS_NS INT64_C(20000000)

static const char USAGE[] =
    "usage: traffic serve PORT [options]\n"
    "       traffic run HOST PORT [options]\n"
    "       traffic toy-echo serve PORT | traffic toy-echo run HOST PORT\n"
    "  -f, --form F            blocking select poll epoll epoll-et threads\n"
    "  -m, --mode M            stream up down records idle halfclose urgent (client)\n"
    "  -n, --bytes N           client to server, per connection (default: until told)\n"
    "  -d, --down-bytes N      server to client (default: as --bytes)\n"
    "  -c, --connections N     at once; a server ends after N (0: never)\n"
    "  -r, --rate N            bytes per second at most, each direction\n"
    "      --seed N  --record N  --interval-ms N  --timeout S\n"
    "      --server-speaks-first (both sides)  --check-so-error  --json\n"
    "      --as SHAPE          one fork exec vfork spawn inetd prefork (server) daemon setuid privsep (server) passed\n"
    "                          pair (with -f threads, one connection)\n"
    "      --quiet (client, not with blocking: sends nothing until told to go)\n"
    "On stdin, a line each: go (idle mode), stop (end the stream here). SIGUSR1 and SIGUSR2 say the same.\n";

static const char *const FORMS[] = { "blocking", "select", "poll", "epoll", "epoll-et", "threads" };
static const char *const MODES[] = { "stream", "up", "down", "records", "idle", "halfclose", "urgent" };

static const char *const SHAPES[] = { "one", "fork", "exec", "vfork", "spawn", "inetd", "prefork", "daemon", "setuid",
                                      "privsep", "passed", "pair" };

struct traffic_options opt = { .up_bytes = UNTIL_TOLD, .down_bytes = UNTIL_TOLD, .seed = 1, .connections = 1,
                               .record_bytes = 64, .interval_ms = 20, .timeout_s = 60 };
atomic_bool told_go, told_stop;
int control_fds[2] = { STDIN_FILENO, -1 };
int signal_pipe_write = -1, report_fd = STDOUT_FILENO;

static int error_fd = STDERR_FILENO;
static struct conn *all_conns;
static unsigned all_conns_n;

int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void vsay(int fd, const char *format, va_list args)
{
    char line[512];
    int n = vsnprintf(line, sizeof line - 1, format, args);
    n = n < (int)sizeof line - 1 ? n : (int)sizeof line - 2;
    line[n++] = '\n';
    if (write(fd, line, (size_t)n) < 0)
        return;
}

void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsay(report_fd, format, args);
    va_end(args);
}

void fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsay(error_fd, format, args);
    va_end(args);
    va_start(args, format);
    vsay(report_fd, format, args);
    va_end(args);
    _exit(status);
}

void progress(bool now)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int64_t last_ns;
    int64_t t = now_ns();
    if (pthread_mutex_trylock(&lock) != 0)
        return;
    if (now || t - last_ns >= PROGRESS_NS) {
        uint64_t in, out;
        unsigned ended;
        conn_totals(&in, &out, &ended);
        say("progress in=%" PRIu64 " out=%" PRIu64 " ended=%u", in, out, ended);
        last_ns = t;
    }
    pthread_mutex_unlock(&lock);
}

static void take_control_line(const char *line)
{
    if (strncmp(line, "go", 2) == 0)
        told_go = true;
    else if (strncmp(line, "stop", 4) == 0)
        told_stop = true;
    else
        return;
    say("told %.4s", line);
}

void control_poll(int timeout_ms)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    if (timeout_ms == 0 && pthread_mutex_trylock(&lock) != 0)
        return;
    if (timeout_ms != 0)
        pthread_mutex_lock(&lock);
    struct pollfd p[2] = { { .fd = control_fds[0], .events = POLLIN }, { .fd = control_fds[1], .events = POLLIN } };
    if (poll(p, 2, timeout_ms) > 0) {
        for (int i = 0; i < 2; i++) {
            char line[128];
            if (!p[i].revents)
                continue;
            ssize_t n = read(control_fds[i], line, sizeof line - 1);
            if (n <= 0) {
                control_fds[i] = -1;
                continue;
            }
            line[n] = 0;
            for (char *at = line; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
                take_control_line(at);
        }
    }
    pthread_mutex_unlock(&lock);
}

static void on_signal(int number)
{
    int saved = errno;
    if (write(signal_pipe_write, number == SIGUSR1 ? "go\n" : "stop\n", number == SIGUSR1 ? 3 : 5) < 0)
        abort();
    errno = saved;
}

static void on_alarm(int number)
{
    (void)number;
    char line[160];
    for (unsigned i = 0; i < all_conns_n; i++) {
        const struct conn *c = &all_conns[i];
        if (!c->used)
            continue;
        int n = snprintf(line, sizeof line, "timeout: conn %u in=%" PRIu64 " out=%" PRIu64 " in_ended=%d out_ended=%d\n",
                         c->number, c->in_bytes, c->out_bytes, c->in_ended, c->out_ended);
        if (write(report_fd, line, (size_t)n) < 0 || write(error_fd, line, (size_t)n) < 0)
            break;
    }
    _exit(EXIT_TIMEOUT);
}

static void start_control(void)
{
    int fds[2];
    if (pipe(fds) != 0)
        fail(EXIT_CONNECTION, "pipe: %s", strerror(errno));
    control_fds[1] = fds[0];
    signal_pipe_write = fds[1];
    // No SA_RESTART: a call that is waiting comes back with EINTR, as in many programs.
    sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = on_signal }, NULL);
    sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = on_signal }, NULL);
    sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
    alarm(opt.timeout_s);
}

static int listen_on(const char *port)
{
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port)) };
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) != 0 ||
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 0 }, sizeof(int)) != 0 ||
        bind(fd, (struct sockaddr *)&any, sizeof any) != 0 || listen(fd, 128) != 0)
        fail(EXIT_CONNECTION, "listen on port %s: %s", port, strerror(errno));
    say("listening port=%s", port);
    return fd;
}

// The simplest server there is, one client at a time; the simplest client, a line at a time.
int toy_echo(int argc, char **argv)
{
    char buffer[4096];
    ssize_t n;
    if (argc == 4 && strcmp(argv[2], "serve") == 0) {
        int listener = listen_on(argv[3]);
        for (;;) {
            int fd = accept(listener, NULL, NULL);
            if (fd < 0)
                fail(EXIT_CONNECTION, "accept: %s", strerror(errno));
            say("accepted");
            while ((n = read(fd, buffer, sizeof buffer)) > 0)
                if (write(fd, buffer, (size_t)n) != n)
                    fail(EXIT_CONNECTION, "write: %s", strerror(errno));
            say(n == 0 ? "closed" : "read: %s", strerror(errno));
            close(fd);
        }
    }
    if (argc != 5 || strcmp(argv[2], "run") != 0) {
        fputs(USAGE, stderr);
        return EXIT_USAGE;
    }
    struct addrinfo want = { .ai_socktype = SOCK_STREAM }, *list;
    if (getaddrinfo(argv[3], argv[4], &want, &list) != 0)
        fail(EXIT_CONNECTION, "%s: unknown", argv[3]);
    int fd = -1;
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM, 0);
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        fail(EXIT_CONNECTION, "connect: %s", strerror(errno));
    freeaddrinfo(list);
    say("connected");
    while (fgets(buffer, sizeof buffer, stdin)) {
        size_t size = strlen(buffer), have = 0;
        if (write(fd, buffer, size) != (ssize_t)size)
            fail(EXIT_CONNECTION, "write: %s", strerror(errno));
        for (; have < size; have += (size_t)n)
            if ((n = read(fd, buffer + have, size - have)) <= 0)
                fail(EXIT_CONNECTION, "read: %s", n ? strerror(errno) : "end of stream");
        say("echo %.*s", (int)size - 1, buffer);
    }
    close(fd);
    return 0;
}

static int choose(const char *text, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    fprintf(stderr, "traffic: no such form, mode or shape: %s\n", text);
    exit(EXIT_USAGE);
}

static uint64_t number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 0);
    if (errno || *end || end == text) {
        fprintf(stderr, "traffic: not a number: %s\n", text);
        exit(EXIT_USAGE);
    }
    return n;
}

enum { OPT_SEED = 256, OPT_RECORD, OPT_INTERVAL, OPT_TIMEOUT, OPT_FIRST, OPT_ERROR, OPT_JSON, OPT_QUIET, OPT_AS, OPT_GIVEN, OPT_CONTROL,
       OPT_REPORT };

static const struct option LONG_OPTIONS[] = {
    { "form", required_argument, NULL, 'f' },           { "mode", required_argument, NULL, 'm' },
    { "bytes", required_argument, NULL, 'n' },          { "down-bytes", required_argument, NULL, 'd' },
    { "connections", required_argument, NULL, 'c' },    { "rate", required_argument, NULL, 'r' },
    { "seed", required_argument, NULL, OPT_SEED },      { "record", required_argument, NULL, OPT_RECORD },
    { "interval-ms", required_argument, NULL, OPT_INTERVAL }, { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { "server-speaks-first", no_argument, NULL, OPT_FIRST },  { "check-so-error", no_argument, NULL, OPT_ERROR },
    { "json", no_argument, NULL, OPT_JSON },            { "quiet", no_argument, NULL, OPT_QUIET },
    { "as", required_argument, NULL, OPT_AS },          { "given", required_argument, NULL, OPT_GIVEN },
    { "control", required_argument, NULL, OPT_CONTROL }, { "report", required_argument, NULL, OPT_REPORT },
    { 0 },
};

static void take_option(int o, const char *arg, bool *down_given)
{
    switch (o) {
    case 'f': opt.form = (enum traffic_form)choose(arg, FORMS, FORM_COUNT); break;
    case 'm': opt.mode = (enum traffic_mode)choose(arg, MODES, MODE_COUNT); break;
    case 'n': opt.up_bytes = number(arg); break;
    case 'd': opt.down_bytes = number(arg); *down_given = true; break;
    case 'c': opt.connections = (unsigned)number(arg); break;
    case 'r': opt.rate_bytes_s = number(arg); break;
    case OPT_SEED: opt.seed = number(arg); break;
    case OPT_RECORD: opt.record_bytes = (unsigned)number(arg); break;
    case OPT_INTERVAL: opt.interval_ms = (unsigned)number(arg); break;
    case OPT_TIMEOUT: opt.timeout_s = (unsigned)number(arg); break;
    case OPT_FIRST: opt.server_speaks_first = true; break;
    case OPT_ERROR: opt.check_so_error = true; break;
    case OPT_QUIET: opt.quiet = true; break;
    case OPT_AS: opt.shape = (enum traffic_shape)choose(arg, SHAPES, SHAPE_COUNT); break;
    case OPT_GIVEN: opt.given = (char *)arg; break;
    case OPT_CONTROL: control_fds[0] = (int)number(arg), opt.standard = true; break;
    case OPT_REPORT: report_fd = error_fd = (int)number(arg); break;
    case OPT_JSON: opt.json = true; break;
    default: fputs(USAGE, stderr); exit(EXIT_USAGE);
    }
}

int main(int argc, char **argv)
{
    bool down_given = false;
    if (argc > 1 && strcmp(argv[1], "toy-echo") == 0)
        return toy_echo(argc, argv);
    for (int o; (o = getopt_long(argc, argv, "f:m:n:d:c:r:", LONG_OPTIONS, NULL)) >= 0;)
        take_option(o, optarg, &down_given);
    opt.argv = argv;
    argv += optind, argc -= optind;
    opt.server = argc == 2 && strcmp(argv[0], "serve") == 0;
    bool client = argc == 3 && strcmp(argv[0], "run") == 0;
    if ((!opt.server && !client) || opt.interval_ms == 0 || opt.connections > SERVER_SLOTS ||
        (opt.shape == SHAPE_PAIR && (opt.form != FORM_THREADS || opt.connections != 1)) ||
        (client && (opt.connections == 0 || opt.shape == SHAPE_PREFORK || opt.shape == SHAPE_PRIVSEP))) {
        fputs(USAGE, stderr);
        return EXIT_USAGE;
    }
    if (!down_given)
        opt.down_bytes = opt.up_bytes;
    opt.host = client ? argv[1] : NULL;
    opt.port = argv[argc - 1];
    all_conns_n = opt.connections ? opt.connections : SERVER_SLOTS;
    all_conns = conn_memory(all_conns_n * sizeof *all_conns);
    if (!all_conns)
        return EXIT_CONNECTION;
    start_control();
    shapes_begin();
    shapes_run(opt.server && !opt.given ? listen_on(opt.port) : -1, all_conns, all_conns_n);
    say("done");
    return 0;
}
