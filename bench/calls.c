/*
 * One call, many times, on descriptors that have no session: for calls.py, which
 * counts the instructions of each under callgrind.
 *
 *     calls --list
 *     calls NAME N
 *
 * A byte goes round a pair of Unix sockets, so a call that reads has a partner
 * that writes, and one that opens has one that closes; the partner is a bare system
 * call, which no library in front of libc sees.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int ends[2], queue;
static char byte[1] = "x";
static struct iovec piece = { byte, 1 };

static int bare(long call, int fd)
{
    register long rax __asm__("rax") = call;

    __asm__ volatile("syscall" : "+r"(rax) : "D"(fd), "S"(byte), "d"(1) : "rcx", "r11", "memory");
    return (int)rax;
}

static void fill(void)
{
    bare(SYS_write, ends[1]);
}
static void drain(void)
{
    bare(SYS_read, ends[1]);
}

static void do_read(void)
{
    fill();
    (void)!read(ends[0], byte, 1);
}
static void do_readv(void)
{
    fill();
    (void)!readv(ends[0], &piece, 1);
}
static void do_recv(void)
{
    fill();
    recv(ends[0], byte, 1, 0);
}

static void do_recvmsg(void)
{
    struct msghdr m = { .msg_iov = &piece, .msg_iovlen = 1 };

    fill();
    recvmsg(ends[0], &m, 0);
}

static void do_write(void)
{
    (void)!write(ends[0], byte, 1);
    drain();
}
static void do_writev(void)
{
    (void)!writev(ends[0], &piece, 1);
    drain();
}
static void do_send(void)
{
    send(ends[0], byte, 1, 0);
    drain();
}

static void do_sendmsg(void)
{
    struct msghdr m = { .msg_iov = &piece, .msg_iovlen = 1 };

    sendmsg(ends[0], &m, 0);
    drain();
}

static void do_poll(void)
{
    struct pollfd p = { .fd = ends[0], .events = POLLOUT };

    poll(&p, 1, 0);
}

static void do_select(void)
{
    fd_set set;

    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    select(ends[0] + 1, NULL, &set, NULL, &(struct timeval){ 0 });
}

static void do_epoll_wait(void)
{
    struct epoll_event e;

    epoll_wait(queue, &e, 1, 0);
}

static void do_fcntl(void)
{
    fcntl(ends[0], F_GETFL);
}

static void do_ioctl(void)
{
    int n;

    ioctl(ends[0], FIONREAD, &n);
}

static void do_getsockopt(void)
{
    int value;
    socklen_t len = sizeof(value);

    getsockopt(ends[0], SOL_SOCKET, SO_ERROR, &value, &len);
}

static void do_dup(void)
{
    bare(SYS_close, dup(ends[0]));
}
static void do_close(void)
{
    close(bare(SYS_dup, ends[0]));
}
static void do_open(void)
{
    bare(SYS_close, open("/dev/null", O_RDONLY));
}

static const struct {
    const char *name;
    void (*once)(void);
} calls[] = {
    { "read", do_read },
    { "readv", do_readv },
    { "recv", do_recv },
    { "recvmsg", do_recvmsg },
    { "write", do_write },
    { "writev", do_writev },
    { "send", do_send },
    { "sendmsg", do_sendmsg },
    { "poll", do_poll },
    { "select", do_select },
    { "epoll_wait", do_epoll_wait },
    { "fcntl", do_fcntl },
    { "ioctl", do_ioctl },
    { "getsockopt", do_getsockopt },
    { "dup", do_dup },
    { "close", do_close },
    { "open", do_open },
};
#define COUNT (sizeof(calls) / sizeof(calls[0]))

int main(int argc, char **argv)
{
    struct epoll_event e = { .events = EPOLLOUT };

    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < COUNT; i++)
            puts(calls[i].name);
        return 0;
    }
    if (argc != 3) {
        fputs("Usage: calls --list | NAME N\n", stderr);
        return 2;
    }
    queue = epoll_create1(EPOLL_CLOEXEC);
    if (queue < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) ||
        epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], &e)) {
        perror("calls");
        return 1;
    }
    for (size_t i = 0; i < COUNT; i++)
        if (strcmp(calls[i].name, argv[1]) == 0) {
            for (long n = atol(argv[2]); n > 0; n--)
                calls[i].once();
            return 0;
        }
    fprintf(stderr, "calls: no call %s\n", argv[1]);
    return 2;
}
