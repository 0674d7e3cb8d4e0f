/*
 * echo-server: a server as programs are, in plain sockets. It knows nothing of
 * namesocket; run it under nsrun and its connections outlive their links.
 *
 * One thread, select(2), any number of clients up to FD_SETSIZE; a client that
 * does not read delays nobody but itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_BYTES 16384

/* What has been read from a client and not been written back, by descriptor. */
struct client {
    size_t start, end;
    char data[BUFFER_BYTES];
};

static struct client *clients[FD_SETSIZE];

static int listen_on(const char *service)
{
    struct addrinfo hints = { .ai_family = AF_INET6, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *list;
    int on = 1, off = 0, fd = -1, r;

    r = getaddrinfo(NULL, service, &hints, &list);
    if (r != 0) {
        hints.ai_family = AF_INET;
        r = getaddrinfo(NULL, service, &hints, &list);
    }
    if (r != 0) {
        fprintf(stderr, "echo-server: %s: %s\n", service, gai_strerror(r));
        return -1;
    }
    fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (list->ai_family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0) {
        fprintf(stderr, "echo-server: cannot listen on %s: %m\n", service);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

static void drop(int fd)
{
    free(clients[fd]);
    clients[fd] = NULL;
    close(fd);
}

static void accept_client(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (fd < FD_SETSIZE)
        clients[fd] = calloc(1, sizeof(*clients[fd]));
    if (fd >= FD_SETSIZE || !clients[fd])
        close(fd);
}

static int transient(void)
{
    return errno == EAGAIN || errno == EINTR;
}

static void read_from(int fd)
{
    struct client *c = clients[fd];
    ssize_t n = recv(fd, c->data, sizeof(c->data), 0);

    if (n > 0) {
        c->start = 0;
        c->end = (size_t)n;
    } else if (n == 0 || !transient()) {
        drop(fd);
    }
}

static void write_to(int fd)
{
    struct client *c = clients[fd];
    ssize_t n = send(fd, c->data + c->start, c->end - c->start, MSG_NOSIGNAL);

    if (n >= 0)
        c->start += (size_t)n;
    else if (!transient())
        drop(fd);
}

static void serve(int listener)
{
    for (;;) {
        fd_set readable, writable;
        int fd;

        FD_ZERO(&readable);
        FD_ZERO(&writable);
        FD_SET(listener, &readable);
        for (fd = 0; fd < FD_SETSIZE; fd++)
            if (clients[fd])
                FD_SET(fd, clients[fd]->start < clients[fd]->end ? &writable : &readable);
        if (select(FD_SETSIZE, &readable, &writable, NULL, NULL) < 0) {
            if (errno == EINTR)
                continue;
            perror("echo-server: select");
            exit(1);
        }
        for (fd = 0; fd < FD_SETSIZE; fd++) {
            if (clients[fd] && FD_ISSET(fd, &readable))
                read_from(fd);
            /* Usually there is room: spare the second round. */
            if (clients[fd] && clients[fd]->start < clients[fd]->end)
                write_to(fd);
        }
        if (FD_ISSET(listener, &readable))
            accept_client(listener);
    }
}

int main(int argc, char **argv)
{
    int listener;

    if (argc != 2) {
        fputs("usage: echo-server service\n", stderr);
        return 2;
    }
    listener = listen_on(argv[1]);
    if (listener < 0)
        return 1;
    serve(listener);
}
