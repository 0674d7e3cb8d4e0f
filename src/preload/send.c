/*
 * Calls that send bytes: send, sendto, sendmsg, sendmmsg, write, writev,
 * pwritev2, sendfile, splice, dprintf and their twins.
 *
 * pwrite and pwritev are libc's own: on a socket they fail with ESPIPE.
 */
#include <stdlib.h>
#include <sys/sendfile.h>

#include "preload/interpose.h"
#include "preload/passing.h"
#include "preload/vector.h"

NS_EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
    if (ns_ours(fd)) {
        ssize_t r = ns_send(fd, buf, len, flags);

        if (r != NS_NOT_OURS)
            return ns_sent(r, flags);
    }
    return ns_real.send(fd, buf, len, flags);
}

NS_TWIN(__send, send);

/* On a connected TCP socket Linux checks the address's length and looks no further. */
NS_EXPORT ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr,
                         socklen_t addr_len)
{
    if (ns_ours(fd)) {
        ssize_t r;

        if (addr && addr_len > sizeof(struct sockaddr_storage))
            r = -EINVAL;
        else if (addr && addr_len && !ns_plausible(addr))
            r = -EFAULT;
        else
            r = ns_send(fd, buf, len, flags);
        if (r != NS_NOT_OURS)
            return ns_sent(r, flags);
    }
    return ns_real.sendto(fd, buf, len, flags, addr, addr_len);
}

NS_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (ns_ours(fd)) {
        ssize_t r = ns_vector_message(msg) && ns_vector_address(msg) ? ns_sendmsg(fd, msg, flags) : -EFAULT;

        if (r != NS_NOT_OURS)
            return ns_sent(r, flags);
    }
    if (ns_plausible(msg) && ns_passing(msg)) {
        int failed = ns_passing_sent(msg);

        if (failed < 0)
            return ns_result(failed);
    }
    return ns_real.sendmsg(fd, msg, flags);
}

/*
 * As the kernel's sendmmsg: at most UIO_MAXIOV messages, stops after one that
 * went out in part, and reports an error only when nothing was sent.
 * NS_NOT_OURS only before the first message.
 */
static ssize_t send_messages(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
    ssize_t r = 0;
    unsigned done = 0;

    if (n > UIO_MAXIOV)
        n = UIO_MAXIOV;
    if (n && !ns_plausible(msgs))
        return -EFAULT;
    while (done < n) {
        struct msghdr *msg = &msgs[done].msg_hdr;
        ssize_t total = ns_vector_bytes(msg->msg_iov, (ssize_t)msg->msg_iovlen);

        r = ns_vector_message(msg) && ns_vector_address(msg) ? ns_sendmsg(fd, msg, flags) : -EFAULT;
        /* Of an empty one the kernel decides, and of no other. */
        if (r == NS_NOT_OURS && total == 0)
            r = ns_real.sendmsg(fd, msg, flags) < 0 ? -errno : 0;
        if (r < 0)
            break;
        msgs[done++].msg_len = (unsigned)r;
        if (r < total)
            break;
    }
    return done ? (ssize_t)done : r;
}

NS_EXPORT int sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
    int r;

    if (ns_ours(fd)) {
        ssize_t sent = send_messages(fd, msgs, n, flags);

        if (sent != NS_NOT_OURS)
            return (int)ns_sent(sent, flags);
    } else if (ns_ready() && ns_plausible(msgs)) {
        for (unsigned i = 0; i < n && i < UIO_MAXIOV; i++)
            if ((r = ns_passing_sent(&msgs[i].msg_hdr)) < 0) {
                if (i == 0)
                    return (int)ns_result(r);
                n = i; /* those before it go */
            }
    }
    return ns_real.sendmmsg(fd, msgs, n, flags);
}

NS_TWIN(__sendmmsg, sendmmsg);

NS_EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
    if (ns_ours(fd)) {
        ssize_t r = ns_send(fd, buf, len, 0);

        if (r != NS_NOT_OURS)
            return ns_sent(r, 0);
    }
    return ns_real.write(fd, buf, len);
}

NS_TWIN(__write, write);

static ssize_t send_vector(int fd, const struct iovec *iov, int n, int flags)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
    ssize_t total = ns_vector_bytes(iov, n);

    if (total <= 0)
        return total;
    if (n == 1)
        return ns_send(fd, iov->iov_base, iov->iov_len, flags);
    return ns_sendmsg(fd, &msg, flags);
}

NS_EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
    if (ns_ours(fd)) {
        ssize_t r = send_vector(fd, iov, n, 0);

        if (r != NS_NOT_OURS)
            return ns_sent(r, 0);
    }
    return ns_real.writev(fd, iov, n);
}

NS_EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int rwf)
{
    if (offset == -1 && ns_ours(fd)) {
        int flags = ns_vector_flags(rwf);
        ssize_t r = flags < 0 ? flags : send_vector(fd, iov, n, flags);

        if (r != NS_NOT_OURS)
            return ns_sent(r, 0);
    }
    return ns_real.pwritev2(fd, iov, n, offset, rwf);
}

NS_TWIN(pwritev64v2, pwritev2);

NS_EXPORT ssize_t sendfile(int fd, int in_fd, off_t *offset, size_t count)
{
    if (ns_ours(fd)) {
        ssize_t r = offset && !ns_plausible(offset) ? -EFAULT : ns_sendfile(fd, in_fd, offset, count);

        if (r != NS_NOT_OURS)
            return ns_sent(r, 0);
    }
    return ns_real.sendfile(fd, in_fd, offset, count);
}

NS_TWIN(sendfile64, sendfile);

NS_EXPORT ssize_t splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t len, unsigned flags)
{
    if (ns_ours(in) || ns_ours(out)) {
        ssize_t r = ns_splice(in, in_offset, out, out_offset, len, flags);

        if (r != NS_NOT_OURS)
            return ns_sent(r, 0);
    }
    return ns_real.splice(in, in_offset, out, out_offset, len, flags);
}

/* stdio's names under _FORTIFY_SOURCE; `level` is its level less one. */
NS_EXPORT int __vdprintf_chk(int fd, int level, const char *format, va_list ap);
NS_EXPORT int __dprintf_chk(int fd, int level, const char *format, ...);

/* One string, all of it: stdio retries what a socket takes only in part. */
static int print_all(int fd, char *text, int len)
{
    int done = 0;

    while (done < len) {
        ssize_t n = write(fd, text + done, (size_t)(len - done));

        if (n < 0) {
            len = -1;
            break;
        }
        done += (int)n;
    }
    free(text);
    return len;
}

NS_EXPORT int vdprintf(int fd, const char *format, va_list ap)
{
    char *text;
    int len;

    if (!ns_ours(fd))
        return ns_real.vdprintf(fd, format, ap);
    len = vasprintf(&text, format, ap);
    return len < 0 ? len : print_all(fd, text, len);
}

NS_EXPORT int dprintf(int fd, const char *format, ...)
{
    va_list ap;
    int r;

    va_start(ap, format);
    r = vdprintf(fd, format, ap);
    va_end(ap);
    return r;
}

NS_EXPORT int __vdprintf_chk(int fd, int level, const char *format, va_list ap)
{
    char *text;
    int len;

    if (!ns_ours(fd))
        return ns_real.__vdprintf_chk(fd, level, format, ap);
    len = ns_real.__vasprintf_chk(&text, level, format, ap);
    return len < 0 ? len : print_all(fd, text, len);
}

NS_EXPORT int __dprintf_chk(int fd, int level, const char *format, ...)
{
    va_list ap;
    int r;

    va_start(ap, format);
    r = __vdprintf_chk(fd, level, format, ap);
    va_end(ap);
    return r;
}
