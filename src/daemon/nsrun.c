/*
 * nsrun: runs a command with libnsshim.so preloaded and told what to do.
 *
 * The shim reads its settings from NAMESOCKET_* (nsrun(1)); options become such
 * variables, after the same parser that the shim uses has accepted them. A broker
 * for the command's processes is started beside it (host.h). Then the command
 * takes this process over, so its exit status is ours.
 */
#include "core/policy.h"
#include "daemon/adopter.h"
#include "daemon/host.h"
#include "daemon/reach.h"
#include "daemon/settings.h"
#include "daemon/shim.h"
#include "daemon/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Exit status, as env(1), nohup(1) and the shell have it. */
#define EXIT_USAGE     2
#define EXIT_CANNOT    126
#define EXIT_NOT_FOUND 127

static const struct option options[] = {
    { "ask", required_argument, NULL, 'a' },
    { "gateway", no_argument, NULL, 'G' },
    { "give-up", required_argument, NULL, 'g' },
    { "help", no_argument, NULL, 'h' },
    { "known", required_argument, NULL, 'k' },
    { "log-level", required_argument, NULL, 'l' },
    { "never", required_argument, NULL, 'n' },
    { "log-file", required_argument, NULL, 'o' },
    { "protocol", required_argument, NULL, 'p' },
    { "psk-file", required_argument, NULL, 'P' },
    { "verbose", no_argument, NULL, 'v' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

static const char usage[] =
    "usage: nsrun [options] [--] command [argument...]\n"
    "Runs the command so that its TCP connections outlive their links and addresses,\n"
    "where the peer runs under namesocket too. Other connections stay plain TCP.\n"
    "\n"
    "  -v, --verbose           say on standard error when a link is lost, a connection\n"
    "                          resumed, or no longer protected\n"
    "  -l, --log-level LEVEL   error, info or debug\n"
    "  -o, --log-file FILE     append the log to FILE\n"
    "  -a, --ask HOW           which servers to ask: probe (default), always, never, known\n"
    "  -k, --known LIST        servers known to run namesocket: host[:port],...\n"
    "  -n, --never LIST        servers never to ask: host[:port],...\n"
    "  -p, --protocol NUMBER   2 (default), or 1: the thesis's, without any security\n"
    "  -g, --give-up TIME      when a lost connection is given up: 90, 90s, 10min\n"
    "      --gateway           for a client that the shim cannot get into (static, Go):\n"
    "                          make its connections for it\n"
    "      --psk-file FILE     key shared by the peers, 16 to 64 bytes, or hex:DIGITS\n"
    "  -h, --help              this text\n"
    "  -V, --version           the version\n"
    "\n"
    "Everything else is in nsrun(1).\n";

/* Option letter to key of the policy. */
static const char *key_of(int letter)
{
    switch (letter) {
    case 'a':
        return "ASK";
    case 'g':
        return "GIVE_UP";
    case 'k':
        return "KNOWN";
    case 'l':
        return "LOG_LEVEL";
    case 'n':
        return "NEVER";
    case 'o':
        return "LOG_FILE";
    case 'p':
        return "VERSION";
    case 'P':
        return "PSK";
    default:
        return "VERBOSE";
    }
}

static const struct option *option_of(int letter)
{
    const struct option *o = options;

    while (o->name && o->val != letter)
        o++;
    return o;
}

__attribute__((format(printf, 2, 3), noreturn)) static void fail(int status, const char *format, ...)
{
    va_list args;

    fputs("nsrun: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(status);
}

static void set_variable(const char *key, const char *value)
{
    char name[64];

    snprintf(name, sizeof(name), "NAMESOCKET_%s", key);
    if (setenv(name, value, 1) < 0)
        fail(EXIT_USAGE, "no memory for the environment");
}

/*
 * Checks a value and puts it into the environment. The parser's complaint begins
 * with the variable's name; here the person wrote an option.
 */
static void set(struct ns_policy *policy, int letter, const char *value)
{
    const char *key = key_of(letter), *text;
    char error[512] = "";

    if (ns_policy_set(policy, key, value, error, sizeof(error)) < 0) {
        text = strstr(error, ": ");
        fail(EXIT_USAGE, "--%s: %s", option_of(letter)->name, text ? text + 2 : error);
    }
    set_variable(key, value);
}

/* -k a -k b means both; in the environment a list is one string. */
static void set_list(struct ns_policy *policy, int letter, char **list, const char *value)
{
    char *longer;

    if (asprintf(&longer, "%s%s%s", *list ? *list : "", *list ? "," : "", value) < 0)
        fail(EXIT_USAGE, "no memory");
    free(*list);
    *list = longer;
    set(policy, letter, longer);
}

/* The command may change its directory before the shim opens the file. */
static void set_log_file(struct ns_policy *policy, const char *file)
{
    char directory[PATH_MAX], *path;
    int fd;

    if (!*file)
        fail(EXIT_USAGE, "--log-file: the name is empty; give a file to append to");
    fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0)
        fail(EXIT_USAGE, "--log-file: cannot write %s: %s", file, strerror(errno));
    close(fd);
    if (*file == '/') {
        set(policy, 'o', file);
        return;
    }
    if (!getcwd(directory, sizeof(directory)) || asprintf(&path, "%s/%s", directory, file) < 0)
        fail(EXIT_USAGE, "--log-file: %s: the current directory is not known; give a path from /", file);
    set(policy, 'o', path);
    free(path);
}

/* A key does not belong on a command line, which everybody can read (ps(1)). */
static void set_psk_file(struct ns_policy *policy, const char *file)
{
    char key[1024];
    size_t n;
    FILE *f = fopen(file, "re");

    if (!f)
        fail(EXIT_USAGE, "--psk-file: cannot read %s: %s", file, strerror(errno));
    n = fread(key, 1, sizeof(key) - 1, f);
    if (ferror(f))
        fail(EXIT_USAGE, "--psk-file: cannot read %s: %s", file, strerror(errno));
    fclose(f);
    if (n > 0 && key[n - 1] == '\n')
        n--;
    key[n] = '\0';
    if (strlen(key) != n)
        fail(EXIT_USAGE, "--psk-file: %s has a byte of zero; write such a key as hex:DIGITS", file);
    set(policy, 'P', key);
    explicit_bzero(key, sizeof(key));
}

/* getopt's own messages say what is wrong, not what to do about it. */
static void bad_option(char **argv, int kind)
{
    const struct option *o = option_of(optopt);

    if (!optopt)
        fail(EXIT_USAGE, "unknown or ambiguous option %s; see nsrun --help", argv[optind - 1]);
    if (kind == ':')
        fail(EXIT_USAGE, "option --%s needs a value; see nsrun --help", o->name);
    if (o->name && o->has_arg == no_argument)
        fail(EXIT_USAGE, "option --%s takes no value; see nsrun --help", o->name);
    fail(EXIT_USAGE, "unknown option -%c; see nsrun --help", optopt);
}

/* True when --gateway was given. */
static bool parse(int argc, char **argv)
{
    char *known = NULL, *never = NULL;
    bool gateway = false;
    struct ns_policy policy;
    int c;

    ns_policy_defaults(&policy);
    /* "+": what follows the command is the command's. */
    while ((c = getopt_long(argc, argv, "+:a:g:hk:l:n:o:p:vV", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            fputs(usage, stdout);
            exit(0);
        case 'V':
            puts("nsrun (namesocket " NS_VERSION ")");
            exit(0);
        case 'G':
            gateway = true;
            break;
        case 'k':
            set_list(&policy, c, &known, optarg);
            break;
        case 'n':
            set_list(&policy, c, &never, optarg);
            break;
        case 'o':
            set_log_file(&policy, optarg);
            break;
        case 'P':
            set_psk_file(&policy, optarg);
            break;
        case 'v':
            set(&policy, c, "1");
            break;
        case '?':
        case ':':
            bad_option(argv, c);
            break;
        default:
            set(&policy, c, optarg);
        }
    }
    free(known);
    free(never);
    return gateway;
}

static void warn(const char *line)
{
    fprintf(stderr, "nsrun: %s\n", line);
}

/* What came as an option is good; the rest was in the environment before. */
static void check_settings(void)
{
    char error[NS_POLICY_PATH_BYTES + 256];

    if (ns_settings_check(error, sizeof(error), warn) < 0)
        fail(EXIT_USAGE, "%s", error);
}

static void find_shim(char *shim, size_t bytes)
{
    if (ns_shim_find(shim, bytes) < 0)
        fail(EXIT_USAGE, "cannot find libnsshim.so, looked for %s last; install namesocket as a whole", shim);
}

/* Looks whether the shim gets into the command, says so if not, and preloads it. */
static void preload(const char *command)
{
    char program[PATH_MAX], shim[PATH_MAX], why[PATH_MAX + 64];
    enum ns_reach reach = NS_REACH_YES;

    find_shim(shim, sizeof(shim));
    if (ns_reach_find(command, program, sizeof(program)) == 0)
        reach = ns_reach(program, why, sizeof(why));
    if (reach == NS_REACH_IGNORES || reach == NS_REACH_BREAKS)
        fprintf(
            stderr,
            "nsrun: %s, so the shim cannot get in: running it without protection (nsrun --gateway protects a "
            "client)\n",
            why);
    if (reach == NS_REACH_BREAKS)
        return;
    switch (ns_shim_preload(shim)) {
    case 0:
        return;
    case -EINVAL:
        fail(EXIT_USAGE, "%s cannot be preloaded from a path with a blank or colon; install it elsewhere",
             shim);
    default:
        fail(EXIT_USAGE, "no memory for the environment");
    }
}

/* Does not return. */
static void run_behind_gateway(char **argv, char **command)
{
    char shim[PATH_MAX], error[256];
    const char *preloaded = getenv("LD_PRELOAD");

    find_shim(shim, sizeof(shim));
    if (preloaded && strstr(preloaded, shim))
        fail(EXIT_USAGE,
             "--gateway: the shim is in LD_PRELOAD already; take it out, or leave --gateway away");
    ns_supervise_start(argv, command, shim, error, sizeof(error));
    fail(EXIT_CANNOT, "%s", error);
}

/* The command can do without, if it does not fork. */
static void start_broker(void)
{
    const char *verbose = getenv("NAMESOCKET_VERBOSE");
    int error = ns_host_start();

    if (error < 0 && verbose && strcmp(verbose, "1") == 0)
        fprintf(stderr, "nsrun: no broker for the command's processes: %s\n", strerror(-error));
}

int main(int argc, char **argv)
{
    bool gateway;
    int error;

    ns_adopter_resume();
    ns_supervise_resume();
    gateway = parse(argc, argv);
    if (optind == argc)
        fail(EXIT_USAGE, "no command given; usage: nsrun [options] [--] command [argument...]");
    check_settings();
    if (!gateway)
        preload(argv[optind]);
    start_broker();
    if (gateway)
        run_behind_gateway(argv, argv + optind);
    execvp(argv[optind], argv + optind);
    error = errno;
    fail(error == ENOENT || error == ENOTDIR ? EXIT_NOT_FOUND : EXIT_CANNOT, "cannot run %s: %s",
         argv[optind], strerror(error));
}
