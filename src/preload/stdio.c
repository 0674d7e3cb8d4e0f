/*
 * Streams on descriptors. stdio reads and writes inside libc, where the shim
 * does not see it, so a session under a stream becomes plain TCP.
 */
#include "preload/interpose.h"

NS_EXPORT FILE *fdopen(int fd, const char *mode)
{
    int r = 0;

    while (ns_ours(fd) && (r = ns_fd_leave(fd, "stdio")) == -EINTR)
        ;
    if (r < 0) {
        ns_result(r);
        return NULL;
    }
    return ns_real.fdopen(fd, mode);
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
    int saved = errno;

    closing(stream);
    errno = saved;
    return ns_real.fclose(stream);
}

NS_EXPORT FILE *freopen(const char *path, const char *mode, FILE *stream)
{
    int saved = errno;
    FILE *f;

    closing(stream);
    errno = saved;
    f = ns_real.freopen(path, mode, stream);
    if (f) {
        saved = errno;
        ns_newborn(fileno(f));
        errno = saved;
    }
    return f;
}

NS_TWIN(freopen64, freopen);
