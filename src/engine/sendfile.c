/*
 * sendfile(2), through memory: what goes out must be in the ring, and the file
 * may be another by the time that it is sent again.
 */
#include "engine/sock.h"
#include "engine/sys.h"

#include <sys/mman.h>

#define PIECE_BYTES (256 * 1024) /* as much as one write to the kernel gets (send.c) */
#define SMALL_BYTES (16 * 1024)  /* from the stack: a mapping costs more than the copy */

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

static ssize_t copy_mapped(int fd, int in_fd, off_t *at, size_t count)
{
    size_t piece = count < PIECE_BYTES ? count : PIECE_BYTES;
    void *buf = mmap(NULL, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (buf == MAP_FAILED)
        return -ENOMEM;
    ssize_t r = copy(fd, in_fd, at, count, buf, piece);
    munmap(buf, piece);
    return r;
}

ssize_t ns_sendfile(int fd, int in_fd, off_t *offset, size_t count)
{
    if (!ns_sock_at(fd))
        return NS_NOT_OURS;
    off_t at = offset ? *offset : (off_t)ns_syscall6(SYS_lseek, in_fd, 0, SEEK_CUR, 0, 0, 0);
    if (at < 0)
        return (ssize_t)at;
    char small[SMALL_BYTES];
    ssize_t r = count <= sizeof small ? copy(fd, in_fd, &at, count, small, sizeof small)
                                      : copy_mapped(fd, in_fd, &at, count);
    if (r < 0)
        return r;
    if (offset)
        *offset = at;
    else
        ns_syscall6(SYS_lseek, in_fd, (long)at, SEEK_SET, 0, 0, 0);
    return r;
}
