/*
 * A server that sends a file with sendfile(2), and its client: for files.py.
 *
 *     files serve           says the port of its listener on loopback; sends the file for each byte that comes
 *     files drive PORT      on one connection: for each line of standard input asks for the file, and says
 *                           how many bytes a second came
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FILE_BYTES (32 << 20)
#define ONCE_BYTES (1 << 20) /* of one call */

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int made_file(void)
{
    static char block[1 << 16];
    int fd = memfd_create("file", MFD_CLOEXEC);

    memset(block, 'x', sizeof block);
    for (size_t done = 0; done < FILE_BYTES; done += sizeof block)
        if (fd < 0 || write(fd, block, sizeof block) != (ssize_t)sizeof block)
            fail("file");
    return fd;
}

static void send_file(int conn, int file)
{
    off_t at = 0;

    while (at < FILE_BYTES)
        if (sendfile(conn, file, &at, ONCE_BYTES) <= 0)
            fail("sendfile");
}

static int serve(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0), file = made_file(), conn;

    /* Not an ephemeral port: clients do not ask there. */
    for (int port = 23900; port < 24900; port++) {
        address.sin_port = htons((uint16_t)port);
        if (bind(listener, (struct sockaddr *)&address, length) == 0)
            break;
    }
    if (listen(listener, 1) || getsockname(listener, (struct sockaddr *)&address, &length))
        fail("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    while ((conn = accept(listener, NULL, NULL)) >= 0) {
        char byte;

        while (read(conn, &byte, 1) == 1)
            send_file(conn, file);
        close(conn);
    }
    fail("accept");
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fetch(int fd)
{
    static char buf[1 << 18];

    if (write(fd, "f", 1) != 1)
        fail("ask");
    for (size_t got = 0; got < FILE_BYTES;) {
        ssize_t n = read(fd, buf, sizeof buf);

        if (n <= 0)
            fail("read");
        got += (size_t)n;
    }
}

static int drive(int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)))
        fail("connect");
    while (getchar() != EOF) {
        double began = now_s();

        fetch(fd);
        printf("%.0f\n", FILE_BYTES / (now_s() - began));
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        return serve();
    if (argc == 3 && strcmp(argv[1], "drive") == 0)
        return drive(atoi(argv[2]));
    fputs("Usage: files serve | drive PORT\n", stderr);
    return 2;
}
