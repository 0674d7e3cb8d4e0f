/*
 * splice(2) between a session and a pipe, through memory: what goes out must be in
 * the ring, and what comes in may be in the inbox.
 *
 * What the kernel refuses is left to the kernel. What is left are the rules of
 * fs/splice.c: SPLICE_F_NONBLOCK is about the pipe, the socket has O_NONBLOCK and
 * its time-outs; a call that has moved something does not wait any more.
 *
 * Between taking bytes from one side and giving them to the other, handlers are put
 * off (signals.h): one that left by longjmp would take them along.
 */
#include "engine/block.h"
#include "engine/engine.h"
#include "engine/libc.h"
#include "engine/scratch.h"
#include "engine/signals.h"
#include "engine/sys.h"

#include <errno.h>
#include <sys/ioctl.h>

#define PIECE_BYTES (256 * 1024)

static long tee_raw(int in, int out, size_t n, unsigned flags)
{
    return ns_syscall6(SYS_tee, in, out, (long)n, flags, 0, 0);
}

/* How large the pipe is, or a negative errno for what is none. */
static int pipe_bytes(int fd)
{
    return ns_sys_fcntl(fd, F_GETPIPE_SZ, 0);
}

/* Whether a call that goes this way would be refused, or there is nothing to do. */
static bool kernels(int in, const off64_t *in_offset, int out, const off64_t *out_offset, size_t len,
                    unsigned flags)
{
    const unsigned known = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;
    int from = ns_sys_fcntl(in, F_GETFL, 0), to = ns_sys_fcntl(out, F_GETFL, 0);
    return len == 0 || flags & ~known || in_offset || out_offset || from < 0 || to < 0 ||
           (from & O_ACCMODE) == O_WRONLY || (to & O_ACCMODE) == O_RDONLY ||
           (to & O_APPEND && pipe_bytes(in) >= 0); /* a socket, too */
}

/* Until `fd` has `events`: 0, or -EINTR. A cancellation point. */
static int await(int fd, short events, const struct ns_handled *since)
{
    struct pollfd p = { .fd = fd, .events = events };
    int saved = errno, r;
    do
        r = ns_libc.ppoll(&p, 1, NULL, NULL) < 0 ? -errno : 0;
    while (r == -EINTR && !ns_interrupted(since, false, false));
    errno = saved;
    return r;
}

static short ready(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };
    return ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) > 0 ? p.revents : 0;
}

/* ---- from the session into the pipe ---- */

/*
 * How much a write to the pipe takes without waiting: all of it when it is empty;
 * what POLLOUT promises when it is not (pipe(7)), since nobody can say how many of
 * its pages are in use. -EPIPE without readers, -EAGAIN where it is full.
 */
static ssize_t room(int out)
{
    int held = 0, size = pipe_bytes(out);
    short state = ready(out, POLLOUT);
    if (state & POLLERR)
        return -EPIPE;
    if (!(state & POLLOUT))
        return -EAGAIN;
    if (ns_sys_ioctl(out, FIONREAD, &held) < 0 || held > 0)
        return PIPE_BUF;
    return size < PIECE_BYTES ? size : PIECE_BYTES;
}

/* All of it: somebody else may have filled the pipe since room() was asked. */
static void write_all(int out, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = ns_sys_write(out, p, n);
        if (done == -EAGAIN)
            ns_sys_ppoll(&(struct pollfd){ .fd = out, .events = POLLOUT }, 1, NULL, NULL);
        else if (done < 0 && done != -EINTR)
            return; /* the reader has gone with what it had not read */
        if (done > 0) {
            p += done;
            n -= (size_t)done;
        }
    }
}

static ssize_t into_pipe(int in, int out, size_t len, bool wait, char *buf)
{
    struct ns_handled since = ns_handled;
    for (;;) {
        ssize_t fits = room(out), n;
        char first;
        if (fits == -EAGAIN && wait) {
            int err = await(out, POLLOUT, &since);
            if (err < 0)
                return err;
            continue;
        }
        if (fits < 0)
            return fits;
        n = ns_recv(in, &first, 1, MSG_PEEK); /* waits as the socket does */
        if (n <= 0)
            return n;
        ns_signals_put_off();
        fits = room(out);
        n = fits < 0 ? fits : ns_recv(in, buf, len < (size_t)fits ? len : (size_t)fits, MSG_DONTWAIT);
        if (n > 0)
            write_all(out, buf, (size_t)n);
        ns_signals_let_in();
        if (n != -EAGAIN)
            return n;
    }
}

/* ---- from the pipe into the session ---- */

/* A copy of what the pipe holds, which stays there: the socket may take a part of
 * it only. 0 at its end, -EAGAIN where it is empty. */
static ssize_t peek(int in, char *buf, size_t len)
{
    int copy[2];
    int err = (int)ns_syscall6(SYS_pipe2, (long)copy, O_CLOEXEC, 0, 0, 0, 0);
    if (err < 0)
        return err;
    ssize_t n = tee_raw(in, copy[1], len, SPLICE_F_NONBLOCK);
    for (ssize_t done = 0; done < n;) {
        ssize_t r = ns_sys_read(copy[0], buf + done, (size_t)(n - done));
        if (r <= 0)
            n = r < 0 ? r : -EIO;
        else
            done += r;
    }
    ns_sys_close(copy[0]);
    ns_sys_close(copy[1]);
    return n;
}

static void discard(int in, char *buf, size_t n)
{
    while (n > 0) {
        ssize_t done = ns_sys_read(in, buf, n);
        if (done <= 0 && done != -EINTR)
            return;
        if (done > 0)
            n -= (size_t)done;
    }
}

/* Sends the next piece as far as the session takes it now, and takes it out of the
 * pipe. *end: there is nothing, rather than no room. */
static ssize_t move_piece(int in, int out, size_t len, bool more, char *buf, bool *end)
{
    int held = 0;
    ns_signals_put_off();
    ssize_t n = peek(in, buf, len < PIECE_BYTES ? len : PIECE_BYTES), sent = n;
    *end = n <= 0;
    if (n > 0) {
        bool rest = (size_t)n < len && ns_sys_ioctl(in, FIONREAD, &held) == 0 && held > n;
        sent = ns_send(out, buf, (size_t)n, MSG_DONTWAIT | (more || rest ? MSG_MORE : 0));
    }
    if (sent > 0)
        discard(in, buf, (size_t)sent);
    ns_signals_let_in();
    return sent;
}

/* Until the session takes more: 0, or what the call ends with. */
static int await_room(int out, const struct ns_handled *since, bool done, struct ns_time *deadline)
{
    if (ns_nonblocking(out, 0))
        return -EAGAIN;
    if (deadline->ns == 0)
        *deadline = ns_timeout_at(out, SO_SNDTIMEO);
    bool timed = deadline->ns != NS_NEVER.ns;
    struct pollfd p = { .fd = out, .events = POLLOUT };
    int r;
    do {
        int64_t left = deadline->ns - ns_now().ns;
        struct timespec ts = { left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0 };
        r = ns_ppoll(&p, 1, timed ? &ts : NULL, NULL);
    } while (r == -EINTR && !ns_interrupted(since, done, timed));
    return r == 0 ? -EAGAIN : r < 0 && r != NS_NOT_OURS ? r : 0;
}

static ssize_t out_of_pipe(int in, int out, size_t len, bool wait, bool more, char *buf)
{
    struct ns_handled since = ns_handled;
    struct ns_time deadline = { 0 };
    size_t done = 0;
    while (done < len) {
        bool end;
        ssize_t n = move_piece(in, out, len - done, more, buf, &end);
        if (n == -EAGAIN && end && wait && done == 0)
            n = await(in, POLLIN, &since);
        else if (n == -EAGAIN && !end)
            n = await_room(out, &since, done > 0, &deadline);
        else if (n <= 0)
            return done > 0 ? (ssize_t)done : n;
        if (n < 0)
            return done > 0 ? (ssize_t)done : n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static bool waits_for(int pipe_fd, unsigned flags)
{
    return !(flags & SPLICE_F_NONBLOCK) && !ns_nonblocking(pipe_fd, 0);
}

ssize_t ns_splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t len, unsigned flags)
{
    bool from_session = ns_sock_at(in) != NULL;
    if (kernels(in, in_offset, out, out_offset, len, flags) || pipe_bytes(from_session ? out : in) < 0)
        return NS_NOT_OURS;
    struct ns_slot *slot = ns_slot_self();
    if (!slot || !ns_slot_enter(slot, slot))
        return -ENOMEM;
    char *buf = ns_scratch(slot, PIECE_BYTES);
    ssize_t r = !buf           ? -ENOMEM
                : from_session ? into_pipe(in, out, len, waits_for(out, flags), buf)
                               : out_of_pipe(in, out, len, waits_for(in, flags), flags & SPLICE_F_MORE, buf);
    ns_scratch_drop(slot);
    ns_slot_leave(slot);
    return r;
}
