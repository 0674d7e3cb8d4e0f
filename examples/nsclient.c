/*
 * nsclient: the thesis's test client (5.1.6). Reads a line, sends it, prints the
 * reply: with nsserver, an echo at both ends.
 */
#include "levels.h"

#include <errno.h>
#include <namesocket.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A longer line goes in pieces, so that client and server never both wait for room to send. */
#define LINE_BYTES 4096

static void usage(void)
{
    fputs("usage: nsclient [-l none|error|info|debug] host service\n"
          "Sends each line of standard input and prints the reply. See nsclient(1).\n",
          stdout);
}

static int send_all(int nsd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = nsend(nsd, data, len, MSG_NOSIGNAL);

        if (n < 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Prints `len` bytes of reply. Returns 1, 0 when the server has closed, -1 on error. */
static int print_reply(int nsd, size_t len)
{
    char buf[LINE_BYTES];

    while (len) {
        ssize_t n = nrecv(nsd, buf, len < sizeof(buf) ? len : sizeof(buf), 0);

        if (n <= 0)
            return (int)n;
        fwrite(buf, 1, (size_t)n, stdout);
        len -= (size_t)n;
    }
    fflush(stdout);
    return 1;
}

static int converse(int nsd)
{
    char line[LINE_BYTES];

    while (fgets(line, sizeof(line), stdin)) {
        size_t len = strlen(line);
        int r;

        if (send_all(nsd, line, len) < 0) {
            perror("nsclient: nsend");
            return 1;
        }
        r = print_reply(nsd, len);
        if (r < 0) {
            perror("nsclient: nrecv");
            return 1;
        }
        if (r == 0) {
            fputs("nsclient: the server has closed the connection\n", stderr);
            return 1;
        }
    }
    return 0;
}

/* nconnect has only errno to say what is wrong with a name. */
static const char *reason(int error)
{
    switch (error) {
    case ENOENT:
        return "no such host";
    case EAGAIN:
        return "the name servers do not answer";
    case EINVAL:
        return "the service is neither a name in services(5) nor a port";
    default:
        return strerror(error);
    }
}

int main(int argc, char **argv)
{
    int level = NAMESOCKET_LOG_DEBUG; /* as in the thesis's demonstration (6.2) */
    int c, nsd, r;

    opterr = 0;
    while ((c = getopt(argc, argv, "hl:V")) != -1) {
        if (c == 'h') {
            usage();
            return 0;
        } else if (c == 'V') {
            printf("nsclient (namesocket %s)\n", namesocket_version());
            return 0;
        } else if (c != 'l' || parse_level(optarg, &level) < 0) {
            return bad_option("nsclient", c);
        }
    }
    if (argc - optind != 2) {
        fputs("nsclient: give a host and a service, a name in services(5) or a port; see nsclient -h\n",
              stderr);
        return 2;
    }
    namesocket_set_log(level, NULL, NULL);

    nsd = nsocket(SOCK_CLOEXEC);
    if (nsd < 0 || nconnect(nsd, argv[optind], argv[optind + 1]) < 0) {
        fprintf(stderr, "nsclient: cannot connect to %s, service %s: %s\n", argv[optind], argv[optind + 1],
                reason(errno));
        return 1;
    }
    r = converse(nsd);
    nclose(nsd);
    return r;
}
