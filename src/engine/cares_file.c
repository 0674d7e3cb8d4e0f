/*
 * The files that c-ares reads, without libc's descriptors.
 *
 * c-ares reads /etc/resolv.conf, /etc/nsswitch.conf and /dev/urandom with
 * fopen. In a host program's process that would take its lowest free
 * descriptor number for a moment, not close-on-exec, from another thread: a
 * program that puts a descriptor of its own onto just that number, or closes
 * all that it does not know, would have it closed or exchanged under it. So
 * the copy of c-ares that is linked here has its fopen renamed to this one
 * (meson.build), whose streams read a high descriptor by raw system calls.
 */
#include <stdint.h>
#include <stdio.h>

#include "engine/sys.h"

FILE *ns_cares_fopen(const char *path, const char *mode);

static ssize_t read_cookie(void *cookie, char *buf, size_t len)
{
    ssize_t result;

    do {
        result = ns_sys_read((int)(intptr_t)cookie, buf, len);
    } while (result == -EINTR);
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

static int close_cookie(void *cookie)
{
    return ns_sys_close((int)(intptr_t)cookie) < 0 ? -1 : 0;
}

/* As fopen(3) for reading, which is the only mode that c-ares asks for. */
FILE *ns_cares_fopen(const char *path, const char *mode)
{
    static const cookie_io_functions_t functions = { .read = read_cookie, .close = close_cookie };
    int fd = ns_sys_high(ns_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
    FILE *file;

    if (fd < 0) {
        errno = -fd; /* c-ares takes a missing file for an empty one */
        return NULL;
    }
    file = fopencookie((void *)(intptr_t)fd, "r", functions);
    if (!file)
        ns_sys_close(fd);
    return file;
}
