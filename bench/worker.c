#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum role { SERVER, CLIENT };

/* The client goes to the first CPU we may use, the server to the second. */
static void pin(enum role role)
{
    cpu_set_t allowed, one;
    int seen = 0;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0 || CPU_COUNT(&allowed) < 2)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || seen++ != (role == SERVER))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof(one), &one);
        return;
    }
}

/* The shim goes in front of whatever is preloaded already. */
static void preload(const char *shim)
{
    const char *present = getenv("LD_PRELOAD");
    char *value;

    if (present && *present) {
        if (asprintf(&value, "%s:%s", shim, present) < 0)
            _exit(127);
    } else {
        value = strdup(shim);
    }
    setenv("LD_PRELOAD", value, 1);
}

static void set_environment(const struct ns_setup *setup, enum ns_variant variant)
{
    unsetenv("NAMESOCKET_ASK");
    if (variant == NS_UNPROTECTED)
        setenv("NAMESOCKET_ASK", "never", 1);
    if (variant == NS_SHIM || variant == NS_UNPROTECTED)
        preload(setup->shim);
}

/* In the child, after fork. */
static void become(const struct ns_setup *setup, enum ns_variant variant, enum role role, int port, int in,
                   int out)
{
    char port_text[16];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(role);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0)
        _exit(127);
    set_environment(setup, variant);
    snprintf(port_text, sizeof(port_text), "%d", port);
    execl(setup->program, "tcpbench", role == SERVER ? "--serve" : "--drive", ns_variant_names[variant],
          "--address", setup->address, "--port", port_text, (char *)NULL);
    fprintf(stderr, "tcpbench: cannot start %s: %s\n", setup->program, strerror(errno));
    _exit(127);
}

static int start(struct ns_worker *w, const struct ns_setup *setup, enum ns_variant variant, enum role role,
                 int port)
{
    int in[2], out[2];

    if (pipe2(in, O_CLOEXEC) < 0)
        return -1;
    if (pipe2(out, O_CLOEXEC) < 0)
        goto err_in;
    w->pid = fork();
    if (w->pid < 0)
        goto err_out;
    if (w->pid == 0)
        become(setup, variant, role, port, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    w->to = fdopen(in[1], "w");
    w->from = fdopen(out[0], "r");
    if (w->to && w->from)
        return 0;
    /* ns_pair_stop ends the process and closes the streams that there are. */
    return -1;
err_out:
    w->pid = 0;
    close(out[0]);
    close(out[1]);
err_in:
    close(in[0]);
    close(in[1]);
    return -1;
}

/* A line from a worker. Workers write whole lines, so waiting for the first
 * byte is enough. Returns 0, or -1 at its end or when time is up. */
static int read_line(struct ns_worker *w, char *line, size_t size, int timeout_ms)
{
    struct pollfd p = { .fd = fileno(w->from), .events = POLLIN };
    int n;

    do
        n = poll(&p, 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        errno = ETIMEDOUT;
    if (n <= 0)
        return -1;
    if (fgets(line, (int)size, w->from))
        return 0;
    errno = EPIPE;
    return -1;
}

int ns_pair_start(struct ns_pair *pair, const struct ns_setup *setup, enum ns_variant variant)
{
    const char *what = "server";
    char line[64];
    int port;

    memset(pair, 0, sizeof(*pair));
    pair->variant = variant;
    if (start(&pair->server, setup, variant, SERVER, setup->port + 100 * (int)variant) < 0 ||
        read_line(&pair->server, line, sizeof(line), setup->timeout_ms) < 0)
        goto err_stop;
    if (sscanf(line, "ready %d", &port) != 1) {
        errno = EPROTO;
        goto err_stop;
    }
    what = "client";
    if (start(&pair->client, setup, variant, CLIENT, port) < 0)
        goto err_stop;
    return 0;
err_stop:
    fprintf(stderr, "tcpbench: %s %s did not start: %s\n", ns_variant_names[variant], what, strerror(errno));
    ns_pair_stop(pair);
    return -1;
}

int ns_pair_order(struct ns_pair *pair, const struct ns_setup *setup, double result[2], const char *format,
                  ...)
{
    char order[128], line[512];
    va_list args;

    va_start(args, format);
    vsnprintf(order, sizeof(order), format, args);
    va_end(args);
    if (fprintf(pair->client.to, "%s\n", order) < 0 || fflush(pair->client.to) != 0 ||
        read_line(&pair->client, line, sizeof(line), setup->timeout_ms) < 0) {
        fprintf(stderr, "tcpbench: %s, \"%s\": no answer: %s\n", ns_variant_names[pair->variant], order,
                strerror(errno));
        return -1;
    }
    if (sscanf(line, "ok %lf %lf", &result[0], &result[1]) == 2)
        return 0;
    fprintf(stderr, "tcpbench: %s, \"%s\": %s", ns_variant_names[pair->variant], order, line);
    return -1;
}

static void stop(struct ns_worker *w)
{
    if (w->to)
        fclose(w->to);
    if (w->from)
        fclose(w->from);
    if (w->pid > 0) {
        kill(w->pid, SIGKILL);
        while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    memset(w, 0, sizeof(*w));
}

void ns_pair_stop(struct ns_pair *pair)
{
    stop(&pair->client);
    stop(&pair->server);
}
