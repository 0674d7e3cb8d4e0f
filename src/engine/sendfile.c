/*
 * sendfile(2), through memory: what goes out must be in the ring, and the file
 * may be another by the time that it is sent again.
 */
#include "engine/scratch.h"
#include "engine/sock.h"
#include "engine/sys.h"

#define PIECE_BYTES (256 * 1024) /* as much as one write to the kernel gets (send.c) */
#define SMALL_BYTES (16 * 1024)  /* from the stack: that costs less */

/* Where the file ends now; 0 where that is not known. */
static off_t end_of(int fd)
{
    struct stat st;
    return ns_sys_fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? st.st_size : 0;
}

/* Sends from *at until `count` bytes are sent or the file ends. Returns how many,
 * or what kept the first from being sent. */
static ssize_t copy(int fd, int in_fd, off_t *at, size_t count, char *buf, size_t piece)
{
    off_t end = end_of(in_fd);
    size_t done = 0;
    while (done < count) {
        size_t want = count - done < piece ? count - done : piece;
        ssize_t got = (ssize_t)ns_syscall6(SYS_pread64, in_fd, (long)buf, (long)want, (long)*at, 0, 0);
        /* More is announced only if there is more, or the last segment would be
         * kept back for it (MSG_MORE, send(2)). */
        bool more = got > 0 && done + (size_t)got < count && *at + got < end;
        ssize_t r = got <= 0 ? got : ns_send(fd, buf, (size_t)got, more ? MSG_MORE : 0);
        if (r <= 0)
            return done > 0 ? (ssize_t)done : r;
        *at += r;
        done += (size_t)r;
        if (r < got)
            break;
    }
    return (ssize_t)done;
}

static ssize_t copy_much(int fd, int in_fd, off_t *at, size_t count)
{
    struct ns_slot *slot = ns_slot_self();
    if (!slot || !ns_slot_enter(slot, slot))
        return -ENOMEM;
    char *buf = ns_scratch(slot, PIECE_BYTES);
    ssize_t r = buf ? copy(fd, in_fd, at, count, buf, PIECE_BYTES) : -ENOMEM;
    ns_scratch_drop(slot);
    ns_slot_leave(slot);
    return r;
}

/* What the kernel refuses before it writes to the socket (fs/read_write.c,
 * do_sendfile): 0, or a negative errno. */
static int refused(int fd, int in_fd, const off_t *offset, size_t count, off_t *at)
{
    int flags = ns_sys_fcntl(in_fd, F_GETFL, 0);
    if (flags < 0 || flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY)
        return -EBADF;
    off_t position = (off_t)ns_syscall6(SYS_lseek, in_fd, 0, SEEK_CUR, 0, 0, 0);
    if (position < 0 && offset)
        return (int)position;
    *at = offset ? *offset : position;
    bool appends = ns_sys_fcntl(fd, F_GETFL, 0) & O_APPEND; /* of a socket, too (do_splice_direct) */
    return position < 0 || *at < 0 || count > SSIZE_MAX || appends ? -EINVAL : 0;
}

ssize_t ns_sendfile(int fd, int in_fd, off_t *offset, size_t count)
{
    off_t at = 0;
    if (!ns_sock_at(fd))
        return NS_NOT_OURS;
    int err = refused(fd, in_fd, offset, count, &at);
    if (err < 0)
        return err;
    char small[SMALL_BYTES];
    ssize_t r = count <= sizeof small ? copy(fd, in_fd, &at, count, small, sizeof small)
                                      : copy_much(fd, in_fd, &at, count);
    if (r < 0)
        return r == -EISDIR ? -EINVAL : r; /* what read(2) says of a directory */
    if (offset)
        *offset = at;
    else
        ns_syscall6(SYS_lseek, in_fd, (long)at, SEEK_SET, 0, 0, 0);
    return r;
}
