#include "preload/interpose.h"
#include "preload/vector.h"

ssize_t ns_vector_bytes(const struct iovec *iov, ssize_t n)
{
    size_t total = 0;

    if (n < 0 || n > UIO_MAXIOV)
        return -EINVAL;
    if (n && !ns_plausible(iov))
        return -EFAULT;
    for (ssize_t i = 0; i < n; i++) {
        if (iov[i].iov_len > SSIZE_MAX)
            return -EINVAL;
        if (iov[i].iov_len > NS_VECTOR_MAX_BYTES - total)
            total = NS_VECTOR_MAX_BYTES;
        else
            total += iov[i].iov_len;
    }
    return (ssize_t)total;
}

bool ns_vector_address(const struct msghdr *msg)
{
    return !msg->msg_name || !msg->msg_namelen || ns_plausible(msg->msg_name);
}

/* More elements than UIO_MAXIOV are refused before they are looked at. */
bool ns_vector_message(const struct msghdr *msg)
{
    return ns_plausible(msg) &&
           (msg->msg_iovlen == 0 || msg->msg_iovlen > UIO_MAXIOV || ns_plausible(msg->msg_iov));
}

int ns_vector_flags(int rwf)
{
    /* These say something of files and are let pass on a socket. */
    const int ignored = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_APPEND;

    if (rwf & ~(ignored | RWF_NOWAIT))
        return -EOPNOTSUPP;
    return rwf & RWF_NOWAIT ? MSG_DONTWAIT : 0;
}
