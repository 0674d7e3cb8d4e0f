/*
 * echo-client: a line-oriented client in plain sockets. It knows nothing of
 * namesocket; run it under nsrun and its connection outlives its link.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_BYTES 4096

static int connect_to(const char *host, const char *service)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *list, *a;
    int fd = -1, error = 0, r;

    r = getaddrinfo(host, service, &hints, &list);
    if (r != 0) {
        fprintf(stderr, "echo-client: %s, service %s: %s\n", host, service, gai_strerror(r));
        return -1;
    }
    for (a = list; a; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        error = errno;
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0)
        fprintf(stderr, "echo-client: cannot connect to %s, service %s: %s\n", host, service,
                strerror(error));
    return fd;
}

/* Writes the line, reads as much back, prints it. Returns 1, 0 at the end of the stream, -1 on error. */
static int exchange(int fd, const char *line, size_t len)
{
    char reply[LINE_BYTES];
    size_t sent = 0, got = 0;

    while (sent < len) {
        ssize_t n = send(fd, line + sent, len - sent, MSG_NOSIGNAL);

        if (n < 0)
            return -1;
        sent += (size_t)n;
    }
    while (got < len) {
        ssize_t n = recv(fd, reply + got, len - got, 0);

        if (n <= 0)
            return (int)n;
        got += (size_t)n;
    }
    fwrite(reply, 1, got, stdout);
    fflush(stdout);
    return 1;
}

int main(int argc, char **argv)
{
    char line[LINE_BYTES];
    int fd, r = 1;

    if (argc != 3) {
        fputs("usage: echo-client host service\n", stderr);
        return 2;
    }
    fd = connect_to(argv[1], argv[2]);
    if (fd < 0)
        return 1;
    while (r > 0 && fgets(line, sizeof(line), stdin))
        r = exchange(fd, line, strlen(line));
    if (r < 0)
        perror("echo-client");
    else if (r == 0)
        fputs("echo-client: the server has closed the connection\n", stderr);
    close(fd);
    return r > 0 ? 0 : 1;
}
