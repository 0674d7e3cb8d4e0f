/*
 * nsctl: shows the sessions that a broker knows of.
 *
 * Asks the machine's broker and those of the trees that nsrun has started, or one that
 * is named. Each asks its processes, so what is shown is of now.
 */
#include "core/message.h"
#include "core/session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EXIT_USAGE 2

#define MACHINE "/run/namesocket/broker"
#define TREES   "@namesocket/"

#define PATIENCE_S 5
#define SERIAL     1

static const char usage[] =
    "usage: nsctl list [--json] [--broker WHERE]\n"
    "Shows the sessions of processes that run under namesocket: yours, or as root all.\n"
    "\n"
    "  -j, --json          for programs: an array of objects\n"
    "  -b, --broker WHERE  of one broker only: a path, or @name\n"
    "  -h, --help          this text\n"
    "  -V, --version       the version\n";

static const struct option options[] = {
    { "broker", required_argument, NULL, 'b' },
    { "help", no_argument, NULL, 'h' },
    { "json", no_argument, NULL, 'j' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

__attribute__((format(printf, 2, 3), noreturn)) static void fail(int status, const char *format, ...)
{
    va_list args;

    fputs("nsctl: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(status);
}

/* What cannot be written is said, not lost: a full disk looks like an empty list otherwise. */
static int told(int status)
{
    if (fclose(stdout) != 0)
        fail(1, "standard output: %s", strerror(errno));
    return status;
}

/* ---- one session ---- */

struct row {
    struct ns_message_session about;
    enum ns_message_role role;
    uint8_t id[16];
    struct ns_message_holder *holders;
    size_t count;
};

struct output {
    bool json;
    size_t rows;
};

static const char *role_name(enum ns_message_role role)
{
    static const char *const names[] = { "client", "server" };

    return role < NS_MESSAGE_ROLES ? names[role] : "?";
}

static void format_end(char out[80], const struct ns_message_end *e, bool with_port)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    char text[INET6_ADDRSTRLEN] = "";
    bool v4 = memcmp(e->address, mapped, sizeof(mapped)) == 0;

    inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? e->address + 12 : e->address, text, sizeof(text));
    if (with_port)
        snprintf(out, 80, v4 ? "%s:%u" : "[%s]:%u", text, e->port);
    else
        snprintf(out, 80, "%s", text);
}

static uint64_t age_s(const struct ns_message_session *s)
{
    uint64_t now = (uint64_t)time(NULL);

    return s->established_s && s->established_s < now ? now - s->established_s : 0;
}

static void format_age(char out[24], uint64_t s)
{
    if (s >= 86400)
        snprintf(out, 24, "%llud%02lluh", (unsigned long long)s / 86400, (unsigned long long)s / 3600 % 24);
    else
        snprintf(out, 24, "%02llu:%02llu:%02llu", (unsigned long long)s / 3600,
                 (unsigned long long)s / 60 % 60, (unsigned long long)s % 60);
}

static const char *state_of(const struct row *r)
{
    return ns_state_name((enum ns_state)r->about.state);
}

/* A name came over the network and from other processes: nothing of it reaches the terminal as it is. */
static void print_plain(const char *text, int width)
{
    int n = 0;

    for (; *text; text++, n++)
        putchar((unsigned char)*text > ' ' && (unsigned char)*text < 0x7f ? *text : '?');
    for (; n < width; n++)
        putchar(' ');
}

static void print_text(struct output *out, const struct row *r)
{
    char local[80], peer[80], age[24];

    if (out->rows == 0)
        printf("%-8s %-11s %-28s %-28s %-9s %12s %12s %7s  %s\n", "ROLE", "STATE", "PEER", "LOCAL", "AGE",
               "SENT", "RECEIVED", "RESUMES", "NAME, HOLDERS");
    format_end(local, &r->about.local, true);
    format_end(peer, &r->about.peer, true);
    format_age(age, age_s(&r->about));
    printf("%-8s %-11s %-28s %-28s %-9s %12llu %12llu %7u  ", role_name(r->role), state_of(r), peer, local,
           age, (unsigned long long)r->about.sent, (unsigned long long)r->about.received, r->about.resumes);
    print_plain(r->about.name[0] ? r->about.name : "-", 0);
    for (size_t i = 0; i < r->count; i++) {
        printf("%s%u/", i ? "," : " ", r->holders[i].pid);
        print_plain(r->holders[i].program, 0);
    }
    putchar('\n');
}

static void print_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < ' ' || c >= 0x7f || c == '"' || c == '\\')
            printf("\\u%04x", c); /* bytes beyond ASCII as Latin-1: there is no telling what they are */
        else
            putchar(c);
    }
    putchar('"');
}

static void print_end(const char *key, const struct ns_message_end *e)
{
    char text[80];

    format_end(text, e, false);
    printf("\"%s\": {\"address\": \"%s\", \"port\": %u}, ", key, text, e->port);
}

static void print_json(struct output *out, const struct row *r, const char *broker)
{
    printf("%s  {\"broker\": ", out->rows ? ",\n" : "");
    print_string(broker);
    printf(", \"id\": \"");
    for (size_t i = 0; i < sizeof(r->id); i++)
        printf("%02x", r->id[i]);
    printf("\", \"role\": \"%s\", \"state\": \"%s\", \"name\": ", role_name(r->role), state_of(r));
    print_string(r->about.name);
    printf(", ");
    print_end("local", &r->about.local);
    print_end("peer", &r->about.peer);
    printf("\"established\": %llu, \"age_seconds\": %llu, \"sent_bytes\": %llu, \"received_bytes\": %llu, "
           "\"resumes\": %u, \"holders\": [",
           (unsigned long long)r->about.established_s, (unsigned long long)age_s(&r->about),
           (unsigned long long)r->about.sent, (unsigned long long)r->about.received, r->about.resumes);
    for (size_t i = 0; i < r->count; i++) {
        printf("%s{\"pid\": %u, \"uid\": %u, \"program\": ", i ? ", " : "", r->holders[i].pid,
               r->holders[i].uid);
        print_string(r->holders[i].program);
        printf("}");
    }
    printf("]}");
}

static void print_row(struct output *out, struct row *r, const char *broker)
{
    if (out->json)
        print_json(out, r, broker);
    else
        print_text(out, r);
    out->rows++;
    free(r->holders);
    *r = (struct row){ .count = 0 };
}

static void add_holder(struct row *r, const struct ns_message_holder *holder)
{
    struct ns_message_holder *more = realloc(r->holders, (r->count + 1) * sizeof(*more));

    if (!more)
        fail(1, "no memory");
    r->holders = more;
    r->holders[r->count++] = *holder;
}

/* ---- one broker ---- */

/* A stranger could have taken a name in the abstract namespace. */
static bool trusted(int fd)
{
    struct ucred who;
    socklen_t bytes = sizeof(who);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes) == 0 &&
           (who.uid == 0 || who.uid == getuid() || getuid() == 0);
}

static int open_broker(const char *where)
{
    struct sockaddr_un a;
    socklen_t bytes = ns_message_address(&a, where);
    struct timeval patience = { .tv_sec = PATIENCE_S };
    int fd, error;

    if (!bytes)
        return -EINVAL;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&a, bytes) == 0 && trusted(fd))
        return fd;
    error = errno ? -errno : -EPERM;
    close(fd);
    return error;
}

static int ask(int fd, struct output *out, const char *where)
{
    struct ns_message m = { .type = NS_MESSAGE_LIST, .serial = SERIAL };
    uint8_t data[NS_MESSAGE_BYTES_MAX];
    struct row row = { .count = 0 };
    bool any = false;
    ssize_t n;

    if (send(fd, data, ns_message_put(data, &m), MSG_NOSIGNAL) < 0)
        return -errno;
    while ((n = recv(fd, data, sizeof(data), 0)) > 0 && ns_message_get(data, (size_t)n, &m)) {
        if (any && m.type != NS_MESSAGE_HOLDER)
            print_row(out, &row, where);
        any = m.type != NS_MESSAGE_ANSWER;
        if (m.type == NS_MESSAGE_ANSWER)
            return m.status;
        if (m.type == NS_MESSAGE_SESSION) {
            row.about = m.session;
            row.role = m.role;
            memcpy(row.id, m.id, sizeof(row.id));
        } else if (m.type == NS_MESSAGE_HOLDER) {
            add_holder(&row, &m.holder);
        }
    }
    return n < 0 ? -errno : -EPIPE;
}

/* ---- all of them ---- */

static bool list_one(const char *where, struct output *out, bool must)
{
    int fd, r;

    errno = 0;
    fd = open_broker(where);
    r = fd < 0 ? fd : ask(fd, out, where);
    if (fd >= 0)
        close(fd);
    if (r < 0 && (must || fd >= 0))
        fprintf(stderr, "nsctl: %s: %s\n", where, strerror(-r));
    return r == 0;
}

/* The names that nsrun's brokers listen at, as the kernel tells them (proc_net(5)). */
static size_t list_trees(struct output *out)
{
    char line[512], *name;
    size_t found = 0;
    FILE *f = fopen("/proc/net/unix", "re");

    while (f && fgets(line, sizeof(line), f)) {
        unsigned flags;

        line[strcspn(line, "\n")] = '\0';
        name = strstr(line, " " TREES);
        if (name && sscanf(line, "%*s %*s %*s %x", &flags) == 1 && (flags & 0x10000)) /* __SO_ACCEPTCON */
            found += list_one(name + 1, out, false);
    }
    if (f)
        fclose(f);
    return found;
}

static int list(struct output *out, const char *where)
{
    size_t found;

    if (out->json)
        printf("[\n");
    if (where)
        found = list_one(where, out, true);
    else
        found = list_one(MACHINE, out, false) + list_trees(out);
    if (out->json)
        printf("%s]\n", out->rows ? "\n" : "");
    if (found == 0 && !where)
        fprintf(stderr,
                "nsctl: no broker of yours: nothing runs under nsrun, nor is there a namesocketd --broker\n");
    return found ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct output out = { .json = false };
    struct sockaddr_un address;
    const char *where = NULL;
    int c;

    while ((c = getopt_long(argc, argv, ":b:hjV", options, NULL)) != -1) {
        switch (c) {
        case 'b':
            where = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return told(0);
        case 'j':
            out.json = true;
            break;
        case 'V':
            puts("nsctl (namesocket " NS_VERSION ")");
            return told(0);
        case ':':
            fail(EXIT_USAGE, "option %s needs a value; see nsctl --help", argv[optind - 1]);
        default:
            fail(EXIT_USAGE, "unknown option %s; see nsctl --help", argv[optind - 1]);
        }
    }
    if (optind + 1 != argc || strcmp(argv[optind], "list") != 0)
        fail(EXIT_USAGE, "write: nsctl list; see nsctl --help");
    if (where && !ns_message_address(&address, where))
        fail(EXIT_USAGE, "--broker: %s is neither @name nor a path from /, of at most %d bytes", where,
             NS_MESSAGE_ADDRESS_MAX);
    return told(list(&out, where));
}
