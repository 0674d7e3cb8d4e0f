/*
 * Streams on descriptors. glibc's stdio reads and writes inside libc, where the
 * shim does not see it. So a stream on a session is one of fopencookie(3), whose
 * functions are the interposed read and write. Two members of FILE make it answer
 * as a stream of fdopen: the descriptor for fileno, and the flag by which fclose
 * reports what could not be written and freopen takes the stream (glibc,
 * libio/iofclose.c and freopen.c).
 *
 * Such a stream is byte-oriented: wide functions fail on it (fwide(3)).
 */
#include <stdlib.h>
#include <string.h>

#include "engine/sock.h"
#include "engine/large.h"
#include "preload/interpose.h"
#include "preload/stream.h"

#define IO_IS_FILEBUF 0x2000 /* glibc, libio/libio.h */

static ssize_t stream_read(void *cookie, char *buf, size_t n)
{
    return read(ns_stream_number(cookie), buf, n);
}

/* As libio's own: all of it, or what went before the error. */
static ssize_t stream_write(void *cookie, const char *buf, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t r = write(ns_stream_number(cookie), buf + done, n - done);

        if (r < 0)
            break;
        done += (size_t)r;
    }
    return (ssize_t)done;
}

static int stream_seek(void *cookie, off64_t *offset, int whence)
{
    errno = ESPIPE;
    return -1;
}

static int stream_close(void *cookie)
{
    return close(ns_stream_number(cookie));
}

/* ---- which there are: exit has to write what they hold before the engine looks at what is undelivered ---- */

#define STREAMS 62

/* Never freed, so that no lock is needed, which a fork could find taken. */
struct streams {
    struct streams *next;
    FILE *at[STREAMS]; /* atomic, as next */
};

static struct streams first_streams NS_LARGE;

static bool replace(FILE *old, FILE *new)
{
    for (struct streams *c = &first_streams; c; c = __atomic_load_n(&c->next, __ATOMIC_ACQUIRE))
        for (int i = 0; i < STREAMS; i++) {
            FILE *f = old;

            if (__atomic_compare_exchange_n(&c->at[i], &f, new, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
                return true;
        }
    return false;
}

static void note(FILE *f)
{
    while (!replace(NULL, f)) {
        struct streams *more = calloc(1, sizeof *more), *last = &first_streams, *none = NULL;

        if (!more)
            return;
        while (last->next)
            last = last->next;
        if (!__atomic_compare_exchange_n(&last->next, &none, more, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            free(more);
    }
}

/* As exit does later, a stream that another thread has locked is passed over. */
void ns_streams_flush(void)
{
    for (struct streams *c = &first_streams; c; c = __atomic_load_n(&c->next, __ATOMIC_ACQUIRE))
        for (int i = 0; i < STREAMS; i++) {
            FILE *f = __atomic_load_n(&c->at[i], __ATOMIC_ACQUIRE);

            if (f && ftrylockfile(f) == 0) {
                fflush_unlocked(f);
                funlockfile(f);
            }
        }
}

FILE *ns_stream_open(int fd, const char *mode, cookie_read_function_t *reads)
{
    FILE *f = fopencookie(ns_stream_cookie(fd), mode,
                          (cookie_io_functions_t){ reads ? reads : stream_read, stream_write,
                                                   stream_seek, stream_close });

    if (f) {
        f->_fileno = fd;
        f->_flags |= IO_IS_FILEBUF;
        f->_wide_data = NULL; /* fopencookie's value is not for freopen */
        note(f);
    }
    return f;
}

/* fdopen(3) looks for a plus anywhere in the mode, fopencookie behind the letter. */
static const char *plain_mode(const char *mode)
{
    bool both = strchr(mode, '+') != NULL;

    switch (*mode) {
    case 'r':
        return both ? "r+" : "r";
    case 'w':
        return both ? "w+" : "w";
    case 'a':
        return both ? "a+" : "a";
    default:
        return NULL;
    }
}

NS_EXPORT FILE *fdopen(int fd, const char *mode)
{
    const char *plain = plain_mode(mode);
    int flags;

    if (!plain || !ns_sock_at(fd))
        return ns_real.fdopen(fd, mode);
    flags = fcntl(fd, F_GETFL, 0);
    if (*plain == 'a' && !(flags & O_APPEND))
        fcntl(fd, F_SETFL, flags | O_APPEND);
    return ns_stream_open(fd, plain, NULL);
}

/* What stands behind struct _IO_FILE in each stream of glibc's. */
static const void *vtable(const FILE *f)
{
    const void *p;

    memcpy(&p, f + 1, sizeof p);
    return p;
}

bool ns_stream_ours(const FILE *f)
{
    static const void *cookie_jumps;

    if (!cookie_jumps) {
        FILE *none = fopencookie(NULL, "r", (cookie_io_functions_t){ 0 });

        if (!none)
            return false;
        cookie_jumps = vtable(none);
        ns_real.fclose(none);
    }
    /* An application's own has no descriptor. */
    return f->_fileno >= 0 && vtable(f) == cookie_jumps;
}

/* The stream's descriptor is about to be closed inside libc, after what it still holds was written. */
static void closing(FILE *stream)
{
    int fd = stream ? fileno(stream) : -1;

    if (!ns_ours(fd))
        return;
    fflush(stream);
    ns_fd_closing(fd);
}

NS_EXPORT int fclose(FILE *stream)
{
    int saved = errno, r;
    bool standard = stream && ns_std_closing(stream);

    if (stream && ns_ours(fileno(stream)) && !ns_stream_ours(stream))
        closing(stream);
    if (stream && ns_ready() && ns_stream_ours(stream))
        replace(stream, NULL);
    errno = saved;
    r = ns_real.fclose(stream);
    if (standard)
        ns_std_closed(stream);
    return r;
}

NS_EXPORT FILE *freopen(const char *path, const char *mode, FILE *stream)
{
    int saved = errno;
    bool ours = stream && ns_ready() && ns_stream_ours(stream);
    FILE *f;

    closing(stream);
    if (ours)
        replace(stream, NULL);
    errno = saved;
    f = ns_real.freopen(path, mode, stream);
    if (f) {
        saved = errno;
        if (ours)
            f->_mode = -1; /* it has no memory for wide characters */
        ns_newborn(fileno(f));
        errno = saved;
    }
    return f;
}

NS_TWIN(freopen64, freopen);
