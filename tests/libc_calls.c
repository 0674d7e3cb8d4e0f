#include "libc_calls.h"

#include <dlfcn.h>
#include <stdio.h>

#include "engine/sys.h"

static bool watching;
static int calls;

#define NOTE_CALL() (calls += watching)

void ns_test_watch_libc(bool watch)
{
    watching = watch;
}

int ns_test_libc_calls(void)
{
    return calls;
}

int socket(int domain, int type, int protocol)
{
    int fd = ns_sys_socket(domain, type, protocol);

    NOTE_CALL();
    errno = fd < 0 ? -fd : errno;
    return fd < 0 ? -1 : fd;
}

int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    int result = ns_sys_connect(fd, addr, len);

    NOTE_CALL();
    errno = result < 0 ? -result : errno;
    return result < 0 ? -1 : 0;
}

int close(int fd)
{
    int result = ns_sys_close(fd);

    NOTE_CALL();
    errno = result < 0 ? -result : errno;
    return result < 0 ? -1 : 0;
}

ssize_t recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addr_len)
{
    ssize_t result = ns_sys_recvfrom(fd, buf, len, flags, addr, addr_len);

    NOTE_CALL();
    errno = result < 0 ? (int)-result : errno;
    return result < 0 ? -1 : result;
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
    ssize_t result = ns_sys_send(fd, buf, len, flags);

    NOTE_CALL();
    errno = result < 0 ? (int)-result : errno;
    return result < 0 ? -1 : result;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    int result = ns_sys_setsockopt(fd, level, name, value, len);

    NOTE_CALL();
    errno = result < 0 ? -result : errno;
    return result < 0 ? -1 : 0;
}

int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    int result = ns_sys_getsockname(fd, addr, len);

    NOTE_CALL();
    errno = result < 0 ? -result : errno;
    return result < 0 ? -1 : 0;
}

FILE *fopen(const char *path, const char *mode)
{
    FILE *(*real)(const char *, const char *) = dlsym(RTLD_NEXT, "fopen");

    NOTE_CALL();
    return real(path, mode);
}

FILE *fopencookie(void *cookie, const char *mode, cookie_io_functions_t functions)
{
    FILE *(*real)(void *, const char *, cookie_io_functions_t) = dlsym(RTLD_NEXT, "fopencookie");

    NOTE_CALL();
    return real(cookie, mode, functions);
}
