/*
 * Standard input, output and error that are sessions.
 *
 * stdin, stdout and stderr are variables, and glibc's own functions use them
 * (printf, getchar, perror): they are made to point to streams of ours. What the
 * old stream has read ahead or not yet written, how it buffers and which of its
 * flags are set goes over, as if it were the same stream still (dup2(2) does not
 * touch it). libstdc++ remembers the old ones when it is loaded: there the session
 * becomes plain TCP.
 */
#include <stdio_ext.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/sock.h"
#include "preload/interpose.h"
#include "preload/stream.h"

static struct standard {
    FILE **variable;
    FILE *old, *ours;
} streams[3] = { { &stdin, NULL, NULL }, { &stdout, NULL, NULL }, { &stderr, NULL, NULL } };

static ssize_t read_standard_input(void *cookie, char *buf, size_t n)
{
    FILE *old = streams[STDIN_FILENO].old;
    size_t ahead = (size_t)(old->_IO_read_end - old->_IO_read_ptr);

    if (ahead == 0)
        return read(ns_stream_number(cookie), buf, n);
    if (n > ahead)
        n = ahead;
    memmove(buf, old->_IO_read_ptr, n); /* it may be the same memory */
    old->_IO_read_ptr += n;
    return (ssize_t)n;
}

/* glibc, libio/libio.h */
#define IO_USER_BUF   0x01
#define IO_UNBUFFERED 0x02
#define IO_EOF_SEEN   0x10
#define IO_ERR_SEEN   0x20

static void take_over(struct standard *s)
{
    FILE *old = s->old, *new = s->ours;
    bool own = old->_flags & IO_USER_BUF; /* setvbuf(3) was given the buffer */

    if (old->_flags & IO_UNBUFFERED)
        setvbuf(new, NULL, _IONBF, 0);
    else if (own || __flbf(old))
        setvbuf(new, own ? old->_IO_buf_base : NULL, __flbf(old) ? _IOLBF : _IOFBF, __fbufsize(old));
    if (__fwriting(old) && __fpending(old) > 0) {
        fwrite(old->_IO_write_base, 1, __fpending(old), new);
        __fpurge(old);
    }
    new->_flags |= old->_flags & (IO_EOF_SEEN | IO_ERR_SEEN);
}

/* std::cout, where there is one. dup2 is called between fork and exec: no dlsym. */
extern const char ns_std_cout[] __asm__("_ZSt4cout") __attribute__((weak));

static bool known_to_others(void)
{
    const char *volatile cout = ns_std_cout;

    return cout != NULL;
}

void ns_std_adopt(int fd)
{
    struct standard *s = &streams[fd];
    int saved = errno;
    FILE *old = *s->variable;

    if (!ns_sock_peek(fd) || !old || s->ours == old || fileno(old) != fd)
        return;
    s->old = old;
    s->ours = known_to_others() ? NULL
                                : ns_stream_open(fd, fd == STDIN_FILENO ? "r" : "w",
                                                 fd == STDIN_FILENO ? read_standard_input : NULL);
    if (s->ours) {
        take_over(s);
        *s->variable = s->ours;
    } else {
        while (ns_sock_at(fd) && ns_fd_leave(fd, "standard stream") == -EINTR)
            ;
    }
    errno = saved;
}

bool ns_std_closing(const FILE *f)
{
    for (int i = 0; i < 3; i++)
        if (streams[i].ours == f)
            return true;
    return false;
}

/*
 * The old stream stands there again, closed as glibc leaves one: later use is an
 * error, not a fault. For that it needs a descriptor that it may close.
 */
void ns_std_closed(const FILE *f)
{
    for (int i = 0; i < 3; i++) {
        struct standard *s = &streams[i];

        if (s->ours != f)
            continue;
        if (*s->variable == f)
            *s->variable = s->old;
        s->ours = NULL;
        s->old->_fileno = ns_sys_eventfd2(0, EFD_CLOEXEC);
        ns_real.fclose(s->old);
    }
}
