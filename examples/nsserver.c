/*
 * nsserver: the thesis's test server (5.1.5). Echoes what its clients send; one
 * thread, many clients, one nselect() loop.
 */
#include "levels.h"

#include <errno.h>
#include <namesocket.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#define CLIENTS      64
#define BACKLOG      16
#define BUFFER_BYTES 16384

/* The namesocket of each client; -1 where the slot is free. */
static int client2nsd[CLIENTS];

static void usage(void)
{
    fputs("usage: nsserver [-l none|error|info|debug] service\n"
          "Echoes what clients send; service is a name in services(5) or a port. See nsserver(1).\n",
          stdout);
}

static void accept_client(int listener)
{
    int nsd = naccept(listener);
    int i;

    if (nsd < 0) {
        perror("nsserver: naccept");
        return;
    }
    for (i = 0; i < CLIENTS; i++) {
        if (client2nsd[i] < 0 && nsd < FD_SETSIZE) {
            client2nsd[i] = nsd;
            printf("Client %d: Connected\n", i);
            return;
        }
    }
    fprintf(stderr, "nsserver: refused a client: all %d slots are taken\n", CLIENTS);
    nclose(nsd);
}

static void close_client(int i)
{
    nclose(client2nsd[i]);
    client2nsd[i] = -1;
}

static int echo(int nsd, const char *data, size_t len)
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

static void serve_client(int i)
{
    char buf[BUFFER_BYTES];
    ssize_t n = nrecv(client2nsd[i], buf, sizeof(buf), 0);

    if (n > 0)
        printf("Client %d: Got %zd bytes\n", i, n);
    if (n > 0 && echo(client2nsd[i], buf, (size_t)n) == 0)
        return;
    if (n == 0)
        printf("Client %d: Disconnected\n", i);
    else
        fprintf(stderr, "nsserver: client %d: %m\n", i);
    close_client(i);
}

/* Returns one more than the highest descriptor in `set`. */
static int fill(fd_set *set, int listener)
{
    int highest = listener;
    int i;

    FD_ZERO(set);
    FD_SET(listener, set);
    for (i = 0; i < CLIENTS; i++) {
        if (client2nsd[i] < 0)
            continue;
        FD_SET(client2nsd[i], set);
        if (client2nsd[i] > highest)
            highest = client2nsd[i];
    }
    return highest + 1;
}

static int serve(int listener)
{
    for (;;) {
        fd_set readable;
        int nfds = fill(&readable, listener);
        int i;

        if (nselect(nfds, &readable, NULL, NULL, NULL) < 0) {
            perror("nsserver: nselect");
            return 1;
        }
        /* Clients first: a slot that is freed here can be taken below, not the other way round. */
        for (i = 0; i < CLIENTS; i++)
            if (client2nsd[i] >= 0 && FD_ISSET(client2nsd[i], &readable))
                serve_client(i);
        if (FD_ISSET(listener, &readable))
            accept_client(listener);
    }
}

int main(int argc, char **argv)
{
    int level = NAMESOCKET_LOG_DEBUG; /* as in the thesis's demonstration (6.2) */
    int i, c, nsd;

    opterr = 0;
    while ((c = getopt(argc, argv, "hl:V")) != -1) {
        if (c == 'h') {
            usage();
            return 0;
        } else if (c == 'V') {
            printf("nsserver (namesocket %s)\n", namesocket_version());
            return 0;
        } else if (c != 'l' || parse_level(optarg, &level) < 0) {
            return bad_option("nsserver", c);
        }
    }
    if (argc - optind != 1) {
        fputs("nsserver: give one service, a name in services(5) or a port; see nsserver -h\n", stderr);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    namesocket_set_log(level, NULL, NULL);
    for (i = 0; i < CLIENTS; i++)
        client2nsd[i] = -1;

    nsd = nsocket(SOCK_CLOEXEC);
    if (nsd < 0 || nlisten(nsd, argv[optind], BACKLOG) < 0) {
        fprintf(stderr, "nsserver: cannot listen on %s: %s\n", argv[optind],
                errno == EINVAL ? "neither a name in services(5) nor a port" : strerror(errno));
        return 1;
    }
    return serve(nsd);
}
