/*
 * Preloaded behind the shim: after libc has made a duplicate and before the shim
 * hears of it, the thread waits for a byte on pause_fd, if that is one.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("default"))) int pause_fd = -1;

static int after(int fd)
{
    char byte;

    if (pause_fd >= 0 && read(pause_fd, &byte, 1) != 1)
        return -1;
    return fd;
}

__attribute__((visibility("default"))) int dup(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "dup");

    return after(real(fd));
}

__attribute__((visibility("default"))) int dup2(int fd, int to)
{
    int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "dup2");

    return after(real(fd, to));
}

__attribute__((visibility("default"))) int dup3(int fd, int to, int flags)
{
    int (*real)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, "dup3");

    return after(real(fd, to, flags));
}

__attribute__((visibility("default"))) int fcntl(int fd, int cmd, ...)
{
    int (*real)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl");
    va_list ap;
    long arg;

    va_start(ap, cmd);
    arg = va_arg(ap, long);
    va_end(ap);
    int r = real(fd, cmd, arg);
    return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? after(r) : r;
}
