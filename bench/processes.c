/*
 * Servers that make a process for each connection, and their client: for processes.py.
 *
 *     processes serve fork|exec     says the port of its listener on loopback
 *     processes one                 one connection, as standard input and output (inetd style)
 *     processes drive PORT          N on standard input: makes N connections, one byte there and back on
 * each, and says how many a second
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PROGRAM "/proc/self/exe"

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int answer_one(int in, int out)
{
    char byte;

    while (read(in, &byte, 1) == 1)
        if (write(out, &byte, 1) != 1)
            return 1;
    return 0;
}

static void serve_one(int listener, int conn, int exec)
{
    close(listener);
    if (exec) {
        dup2(conn, STDIN_FILENO);
        dup2(conn, STDOUT_FILENO);
        close(conn);
        execl(PROGRAM, "processes", "one", NULL);
    }
    _exit(answer_one(conn, conn));
}

static int serve(int exec)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    /* Not an ephemeral port: clients do not ask there. */
    for (int port = 21900; port < 22900; port++) {
        address.sin_port = htons((uint16_t)port);
        if (bind(listener, (struct sockaddr *)&address, length) == 0)
            break;
    }
    if (listen(listener, 128) || getsockname(listener, (struct sockaddr *)&address, &length))
        fail("listen");
    signal(SIGCHLD, SIG_IGN);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int conn = accept(listener, NULL, NULL);

        if (conn < 0)
            fail("accept");
        switch (fork()) {
        case -1:
            fail("fork");
        case 0:
            serve_one(listener, conn, exec);
        }
        close(conn);
    }
}

static void once(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char byte = 'x';

    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)))
        fail("connect");
    if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
        fail("one byte");
    close(fd);
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int drive(int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons((uint16_t)port) };
    int n;

    while (scanf("%d", &n) == 1) {
        double began = now_s();

        for (int i = 0; i < n; i++)
            once(&address);
        printf("%.1f\n", n / (now_s() - began));
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(strcmp(argv[2], "exec") == 0);
    if (argc == 2 && strcmp(argv[1], "one") == 0)
        return answer_one(STDIN_FILENO, STDOUT_FILENO);
    if (argc == 3 && strcmp(argv[1], "drive") == 0)
        return drive(atoi(argv[2]));
    fputs("Usage: processes serve fork|exec | one | drive PORT\n", stderr);
    return 2;
}
