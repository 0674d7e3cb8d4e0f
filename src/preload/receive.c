/*
 * Calls that receive bytes: recv, recvfrom, recvmsg, recvmmsg, read, readv,
 * preadv2 and their twins.
 *
 * pread and preadv are libc's own: on a socket they fail with ESPIPE.
 */
#include "preload/interpose.h"
#include "preload/passing.h"
#include "preload/vector.h"

NS_EXPORT ssize_t recv(int fd, void *buf, size_t len, int flags)
{
    if (ns_ours(fd)) {
        ssize_t r = ns_recv(fd, buf, len, flags);

        if (r != NS_NOT_OURS)
            return ns_result(r);
    }
    return ns_real.recv(fd, buf, len, flags);
}

NS_TWIN(__recv, recv);

/* A connected TCP socket gives no source address: its length comes back as 0. */
NS_EXPORT ssize_t recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *addr,
                           socklen_t *addr_len)
{
    if (ns_ours(fd)) {
        ssize_t r = ns_recv(fd, buf, len, flags);

        if (r >= 0 && addr) {
            if (!ns_plausible(addr_len))
                r = -EFAULT;
            else if ((int)*addr_len < 0)
                r = -EINVAL;
            else
                *addr_len = 0;
        }
        if (r != NS_NOT_OURS)
            return ns_result(r);
    }
    return ns_real.recvfrom(fd, buf, len, flags, addr, addr_len);
}

NS_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    ssize_t r;

    if (ns_ours(fd)) {
        r = ns_vector_message(msg) ? ns_recvmsg(fd, msg, flags) : -EFAULT;
        if (r != NS_NOT_OURS)
            return ns_result(r);
    }
    r = ns_real.recvmsg(fd, msg, flags);
    if (r >= 0 && ns_passing(msg))
        ns_passing_received(msg);
    return r;
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/*
 * As the kernel's recvmmsg: the time is looked at between messages only (see
 * recvmmsg(2), BUGS), urgent data end the call, an error that was there before is told at
 * once, and one that comes after the first message by the next call. NS_NOT_OURS only
 * before the first message.
 */
static ssize_t receive_messages(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
    int64_t end = 0;
    unsigned done = 0;
    ssize_t r = 0;

    if (timeout && !ns_plausible(timeout))
        return -EFAULT;
    if (timeout) {
        if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)
            return -EINVAL;
        /* No further off than fits: a century. */
        end = now_ns() + timeout->tv_nsec +
              (timeout->tv_sec < INT64_C(3155760000) ? timeout->tv_sec : INT64_C(3155760000)) * 1000000000;
    }
    if (!(flags & MSG_ERRQUEUE))
        r = ns_recv_failure(fd);
    if (r < 0)
        return r;
    if (n > UIO_MAXIOV)
        n = UIO_MAXIOV;
    if (n && !ns_plausible(msgs))
        return -EFAULT;
    while (done < n) {
        r = ns_vector_message(&msgs[done].msg_hdr)
                ? ns_recvmsg(fd, &msgs[done].msg_hdr, flags & ~MSG_WAITFORONE)
                : -EFAULT;
        if (r < 0)
            break;
        msgs[done++].msg_len = (unsigned)r;
        if (flags & MSG_WAITFORONE)
            flags |= MSG_DONTWAIT;
        if (timeout) {
            int64_t left = end - now_ns();

            if (left < 0)
                left = 0;
            timeout->tv_sec = left / 1000000000;
            timeout->tv_nsec = left % 1000000000;
            if (left == 0)
                break;
        }
        if (msgs[done - 1].msg_hdr.msg_flags & MSG_OOB)
            break;
    }
    if (done && r < 0 && r != -EAGAIN && r != NS_NOT_OURS)
        ns_recv_fails_next(fd, (int)r);
    return done ? (ssize_t)done : r;
}

NS_EXPORT int recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
    int r;

    if (ns_ours(fd)) {
        ssize_t got = receive_messages(fd, msgs, n, flags, timeout);

        if (got != NS_NOT_OURS)
            return (int)ns_result(got);
    }
    r = ns_real.recvmmsg(fd, msgs, n, flags, timeout);
    for (int i = 0; i < r; i++)
        ns_passing_received(&msgs[i].msg_hdr);
    return r;
}

/* read(2) of nothing returns at once, where recv(2) of nothing waits for data. */
NS_EXPORT ssize_t read(int fd, void *buf, size_t len)
{
    if (ns_ours(fd) && len > 0) {
        ssize_t r = ns_recv(fd, buf, len, 0);

        if (r != NS_NOT_OURS)
            return ns_result(r);
    }
    return ns_real.read(fd, buf, len);
}

NS_TWIN(__read, read);

static ssize_t receive_vector(int fd, const struct iovec *iov, int n, int flags)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
    ssize_t total = ns_vector_bytes(iov, n);

    if (total <= 0)
        return total;
    if (n == 1)
        return ns_recv(fd, iov->iov_base, iov->iov_len, flags);
    return ns_recvmsg(fd, &msg, flags);
}

NS_EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
    if (ns_ours(fd)) {
        ssize_t r = receive_vector(fd, iov, n, 0);

        if (r != NS_NOT_OURS)
            return ns_result(r);
    }
    return ns_real.readv(fd, iov, n);
}

NS_EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t offset, int rwf)
{
    if (offset == -1 && ns_ours(fd)) {
        int flags = ns_vector_flags(rwf);
        ssize_t r = flags < 0 ? flags : receive_vector(fd, iov, n, flags);

        if (r != NS_NOT_OURS)
            return ns_result(r);
    }
    return ns_real.preadv2(fd, iov, n, offset, rwf);
}

NS_TWIN(preadv64v2, preadv2);

/* ---- the twins that _FORTIFY_SOURCE calls ---- */

NS_EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
NS_EXPORT ssize_t __recv_chk(int fd, void *buf, size_t len, size_t room, int flags);
NS_EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t len, size_t room, int flags, struct sockaddr *addr,
                                 socklen_t *addr_len);

ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
    if (len > room)
        __chk_fail();
    return read(fd, buf, len);
}

ssize_t __recv_chk(int fd, void *buf, size_t len, size_t room, int flags)
{
    if (len > room)
        __chk_fail();
    return recv(fd, buf, len, flags);
}

ssize_t __recvfrom_chk(int fd, void *buf, size_t len, size_t room, int flags, struct sockaddr *addr,
                       socklen_t *addr_len)
{
    if (len > room)
        __chk_fail();
    return recvfrom(fd, buf, len, flags, addr, addr_len);
}
