/*
 * Calls that make a descriptor of another kind. All they do here is to say
 * that the number is new, in case it died where the shim could not see it.
 *
 * Descriptors that libc opens inside (fopen, opendir) are not seen; a
 * stale entry under such a number would need a session closed unseen as well.
 */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "preload/interpose.h"

NS_EXPORT int socket(int domain, int type, int protocol)
{
    return ns_newborn(ns_real.socket(domain, type, protocol));
}

NS_TWIN(__socket, socket);

static int newborn_pair(int r, const int fds[2])
{
    if (r == 0) {
        ns_newborn(fds[0]);
        ns_newborn(fds[1]);
    }
    return r;
}

NS_EXPORT int socketpair(int domain, int type, int protocol, int fds[2])
{
    return newborn_pair(ns_real.socketpair(domain, type, protocol, fds), fds);
}

NS_EXPORT int pipe(int fds[2])
{
    return newborn_pair(ns_real.pipe(fds), fds);
}

NS_TWIN(__pipe, pipe);

NS_EXPORT int pipe2(int fds[2], int flags)
{
    return newborn_pair(ns_real.pipe2(fds, flags), fds);
}

/* ---- files; O_LARGEFILE is 0 where long has 64 bits, so that the LFS names are twins ---- */

/* The mode that follows `flags`, where open(2) takes one. */
#define MODE(mode, flags)                                                                                  \
    do {                                                                                                   \
        va_list ap;                                                                                        \
                                                                                                           \
        va_start(ap, flags);                                                                               \
        mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? (mode_t)va_arg(ap, unsigned) : 0;     \
        va_end(ap);                                                                                        \
    } while (0)

NS_EXPORT int open(const char *path, int flags, ...)
{
    mode_t mode;

    MODE(mode, flags);
    return ns_newborn(ns_real.open(path, flags, mode));
}

NS_TWIN(open64, open);
NS_TWIN(__open, open);
NS_TWIN(__open64, open);

NS_EXPORT int openat(int dir, const char *path, int flags, ...)
{
    mode_t mode;

    MODE(mode, flags);
    return ns_newborn(ns_real.openat(dir, path, flags, mode));
}

NS_TWIN(openat64, openat);

NS_EXPORT int __open_2(const char *path, int flags);
NS_EXPORT int __openat_2(int dir, const char *path, int flags);

/* _FORTIFY_SOURCE's: libc's own ends a program that forgot the mode. */
int __open_2(const char *path, int flags)
{
    return ns_newborn(ns_real.__open_2(path, flags));
}

NS_TWIN(__open64_2, __open_2);

int __openat_2(int dir, const char *path, int flags)
{
    return ns_newborn(ns_real.__openat_2(dir, path, flags));
}

NS_TWIN(__openat64_2, __openat_2);

NS_EXPORT int creat(const char *path, mode_t mode)
{
    return ns_newborn(ns_real.creat(path, mode));
}

NS_TWIN(creat64, creat);

NS_EXPORT int open_by_handle_at(int mount, struct file_handle *handle, int flags)
{
    return ns_newborn(ns_real.open_by_handle_at(mount, handle, flags));
}

NS_EXPORT int mkstemp(char *path)
{
    return ns_newborn(ns_real.mkstemp(path));
}

NS_TWIN(mkstemp64, mkstemp);

NS_EXPORT int mkostemp(char *path, int flags)
{
    return ns_newborn(ns_real.mkostemp(path, flags));
}

NS_TWIN(mkostemp64, mkostemp);

NS_EXPORT int mkstemps(char *path, int suffix)
{
    return ns_newborn(ns_real.mkstemps(path, suffix));
}

NS_TWIN(mkstemps64, mkstemps);

NS_EXPORT int mkostemps(char *path, int suffix, int flags)
{
    return ns_newborn(ns_real.mkostemps(path, suffix, flags));
}

NS_TWIN(mkostemps64, mkostemps);

/* ---- everything else that is a descriptor ---- */

NS_EXPORT int eventfd(unsigned count, int flags)
{
    return ns_newborn(ns_real.eventfd(count, flags));
}

NS_EXPORT int epoll_create(int size)
{
    return ns_newborn(ns_real.epoll_create(size));
}

NS_EXPORT int epoll_create1(int flags)
{
    return ns_newborn(ns_real.epoll_create1(flags));
}

NS_EXPORT int timerfd_create(clockid_t clock, int flags)
{
    return ns_newborn(ns_real.timerfd_create(clock, flags));
}

/* With a descriptor as first argument it makes none. */
NS_EXPORT int signalfd(int fd, const sigset_t *mask, int flags)
{
    int r = ns_real.signalfd(fd, mask, flags);

    return fd == -1 ? ns_newborn(r) : r;
}

NS_EXPORT int inotify_init(void)
{
    return ns_newborn(ns_real.inotify_init());
}

NS_EXPORT int inotify_init1(int flags)
{
    return ns_newborn(ns_real.inotify_init1(flags));
}

NS_EXPORT int fanotify_init(unsigned flags, unsigned event_flags)
{
    return ns_newborn(ns_real.fanotify_init(flags, event_flags));
}

NS_EXPORT int memfd_create(const char *name, unsigned flags)
{
    return ns_newborn(ns_real.memfd_create(name, flags));
}

/* Declared by glibc 2.36 and later only. */
NS_EXPORT int pidfd_open(pid_t pid, unsigned flags);
NS_EXPORT int pidfd_getfd(int pidfd, int target, unsigned flags);

NS_EXPORT int pidfd_open(pid_t pid, unsigned flags)
{
    return ns_newborn(ns_real.pidfd_open(pid, flags));
}

NS_EXPORT int pidfd_getfd(int pidfd, int target, unsigned flags)
{
    return ns_newborn(ns_real.pidfd_getfd(pidfd, target, flags));
}
