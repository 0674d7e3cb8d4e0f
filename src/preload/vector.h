/*
 * What the kernel checks of an iovec before it reads or writes (readv(2)).
 */
#ifndef NS_PRELOAD_VECTOR_H
#define NS_PRELOAD_VECTOR_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/* The most that Linux moves in one call (read(2), NOTES). */
#define NS_VECTOR_MAX_BYTES (0x7fffffffL & ~4095L)

/*
 * Bytes that `n` elements of `iov` describe, at most NS_VECTOR_MAX_BYTES.
 * -EINVAL: n below 0 or above UIO_MAXIOV, or an element longer than SSIZE_MAX.
 * -EFAULT: `iov` cannot be read.
 */
ssize_t ns_vector_bytes(const struct iovec *iov, ssize_t n);

/* False for a message that has no memory, or whose buffers' list has none; as ns_plausible. */
bool ns_vector_message(const struct msghdr *msg);

/* The same of the address of a message that is sent. */
bool ns_vector_address(const struct msghdr *msg);

/* MSG_ flags for the RWF_ flags of preadv2 and pwritev2; -EOPNOTSUPP. */
int ns_vector_flags(int rwf);

#endif
