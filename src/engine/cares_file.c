/*
 * The files that c-ares reads, without libc's descriptors and streams.
 *
 * c-ares reads /etc/resolv.conf, /etc/nsswitch.conf and /dev/urandom with
 * fopen. In a host program's process that would take its lowest free
 * descriptor number for a moment, not close-on-exec, from another thread: a
 * program that puts a descriptor of its own onto just that number, or closes
 * all that it does not know, would have it closed or exchanged under it.
 *
 * And libc's streams share locks: opening and closing one takes that of the list
 * of all streams, which fflush(NULL) and exit hold while they write; reading one
 * without a buffer takes stdout's, so that it is flushed. Where the application is
 * in such a write on a session that is suspended, it waits for the helper, who
 * must not wait for it.
 *
 * So the copy of c-ares that is linked here has these functions renamed to those
 * below (meson.build), whose streams read a high descriptor by raw system calls.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sys.h"

struct stream {
    int fd;
    bool failed;
    size_t at, have; /* of what is in the buffer */
    char buffer[1024];
};

FILE *ns_cares_fopen(const char *path, const char *mode);
int ns_cares_fclose(FILE *file);
int ns_cares_setvbuf(FILE *file, char *buffer, int mode, size_t size);
int ns_cares_ferror(FILE *file);
char *ns_cares_fgets(char *line, int size, FILE *file);
size_t ns_cares_fread(void *to, size_t size, size_t n, FILE *file);

/* As fopen(3) for reading, which is the only mode that c-ares asks for. */
FILE *ns_cares_fopen(const char *path, const char *mode)
{
    int fd = ns_sys_high(ns_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
    struct stream *s;

    if (fd < 0) {
        errno = -fd; /* c-ares takes a missing file for an empty one */
        return NULL;
    }
    s = malloc(sizeof *s);
    if (!s) {
        ns_sys_close(fd);
        return NULL;
    }
    s->fd = fd;
    s->failed = false;
    s->at = s->have = 0;
    return (FILE *)s;
}

int ns_cares_fclose(FILE *file)
{
    struct stream *s = (struct stream *)file;
    int fd = s->fd;

    free(s);
    return ns_sys_close(fd) < 0 ? -1 : 0;
}

/* What c-ares reads without a buffer loses nothing by this one. */
int ns_cares_setvbuf(FILE *file, char *buffer, int mode, size_t size)
{
    return 0;
}

int ns_cares_ferror(FILE *file)
{
    return ((struct stream *)file)->failed;
}

/* The next byte, or EOF. */
static int next(struct stream *s)
{
    ssize_t n;

    if (s->at == s->have) {
        do
            n = ns_sys_read(s->fd, s->buffer, sizeof s->buffer);
        while (n == -EINTR);
        s->failed |= n < 0;
        s->at = 0;
        s->have = n > 0 ? (size_t)n : 0;
    }
    return s->at < s->have ? (unsigned char)s->buffer[s->at++] : EOF;
}

char *ns_cares_fgets(char *line, int size, FILE *file)
{
    int n = 0, c = 0;

    while (n < size - 1 && c != '\n' && (c = next((struct stream *)file)) != EOF)
        line[n++] = (char)c;
    line[n] = '\0';
    return n > 0 ? line : NULL;
}

size_t ns_cares_fread(void *to, size_t size, size_t n, FILE *file)
{
    size_t done = 0;
    int c;

    while (done < size * n && (c = next((struct stream *)file)) != EOF)
        ((char *)to)[done++] = (char)c;
    return size ? done / size : 0;
}
