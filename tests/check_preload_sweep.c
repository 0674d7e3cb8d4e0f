/*
 * Calls every function that the shim interposes, on plain descriptors of all
 * kinds and with bad arguments, and prints what each returned. The script
 * check_preload.sh runs it with and without the shim and compares: for a plain
 * descriptor there must be no difference. It asserts nothing by itself.
 *
 * Not compiled with _FORTIFY_SOURCE: the fortified twins are called by name.
 */
#include <aio.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wordexp.h>

#include "check_preload_sweep.h"

#define BAD ((void *)-1)

/* What libc exports without declaring it. */
extern ssize_t __send(int, const void *, size_t, int);
extern ssize_t __write(int, const void *, size_t);
extern ssize_t __read(int, void *, size_t);
extern int __sendmmsg(int, struct mmsghdr *, unsigned, int);
extern ssize_t __read_chk(int, void *, size_t, size_t);
extern ssize_t __recv_chk(int, void *, size_t, size_t, int);
extern ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
extern int __poll(struct pollfd *, nfds_t, int);
extern int __poll_chk(struct pollfd *, nfds_t, int, size_t);
extern int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);
extern int __select(int, fd_set *, fd_set *, fd_set *, struct timeval *);
extern int __connect(int, const struct sockaddr *, socklen_t);
extern int __close(int);
extern int __dup2(int, int);
extern int __fcntl(int, int, ...);
extern int __socket(int, int, int);
extern int __pipe(int[2]);
extern int __open(const char *, int, ...);
extern int __open64(const char *, int, ...);
extern int __open_2(const char *, int);
extern int __open64_2(const char *, int);
extern int __openat_2(int, const char *, int);
extern int __openat64_2(int, const char *, int);
extern int __dprintf_chk(int, int, const char *, ...);
extern int __vdprintf_chk(int, int, const char *, va_list);
extern pid_t __vfork(void);
extern FILE *_IO_popen(const char *, const char *);
extern int pidfd_open(pid_t, unsigned);
extern int pidfd_getfd(int, int, unsigned);

const char *sweep_kind;
static volatile sig_atomic_t sigpipes;
static char transcript[1 << 20];
static size_t used;

/* Kept in memory and written at the end: the writing is itself interposed. */
void sweep_note(const char *what, long r, int error)
{
    used += (size_t)snprintf(transcript + used, sizeof transcript - used, "%s: %s = %ld errno %d sigpipe %d\n",
                             sweep_kind, what, r, error, (int)sigpipes);
    if (used >= sizeof transcript)
        abort();
}

static void on_sigpipe(int signal)
{
    sigpipes++;
    errno = EDOM; /* no handler's errno may reach the caller */
}

static int must(int r)
{
    if (r < 0) {
        perror("check_preload_sweep");
        exit(99);
    }
    return r;
}

/* ---- pairs of every kind: what is written to [1] arrives at [0] ---- */

static void tcp_pair(int fds[2], int family)
{
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr *addr = family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
    socklen_t len = family == AF_INET ? sizeof v4 : sizeof v6;
    int listener = must(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));

    must(bind(listener, addr, len));
    SHOW(listen(listener, 4));
    must(getsockname(listener, addr, &len));
    fds[1] = must(socket(family, SOCK_STREAM, 0));
    SHOW(connect(fds[1], addr, len));
    fds[0] = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    close(listener);
}

static void make_pair(int which, int fds[2])
{
    switch (which) {
    case 0:
        sweep_kind = "pipe";
        must(pipe(fds));
        break;
    case 1:
        sweep_kind = "unix";
        must(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
        break;
    case 2:
        sweep_kind = "datagram";
        must(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds));
        break;
    default:
        sweep_kind = "tcp";
        tcp_pair(fds, AF_INET);
        break;
    }
}

#define PAIRS 4

static void await_readable(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    poll(&p, 1, -1);
}

/* ---- sending and receiving ---- */

static struct iovec *two(char *a, char *b)
{
    static struct iovec iov[2];

    iov[0] = (struct iovec){ a, 3 };
    iov[1] = (struct iovec){ b, 2 };
    return iov;
}

/* Takes what is there until nothing more comes, and prints it. */
static void drain(int fd)
{
    char buf[256];
    char line[600];
    ssize_t n;
    int flags = fcntl(fd, F_GETFL);

    await_readable(fd);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    while ((n = read(fd, buf, sizeof buf)) > 0) {
        snprintf(line, sizeof line, "drained %.*s", (int)n, buf);
        sweep_note(line, n, 0);
    }
    fcntl(fd, F_SETFL, flags);
}

static void each_write(int w, int r)
{
    char a[] = "abc", b[] = "de";
    struct iovec *iov = two(a, b);
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
    struct mmsghdr many[2] = { { .msg_hdr = msg }, { .msg_hdr = msg } };

    SHOW(write(w, "1write", 6)), drain(r);
    SHOW(__write(w, "2write", 6)), drain(r);
    SHOW(writev(w, iov, 2)), drain(r);
    SHOW(pwritev2(w, iov, 2, -1, 0)), drain(r);
    SHOW(pwritev64v2(w, iov, 2, -1, 0)), drain(r);
    SHOW(dprintf(w, "%d-%s", 12, "dprintf")), drain(r);
    SHOW(__dprintf_chk(w, 1, "%d-%s", 13, "dprintf")), drain(r);
    if (!strcmp(sweep_kind, "pipe")) {
        SHOW(send(w, "x", 1, 0));
        SHOW(sendmsg(w, &msg, 0));
        SHOW(sendmmsg(w, many, 2, 0));
        return;
    }
    SHOW(send(w, "1send", 5, 0)), drain(r);
    SHOW(__send(w, "2send", 5, MSG_DONTWAIT)), drain(r);
    SHOW(sendto(w, "sendto", 6, MSG_NOSIGNAL, NULL, 0)), drain(r);
    SHOW(sendmsg(w, &msg, 0)), drain(r);
    SHOW(sendmmsg(w, many, 2, 0)), drain(r);
    SHOW(__sendmmsg(w, many, 2, 0)), drain(r);
    SHOW(syscall(SYS_write, w, "sys1", 4)), drain(r);
    SHOW(syscall(SYS_sendto, w, "sys2", 4, 0, NULL, 0)), drain(r);
    SHOW(syscall(SYS_sendmsg, w, &msg, 0)), drain(r);
    SHOW(syscall(SYS_sendmmsg, w, many, 2, 0)), drain(r);
    SHOW(syscall(SYS_writev, w, iov, 2)), drain(r);
}

static void each_read(int w, int r)
{
    char buf[64] = "", more[64];
    struct iovec iov[2] = { { buf, 2 }, { more, 60 } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
    struct mmsghdr many[2] = { { .msg_hdr = msg }, { .msg_hdr = msg } };
    struct timespec t = { 5, 0 };
    struct sockaddr_storage from;
    socklen_t len = sizeof from;

#define SENT (write(w, "123456", 6), await_readable(r))
    SENT, SHOW(read(r, buf, sizeof buf));
    SENT, SHOW(__read(r, buf, sizeof buf));
    SENT, SHOW(__read_chk(r, buf, sizeof buf, sizeof buf));
    SENT, SHOW(readv(r, iov, 2));
    SENT, SHOW(preadv2(r, iov, 2, -1, 0));
    SENT, SHOW(preadv64v2(r, iov, 2, -1, 0));
    SENT, SHOW(syscall(SYS_read, r, buf, sizeof buf));
    if (!strcmp(sweep_kind, "pipe")) {
        SHOW(recv(r, buf, 1, 0));
        SHOW(recvmsg(r, &msg, 0));
        SHOW(recvmmsg(r, many, 2, 0, NULL));
        return;
    }
    SENT, SHOW(recv(r, buf, sizeof buf, MSG_PEEK)), SHOW(recv(r, buf, sizeof buf, 0));
    SENT, SHOW(__recv_chk(r, buf, sizeof buf, sizeof buf, 0));
    SENT, SHOW(recvfrom(r, buf, sizeof buf, 0, (struct sockaddr *)&from, &len)), SHOW(len);
    SENT, SHOW(__recvfrom_chk(r, buf, sizeof buf, sizeof buf, 0, NULL, NULL));
    SENT, SHOW(recvmsg(r, &msg, 0)), SHOW(msg.msg_flags);
    SENT, SHOW(recvmmsg(r, many, 2, MSG_WAITFORONE, &t)), SHOW(many[0].msg_len), SHOW(t.tv_sec);
    SENT, SHOW(recvmmsg(r, many, 2, MSG_DONTWAIT, NULL)), SHOW(many[0].msg_len);
    SENT, SHOW(syscall(SYS_recvfrom, r, buf, sizeof buf, 0, NULL, NULL));
    SENT, SHOW(syscall(SYS_recvmsg, r, &msg, 0));
    SENT, SHOW(syscall(SYS_recvmmsg, r, many, 2, MSG_DONTWAIT, NULL));
    SHOW(recv(r, buf, 1, MSG_DONTWAIT));
    SHOW(read(r, buf, 0));
    SHOW(readv(r, iov, 0));
#undef SENT
}

static void bad_data(int fd)
{
    char buf[8] = "";
    struct iovec iov = { buf, 4 }, wild = { BAD, 4 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 }, far = { .msg_iov = &iov, .msg_iovlen = 5000 };
    struct timespec never = { 0, -1 };

    SHOW(read(fd, NULL, 0));
    SHOW(write(fd, BAD, 4));
    SHOW(writev(fd, BAD, 1));
    SHOW(writev(fd, &wild, 1));
    SHOW(writev(fd, &iov, -1));
    SHOW(writev(fd, &iov, 1025));
    SHOW(readv(fd, &iov, -1));
    SHOW(readv(fd, BAD, 1));
    SHOW(pwritev2(fd, &iov, 1, 0, 0x4000));
    SHOW(send(fd, BAD, 4, MSG_DONTWAIT));
    SHOW(sendto(fd, buf, 1, MSG_DONTWAIT, BAD, 16));
    SHOW(sendmsg(fd, BAD, 0));
    SHOW(sendmsg(fd, NULL, 0));
    SHOW(sendmsg(fd, &far, 0));
    SHOW(sendmmsg(fd, BAD, 1, 0));
    SHOW(sendmmsg(fd, NULL, 0, 0));
    SHOW(recv(fd, BAD, 0, MSG_DONTWAIT));
    SHOW(recvmsg(fd, BAD, MSG_DONTWAIT));
    SHOW(recvmmsg(fd, BAD, 1, MSG_DONTWAIT, NULL));
    SHOW(recvmmsg(fd, BAD, 1, MSG_DONTWAIT, &never));
    SHOW(sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
    SHOW(syscall(SYS_sendmsg, fd, BAD, 0));
}

/* Writing where nobody reads. */
static void broken(int which)
{
    int fds[2];
    struct iovec iov = { "x", 1 };

    make_pair(which, fds);
    close(fds[0]);
    if (which == 3) { /* the first write brings the RST */
        struct pollfd p = { .fd = fds[1], .events = POLLOUT };

        send(fds[1], "x", 1, MSG_NOSIGNAL);
        do
            poll(&p, 1, 100);
        while (!(p.revents & POLLHUP));
        SHOW(send(fds[1], "x", 1, MSG_NOSIGNAL));
    }
    SHOW(write(fds[1], "x", 1));
    SHOW(writev(fds[1], &iov, 1));
    SHOW(send(fds[1], "x", 1, MSG_NOSIGNAL));
    SHOW(send(fds[1], "x", 1, 0));
    SHOW(close(fds[1]));
}

static void data(void)
{
    for (int which = 0; which < PAIRS; which++) {
        int fds[2];

        make_pair(which, fds);
        each_write(fds[1], fds[0]);
        each_read(fds[1], fds[0]);
        close(fds[0]);
        close(fds[1]);
        make_pair(which, fds);
        if (which) /* a pipe with a bad call may block: only sockets take MSG_DONTWAIT */
            bad_data(fds[1]);
        close(fds[0]);
        close(fds[1]);
        if (which != 2)
            broken(which);
    }
    sweep_kind = "none";
    bad_data(-1);
    bad_data(987654);
}

static void files(const char *path)
{
    char buf[32];
    struct iovec iov = { buf, 5 };
    off_t at = 0;
    off64_t from = 0;
    int fds[2], fd, out;

    sweep_kind = "file";
    SHOW(fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
    SHOW(write(fd, "0123456789", 10));
    SHOW(preadv2(fd, &iov, 1, 3, 0)), SHOW(buf[0]);
    SHOW(pwritev2(fd, &iov, 1, 10, 0));
    SHOW(pread(fd, buf, 4, 11));
    SHOW(lseek(fd, 0, SEEK_SET));
    SHOW(read(fd, buf, sizeof buf));
    SHOW(recv(fd, buf, 1, 0));
    make_pair(3, fds);
    sweep_kind = "file";
    SHOW(sendfile(fds[1], fd, &at, 6)), SHOW(at), drain(fds[0]);
    SHOW(sendfile64(fds[1], fd, &at, 6)), SHOW(at), drain(fds[0]);
    SHOW(sendfile(fds[1], -1, NULL, 6));
    SHOW(syscall(SYS_sendfile, fds[1], fd, NULL, 4));
    close(fds[0]);
    close(fds[1]);
    must(pipe(fds));
    SHOW(splice(fd, &from, fds[1], NULL, 5, 0)), SHOW(from), drain(fds[0]);
    SHOW(splice(fd, NULL, fd, NULL, 5, 0));
    close(fds[0]);
    close(fds[1]);
    SHOW(out = __open(path, O_RDONLY)), SHOW(close(out));
    SHOW(out = open64(path, O_RDONLY)), SHOW(close(out));
    SHOW(out = __open64(path, O_RDONLY)), SHOW(__close(out));
    SHOW(out = __open_2(path, O_RDONLY)), SHOW(close(out));
    SHOW(out = __open64_2(path, O_RDONLY)), SHOW(close(out));
    SHOW(out = openat(AT_FDCWD, path, O_RDONLY)), SHOW(close(out));
    SHOW(out = openat64(AT_FDCWD, path, O_RDONLY)), SHOW(close(out));
    SHOW(out = __openat_2(AT_FDCWD, path, O_RDONLY)), SHOW(close(out));
    SHOW(out = __openat64_2(AT_FDCWD, path, O_RDONLY)), SHOW(close(out));
    SHOW(out = creat(path, 0600)), SHOW(close(out));
    SHOW(out = creat64(path, 0600)), SHOW(close(out));
    SHOW(out = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0)), SHOW(syscall(SYS_close, out));
    SHOW(open("/nowhere/at/all", O_RDONLY));
    SHOW(open(BAD, O_RDONLY));
    SHOW(open_by_handle_at(-1, BAD, 0));
    SHOW(close(fd));
    SHOW(close(fd));
    SHOW(close(-1));
    SHOW(syscall(SYS_close, -1));
}

/* ---- asynchronous I/O ---- */

static void complete(struct aiocb *cb)
{
    const struct aiocb *list[] = { cb };

    SHOW(aio_suspend(list, 1, NULL)), SHOW(aio_error(cb)), SHOW(aio_return(cb));
}

static void asynchronous(const char *path)
{
    char buf[32] = "asynchronous";
    struct aiocb one = { .aio_buf = buf, .aio_nbytes = 12, .aio_lio_opcode = LIO_WRITE }, none = one;
    struct aiocb *list[] = { &one, NULL, &none };
    int fds[2];

    sweep_kind = "asynchronous";
    none.aio_lio_opcode = LIO_NOP;
    one.aio_fildes = none.aio_fildes = must(open(path, O_RDWR | O_TRUNC));
    SHOW(aio_write(&one)), complete(&one);
    SHOW(aio_read(&one)), complete(&one), SHOW(strcmp(buf, "asynchronous"));
    SHOW(aio_write64((struct aiocb64 *)&one)), complete(&one);
    SHOW(aio_read64((struct aiocb64 *)&one)), complete(&one);
    SHOW(lio_listio(LIO_WAIT, list, 3, NULL)), SHOW(aio_return(&one));
    SHOW(lio_listio64(LIO_WAIT, (struct aiocb64 *const *)list, 3, NULL)), SHOW(aio_return(&one));
    SHOW(lio_listio(77, list, 3, NULL));
    close(one.aio_fildes);
    one.aio_fildes = -1;
    SHOW(aio_write(&one)), complete(&one);
    make_pair(3, fds);
    sweep_kind = "asynchronous";
    one.aio_fildes = fds[1];
    SHOW(aio_write(&one)), complete(&one);
    one.aio_fildes = fds[0];
    SHOW(aio_read(&one)), complete(&one), SHOW(strcmp(buf, "asynchronous"));
    close(fds[0]);
    close(fds[1]);
}

static void temporary(const char *dir)
{
    static int (*const plain[])(char *) = { mkstemp, mkstemp64 };
    static int (*const flagged[])(char *, int) = { mkostemp, mkostemp64 };
    static int (*const suffixed[])(char *, int) = { mkstemps, mkstemps64 };
    static int (*const both[])(char *, int, int) = { mkostemps, mkostemps64 };
    char path[4096];
    int fd;

    sweep_kind = "temporary";
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/XXXXXX", dir);
        SHOW(fd = plain[i](path)), close(fd), unlink(path);
        snprintf(path, sizeof path, "%s/XXXXXX", dir);
        SHOW(fd = flagged[i](path, O_CLOEXEC)), SHOW(fcntl(fd, F_GETFD)), close(fd), unlink(path);
        snprintf(path, sizeof path, "%s/XXXXXX.c", dir);
        SHOW(fd = suffixed[i](path, 2)), close(fd), unlink(path);
        snprintf(path, sizeof path, "%s/XXXXXX.c", dir);
        SHOW(fd = both[i](path, 2, O_CLOEXEC)), close(fd), unlink(path);
    }
}

/* ---- waiting ---- */

static void only(fd_set *set, int fd)
{
    FD_ZERO(set);
    FD_SET(fd, set);
}

static void readiness(int which)
{
    int fds[2];
    struct pollfd p[2];
    struct timespec none = { 0, 0 }, bit = { 0, 500000 }, wrong = { 0, 1000000000 };
    struct timeval zero = { 0, 0 }, some = { 0, 1000 }, minus = { -1, 0 };
    sigset_t mask;
    fd_set set;

    make_pair(which, fds);
    sigemptyset(&mask);
    p[0] = (struct pollfd){ .fd = fds[0], .events = POLLIN };
    p[1] = (struct pollfd){ .fd = fds[1], .events = POLLOUT };
    for (int full = 0; full < 2; full++) {
        SHOW(poll(p, 2, 0)), SHOW(p[0].revents), SHOW(p[1].revents);
        SHOW(__poll(p, 1, 1));
        SHOW(__poll_chk(p, 1, 0, sizeof p));
        SHOW(ppoll(p, 1, &bit, &mask)), SHOW(bit.tv_nsec);
        SHOW(__ppoll_chk(p, 1, &none, NULL, sizeof p));
        SHOW(syscall(SYS_poll, p, 1, 0));
        SHOW(syscall(SYS_ppoll, p, 1, &none, NULL, 8));
        only(&set, fds[0]), SHOW(select(fds[0] + 1, &set, NULL, NULL, &zero)), SHOW(FD_ISSET(fds[0], &set));
        only(&set, fds[0]), SHOW(__select(fds[0] + 1, &set, NULL, NULL, &zero));
        only(&set, fds[0]), SHOW(select(fds[0] + 1, &set, NULL, NULL, &some)), SHOW(full || some.tv_usec == 0);
        only(&set, fds[0]), SHOW(pselect(fds[0] + 1, &set, NULL, NULL, &none, &mask));
        only(&set, fds[0]), SHOW(syscall(SYS_select, fds[0] + 1, &set, NULL, NULL, &zero));
        only(&set, fds[0]), SHOW(syscall(SYS_pselect6, fds[0] + 1, &set, NULL, NULL, &none, NULL));
        must((int)write(fds[1], "x", 1));
        await_readable(fds[0]);
    }
    SHOW(ppoll(p, 1, &wrong, NULL));
    SHOW(poll(BAD, 1, 0));
    SHOW(poll(p, (nfds_t)-1, 0));
    SHOW(poll(NULL, 0, 0));
    SHOW(select(-1, NULL, NULL, NULL, &zero));
    SHOW(select(0, NULL, NULL, NULL, &minus));
    SHOW(select(1, BAD, NULL, NULL, &zero));
    SHOW(pselect(0, NULL, NULL, NULL, &wrong, NULL));
    close(fds[0]);
    only(&set, fds[0]);
    SHOW(select(fds[0] + 1, &set, NULL, NULL, &zero));
    SHOW(poll(p, 1, 0)), SHOW(p[0].revents);
    close(fds[1]);
}

static void epolls(int which)
{
    struct epoll_event e = { .events = EPOLLIN, .data.u64 = 77 }, got[4];
    struct timespec none = { 0, 0 }, bit = { 0, 300000 }, wrong = { 0, -1 };
    sigset_t mask;
    int fds[2], ep;

    make_pair(which, fds);
    sigemptyset(&mask);
    SHOW(ep = epoll_create1(EPOLL_CLOEXEC));
    SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fds[0], &e));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fds[0], &e));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fds[0], &e));
    for (int full = 0; full < 2; full++) {
        SHOW(epoll_wait(ep, got, 4, 0));
        SHOW(epoll_wait(ep, got, 4, 1));
        SHOW(epoll_pwait(ep, got, 4, 0, &mask));
        SHOW(epoll_pwait2(ep, got, 4, &none, &mask));
        SHOW(epoll_pwait2(ep, got, 4, &bit, NULL));
        SHOW(syscall(SYS_epoll_wait, ep, got, 4, 0));
        SHOW(syscall(SYS_epoll_pwait, ep, got, 4, 0, NULL, 8));
        must((int)write(fds[1], "x", 1));
        await_readable(fds[0]);
    }
    SHOW(got[0].data.u64);
    SHOW(epoll_pwait2(ep, got, 4, &wrong, NULL));
    SHOW(epoll_wait(ep, got, 0, 0));
    SHOW(epoll_wait(ep, got, -3, 0));
    SHOW(epoll_wait(ep, BAD, 4, 0));
    SHOW(epoll_wait(fds[0], got, 4, 0));
    SHOW(epoll_wait(-1, got, 4, 0));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &e));
    SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fds[0], NULL));
    SHOW(epoll_ctl(ep, 99, fds[0], &e));
    SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fds[0], NULL));
    SHOW(syscall(SYS_epoll_ctl, ep, EPOLL_CTL_DEL, fds[0], NULL));
    SHOW(epoll_create(0));
    close(fds[0]);
    close(fds[1]);
    close(ep);
}

static void waits(void)
{
    for (int which = 0; which < PAIRS; which++) {
        readiness(which);
        epolls(which);
    }
}

/* ---- connections ---- */

static void refused(int family)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_storage nowhere = { .ss_family = 200 };
    struct sockaddr unspec = { .sa_family = AF_UNSPEC };
    int probe = must(socket(AF_INET, SOCK_STREAM, 0)), fd;
    socklen_t len = sizeof v4;

    /* A port that is bound and not listening refuses. */
    must(bind(probe, (struct sockaddr *)&v4, len));
    must(getsockname(probe, (struct sockaddr *)&v4, &len));
    fd = must(socket(family, SOCK_STREAM, 0));
    SHOW(connect(fd, (struct sockaddr *)&v4, len));
    SHOW(__connect(fd, (struct sockaddr *)&v4, len));
    SHOW(syscall(SYS_connect, fd, &v4, len));
    SHOW(connect(fd, BAD, len));
    SHOW(connect(fd, NULL, 0));
    SHOW(connect(fd, (struct sockaddr *)&nowhere, sizeof nowhere));
    SHOW(connect(fd, &unspec, sizeof unspec));
    SHOW(connect(fd, (struct sockaddr *)&v4, 1));
    SHOW(connect(-1, (struct sockaddr *)&v4, len));
    SHOW(accept(fd, NULL, NULL));
    SHOW(accept4(fd, NULL, NULL, 0x1234567));
    SHOW(accept(-1, NULL, NULL));
    SHOW(listen(-1, 1));
    SHOW(shutdown(fd, SHUT_RDWR));
    close(fd);
    close(probe);
}

static void connection(void)
{
    struct sockaddr_storage addr;
    int fds[2], value = 0, left = -1;
    socklen_t len = sizeof value, addr_len = sizeof addr;
    struct linger linger = { 1, 0 };

    sweep_kind = "connection";
    refused(AF_INET);
    for (int which = 1; which < PAIRS; which++) {
        make_pair(which, fds);
        SHOW(getsockname(fds[0], (struct sockaddr *)&addr, &addr_len)), SHOW(addr_len);
        addr_len = sizeof addr;
        SHOW(getpeername(fds[0], (struct sockaddr *)&addr, &addr_len)), SHOW(addr_len);
        SHOW(getpeername(fds[0], BAD, &addr_len));
        SHOW(getsockname(-1, (struct sockaddr *)&addr, &addr_len));
        SHOW(getsockopt(fds[0], SOL_SOCKET, SO_TYPE, &value, &len)), SHOW(value);
        SHOW(setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
        SHOW(setsockopt(fds[0], SOL_SOCKET, 9999, &linger, sizeof linger));
        SHOW(getsockopt(-1, SOL_SOCKET, SO_TYPE, &value, &len));
        must((int)write(fds[1], "abc", 3));
        await_readable(fds[0]);
        SHOW(ioctl(fds[0], FIONREAD, &left)), SHOW(left);
        SHOW(syscall(SYS_ioctl, fds[0], FIONREAD, &left)), SHOW(left);
        SHOW(ioctl(fds[0], 0xdeadbeef, &left));
        SHOW(ioctl(-1, FIONREAD, &left));
        SHOW(sockatmark(fds[0])), SHOW(sockatmark(-1));
        SHOW(shutdown(fds[1], SHUT_WR));
        SHOW(shutdown(fds[1], 9));
        SHOW(shutdown(-1, SHUT_WR));
        drain(fds[0]);
        close(fds[0]);
        close(fds[1]);
    }
}

/* ---- numbers ---- */

static void numbers(void)
{
    int fds[2], d, e;
    sigset_t mask;

    sweep_kind = "numbers";
    sigemptyset(&mask);
    SHOW(__pipe(fds));
    SHOW(d = dup(fds[0])), SHOW(close(d));
    SHOW(dup2(fds[0], 50)), SHOW(dup2(fds[1], 50)), SHOW(__dup2(fds[0], 50)), SHOW(dup2(50, 50));
    SHOW(dup3(fds[0], 50, O_CLOEXEC)), SHOW(fcntl(50, F_GETFD));
    SHOW(dup3(50, 50, 0)), SHOW(dup3(fds[0], 51, 12345)), SHOW(dup3(-1, 50, 0)), SHOW(dup2(-1, 50));
    SHOW(dup2(fds[0], -5)), SHOW(dup2(fds[0], 1 << 30)), SHOW(dup(-1)), SHOW(dup2(-1, -1));
    SHOW(syscall(SYS_dup2, fds[0], 52)), SHOW(syscall(SYS_dup3, fds[0], 52, 0)), SHOW(close(52));
    SHOW(d = fcntl(fds[0], F_DUPFD, 60)), SHOW(close(d));
    SHOW(d = fcntl64(fds[0], F_DUPFD_CLOEXEC, 60)), SHOW(__fcntl(d, F_GETFD)), SHOW(close(d));
    SHOW(fcntl(fds[0], F_GETFL)), SHOW(fcntl(fds[0], F_SETFL, O_NONBLOCK)), SHOW(fcntl(-1, F_GETFL));
    SHOW(fcntl(fds[0], F_DUPFD, -1)), SHOW(syscall(SYS_fcntl, fds[0], F_GETFL));
    SHOW(close(50)), SHOW(close(fds[0])), SHOW(close(fds[1]));
    SHOW(pipe2(fds, O_CLOEXEC)), SHOW(fcntl(fds[1], F_GETFD)), SHOW(close(fds[0])), SHOW(close(fds[1]));
    SHOW(pipe2(fds, 12345)), SHOW(pipe(BAD)), SHOW(socketpair(AF_INET, SOCK_STREAM, 0, fds));
    SHOW(d = __socket(AF_INET, SOCK_DGRAM, 0)), SHOW(close(d));
    SHOW(socket(AF_INET, 99, 0)), SHOW(d = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)), SHOW(close(d));
    SHOW(d = eventfd(3, EFD_CLOEXEC)), SHOW(close(d)), SHOW(eventfd(0, 12345));
    SHOW(d = epoll_create(1)), SHOW(close(d)), SHOW(epoll_create1(12345));
    SHOW(d = timerfd_create(CLOCK_MONOTONIC, 0)), SHOW(close(d)), SHOW(timerfd_create(12345, 0));
    SHOW(d = signalfd(-1, &mask, 0)), SHOW(signalfd(d, &mask, 0)), SHOW(close(d));
    SHOW(d = inotify_init()), SHOW(close(d)), SHOW(d = inotify_init1(IN_CLOEXEC)), SHOW(close(d));
    SHOW(inotify_init1(12345)), SHOW(fanotify_init(0xffffffff, 0));
    SHOW(d = memfd_create("sweep", 0)), SHOW(close(d)), SHOW(memfd_create(BAD, 0));
    SHOW(prctl(PR_GET_DUMPABLE)), SHOW(prctl(12345)), SHOW(prctl(PR_SET_SECCOMP, 2, NULL));
    SHOW(d = pidfd_open(getpid(), 0)), SHOW(e = pidfd_getfd(d, 1, 0)), SHOW(close(e)), SHOW(close(d));
    SHOW(pidfd_getfd(-1, 0, 0)), SHOW(syscall(-1)), SHOW(syscall(SYS_getppid) == getppid());
}

static void ranges(void)
{
    int fds[2];

    sweep_kind = "ranges";
    must(pipe(fds));
    must(dup2(fds[0], 80)), must(dup2(fds[0], 81)), must(dup2(fds[0], 90));
    SHOW(close_range(81, 80, 0));
    SHOW(close_range(80, 80, 0)), SHOW(fcntl(80, F_GETFD)), SHOW(fcntl(81, F_GETFD));
    SHOW(close_range(81, 85, 4)), SHOW(fcntl(81, F_GETFD)); /* CLOSE_RANGE_CLOEXEC */
    SHOW(close_range(81, 85, 2)), SHOW(fcntl(81, F_GETFD)); /* CLOSE_RANGE_UNSHARE */
    SHOW(close_range(0, 1, 0x80)), SHOW(syscall(SYS_close_range, 85, 95, 0)), SHOW(fcntl(90, F_GETFD));
    must(dup2(fds[0], 90));
    closefrom(fds[0]);
    SHOW(fcntl(fds[0], F_GETFD)), SHOW(fcntl(90, F_GETFD)), SHOW(fcntl(2, F_GETFD));
}

/* A descriptor in a message is the same file under a new number. */
static void passing(void)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
    struct iovec iov = { "x", 1 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                          .msg_controllen = sizeof control };
    char byte;
    int fds[2], out = 1, in = -1;

    make_pair(1, fds);
    sweep_kind = "passing";
    memcpy(CMSG_DATA(&control.header), &out, sizeof out);
    SHOW(sendmsg(fds[1], &msg, 0));
    memset(&control, 0, sizeof control);
    iov.iov_base = &byte;
    SHOW(recvmsg(fds[0], &msg, 0));
    memcpy(&in, CMSG_DATA(&control.header), sizeof in);
    SHOW(in), SHOW(close(in));
    close(fds[0]);
    close(fds[1]);
}

/* ---- streams and names ---- */

static int vd(int fd, int level, const char *format, ...)
{
    va_list ap;
    int r;

    va_start(ap, format);
    r = level ? __vdprintf_chk(fd, level, format, ap) : vdprintf(fd, format, ap);
    va_end(ap);
    return r;
}

static void streams(const char *path)
{
    int fds[2];
    FILE *f;

    sweep_kind = "streams";
    must(pipe(fds));
    SHOW((f = fdopen(fds[1], "w")) != NULL);
    SHOW(fprintf(f, "stream %d", 5)), SHOW(fclose(f)), drain(fds[0]);
    SHOW(fcntl(fds[1], F_GETFD)), close(fds[0]);
    SHOW(fdopen(-1, "r") != NULL), SHOW(fdopen(1, "q") != NULL);
    SHOW((f = freopen(path, "w", fopen("/dev/null", "r"))) != NULL), SHOW(fclose(f));
    SHOW((f = freopen64(path, "r", fopen("/dev/null", "r"))) != NULL), SHOW(fclose(f));
    SHOW(freopen("/nowhere/at/all", "r", fopen("/dev/null", "r")) != NULL);
    must(pipe(fds));
    SHOW(vd(fds[1], 0, "%d", 123)), SHOW(vd(fds[1], 1, "%d", 123)), drain(fds[0]);
    SHOW(dprintf(-1, "x")), close(fds[0]), close(fds[1]);
}

static void names(void)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST }, *list = NULL;
    struct hostent entry, *h;
    char buf[1024];
    int error;

    sweep_kind = "names";
    SHOW(getaddrinfo("127.0.0.1", "80", &hints, &list)), SHOW(list->ai_family), freeaddrinfo(list);
    SHOW(getaddrinfo("not numeric", "80", &hints, &list)), SHOW(getaddrinfo(NULL, NULL, &hints, &list));
    SHOW(getaddrinfo(NULL, "80", NULL, &list)), freeaddrinfo(list);
    SHOW((h = gethostbyname("127.0.0.1")) != NULL), SHOW(h->h_addrtype);
    SHOW((h = gethostbyname2("::1", AF_INET6)) != NULL), SHOW(h->h_addrtype);
    SHOW(gethostbyname_r("127.0.0.1", &entry, buf, sizeof buf, &h, &error)), SHOW(h == &entry);
    SHOW(gethostbyname_r("127.0.0.1", &entry, buf, 1, &h, &error)), SHOW(h == NULL);
    SHOW(gethostbyname2_r("127.0.0.1", AF_INET, &entry, buf, sizeof buf, &h, &error)), SHOW(h == &entry);
}

/* ---- processes ---- */

static char *const argv3[] = { "sh", "-c", "exit ${SWEEP:-3}", NULL };
static char *const env5[] = { "SWEEP=5", "PATH=/bin:/usr/bin", NULL };

static void replace(int which)
{
    switch (which) {
    case 0:
        execl("/bin/sh", "sh", "-c", "exit 3", NULL);
        break;
    case 1:
        execlp("sh", "sh", "-c", "exit 3", NULL);
        break;
    case 2:
        execle("/bin/sh", "sh", "-c", "exit $SWEEP", NULL, env5);
        break;
    case 3:
        execv("/bin/sh", argv3);
        break;
    case 4:
        execvp("sh", argv3);
        break;
    case 5:
        execve("/bin/sh", argv3, env5);
        break;
    case 6:
        execvpe("sh", argv3, env5);
        break;
    case 7:
        fexecve(open("/bin/sh", O_RDONLY), argv3, env5);
        break;
    case 8:
        execveat(AT_FDCWD, "/bin/sh", argv3, env5, 0);
        break;
    case 9:
        syscall(SYS_execve, "/bin/sh", argv3, env5);
        break;
    case 10:
        _exit(11);
    case 11:
        _Exit(12);
    case 12:
        quick_exit(13);
    case 13:
        syscall(SYS_exit_group, 14);
        break;
    case 14:
        execl("/nowhere/at/all", "x", NULL);
        _exit(errno);
    case 15:
        exit(15);
    }
    _exit(99);
}

static int reaped(pid_t pid)
{
    int status = -1;

    must(waitpid(pid, &status, 0));
    return status;
}

static void processes(void)
{
    pid_t pid;

    sweep_kind = "processes";
    for (int which = 0; which <= 15; which++) {
        pid = must(fork());
        if (pid == 0)
            replace(which);
        SHOW(reaped(pid));
    }
    pid = vfork();
    if (pid == 0)
        _exit(4);
    SHOW(reaped(pid));
    pid = __vfork();
    if (pid == 0)
        _exit(4);
    SHOW(reaped(pid));
    pid = _Fork();
    if (pid == 0)
        _exit(4);
    SHOW(reaped(pid));
    SHOW(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv3, env5)), SHOW(reaped(pid));
    SHOW(posix_spawnp(&pid, "sh", NULL, NULL, argv3, env5)), SHOW(reaped(pid));
    SHOW(posix_spawn(&pid, "/nowhere/at/all", NULL, NULL, argv3, env5));
    posix_spawn_file_actions_t actions;
    SHOW(posix_spawn_file_actions_init(&actions)), SHOW(posix_spawn_file_actions_adddup2(&actions, 1, 9));
    SHOW(posix_spawn_file_actions_adddup2(&actions, -1, 9));
    SHOW(posix_spawn(&pid, "/bin/sh", &actions, NULL, argv3, env5)), SHOW(reaped(pid));
    SHOW(system("exit 6")), SHOW(system(NULL) != 0), SHOW(system("kill -9 $$"));
    FILE *f = popen("echo popen; exit 5", "r");
    char text[20] = "";
    SHOW(f && fgets(text, sizeof text, f)), SHOW(strcmp(text, "popen\n")), SHOW(f ? pclose(f) : -1);
    f = _IO_popen("cat >/dev/null; exit 4", "w");
    SHOW(f ? pclose(f) : -1), SHOW(popen("true", "neither") == NULL);
    wordexp_t words;
    SHOW(wordexp("$(echo a b) `echo c`", &words, 0)), SHOW((int)words.we_wordc), SHOW(strcmp(words.we_wordv[2], "c"));
    wordfree(&words);
    SHOW(wordexp("$(true)", &words, WRDE_NOCMD));
}

/* ---- cancellation: blocked in a plain descriptor, in libc's own function ---- */

static void *block(void *arg)
{
    int *fds = arg;
    struct pollfd p = { .fd = fds[0], .events = POLLIN };
    struct iovec iov;
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    char c;

    iov = (struct iovec){ &c, 1 };
    must((int)write(fds[3], "!", 1));
    switch (fds[2]) {
    case 0:
        return (void *)read(fds[0], &c, 1);
    case 1:
        return (void *)recv(fds[0], &c, 1, 0);
    case 2:
        return (void *)recvmsg(fds[0], &msg, 0);
    case 3:
        return (void *)(long)poll(&p, 1, -1);
    default:
        return (void *)(long)select(0, NULL, NULL, NULL, NULL);
    }
}

static void cancellation(void)
{
    int fds[4], started[2];
    char c;

    make_pair(3, fds);
    sweep_kind = "cancellation";
    must(pipe(started));
    fds[3] = started[1];
    for (int which = 0; which <= 4; which++) {
        pthread_t thread;
        void *result = NULL;

        fds[2] = which;
        if (pthread_create(&thread, NULL, block, fds))
            exit(99);
        must((int)read(started[0], &c, 1));
        pthread_cancel(thread);
        pthread_join(thread, &result);
        SHOW(result == PTHREAD_CANCELED);
    }
    close(fds[0]), close(fds[1]), close(started[0]), close(started[1]);
}

/* Before main: the constructor of a program may do I/O, and so may one that runs before the shim's. */
static __attribute__((constructor)) void early(void)
{
    int fds[2];
    char c;

    sweep_kind = "constructor";
    SHOW(pipe(fds)), SHOW(write(fds[1], "x", 1)), SHOW(read(fds[0], &c, 1));
    SHOW(close(fds[0])), SHOW(close(fds[1]));
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = on_sigpipe };
    char path[4096];
    size_t done = 0;

    if (argc != 2)
        return 2;
    sigaction(SIGPIPE, &action, NULL);
    snprintf(path, sizeof path, "%s/file", argv[1]);
    data();
    files(path);
    asynchronous(path);
    temporary(argv[1]);
    waits();
    connection();
    numbers();
    passing();
    streams(path);
    names();
    processes();
    cancellation();
    sweep_signals();
    ranges();
    while (done < used) {
        ssize_t n = write(1, transcript + done, used - done);

        if (n < 0)
            return 99;
        done += (size_t)n;
    }
    return 0;
}
