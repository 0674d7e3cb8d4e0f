/*
 * The inbox: bytes of the peer's stream that a connection still held when it was
 * given up. They come before what the connection in use holds, and both are one
 * stream to the application: for reading, for MSG_PEEK, for how much is unread
 * and for when there is enough (SO_RCVLOWAT).
 */
#ifndef NS_ENGINE_INBOX_H
#define NS_ENGINE_INBOX_H

#include "engine/sock.h"

#include <sys/uio.h>

/* Room for `n` more bytes; rx held. Returns 0, -ENOMEM or -EFBIG. */
int ns_inbox_reserve(struct ns_sock *s, size_t n);

/* Adds bytes, for which there is room; table and rx held. */
void ns_inbox_put(struct ns_sock *s, const void *bytes, size_t n);

/* Copies its first bytes to as much of the buffers as they fill; rx held. Takes
 * nothing away. Returns how many, or -EFAULT where one cannot be written. */
ssize_t ns_inbox_copy(const struct ns_sock *s, const struct iovec *to, size_t count);

/* Takes its first `n` bytes away; rx held. When it returns true the inbox alone
 * makes the session readable no more, and ns_inbox_lowered is to be called with
 * no lock held. */
bool ns_inbox_drop(struct ns_sock *s, int fd, size_t n);
void ns_inbox_lowered(struct ns_sock *s);

/* Whether it alone makes the session readable. */
bool ns_inbox_readable(const struct ns_sock *s);

/*
 * While it holds less than the application's low-water mark, the kernel is asked
 * to report the connection readable when that holds the rest; afterwards, and on
 * a new connection at first, the mark is the application's. rx held.
 */
void ns_inbox_mark(struct ns_sock *s, int fd);

/* The kernel is to report the connection readable when that and the inbox hold
 * `bytes`, until ns_inbox_mark; rx held. */
void ns_inbox_expect(struct ns_sock *s, int fd, size_t bytes);

/* Opens the fast path for reads, once it is empty; rx held. */
void ns_sock_open_rx(struct ns_sock *s);

#endif
