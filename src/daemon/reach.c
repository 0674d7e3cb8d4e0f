#include "daemon/reach.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/* execve(2) follows as many interpreters that are scripts themselves. */
#define INTERPRETERS_MAX 5

/* Program headers that are looked at; no linker makes more. */
#define HEADERS_MAX 256

/* ---- finding the file ---- */

static int usable(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || access(path, X_OK) < 0)
        return -EACCES;
    return 0;
}

int ns_reach_find(const char *command, char *path, size_t path_bytes)
{
    const char *dir = getenv("PATH"), *end;
    int result = -ENOENT;

    if (strchr(command, '/')) {
        if (strlen(command) >= path_bytes)
            return -ENAMETOOLONG;
        strcpy(path, command);
        return usable(path);
    }
    if (!*command)
        return -ENOENT;
    if (!dir)
        dir = "/bin:/usr/bin";
    for (;; dir = end + 1) {
        size_t len;
        int r;

        end = strchrnul(dir, ':');
        len = (size_t)(end - dir);
        /* An empty entry is the current directory. */
        if (snprintf(path, path_bytes, "%.*s/%s", len ? (int)len : 1, len ? dir : ".", command) <
            (int)path_bytes) {
            r = usable(path);
            if (r == 0)
                return 0;
            if (r == -EACCES)
                result = r;
        }
        if (!*end)
            return result;
    }
}

/* ---- privilege: the linker then ignores LD_PRELOAD (AT_SECURE, getauxval(3)) ---- */

static bool gains_privilege(int fd, const char *path, char *why, size_t why_bytes)
{
    const char *what = NULL;
    struct statvfs vfs;
    struct stat st;

    /* Neither of these lets a program gain anything. */
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 || (fstatvfs(fd, &vfs) == 0 && (vfs.f_flag & ST_NOSUID)))
        return false;
    if (fstat(fd, &st) < 0)
        return false;
    if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
        what = "is set-user-ID";
    else if ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != getgid())
        what = "is set-group-ID";
    else if (getuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0)
        what = "has file capabilities";
    if (what)
        snprintf(why, why_bytes, "%s %s", path, what);
    return what != NULL;
}

/* ---- the ELF header (elf(5)) ---- */

/* The part of it that says how the program is loaded. */
struct image {
    bool elf, other_machine;
    char loader[PATH_MAX]; /* PT_INTERP; "" when there is none */
};

static void read_loader(int fd, const ElfW(Ehdr) * header, struct image *out)
{
    ElfW(Phdr) ph;
    size_t i;

    for (i = 0; i < header->e_phnum && i < HEADERS_MAX; i++) {
        off_t at = (off_t)(header->e_phoff + i * header->e_phentsize);
        ssize_t n;

        if (pread(fd, &ph, sizeof(ph), at) != (ssize_t)sizeof(ph))
            return;
        if (ph.p_type != PT_INTERP)
            continue;
        n = pread(fd, out->loader, ph.p_filesz < sizeof(out->loader) ? ph.p_filesz : sizeof(out->loader) - 1,
                  (off_t)ph.p_offset);
        out->loader[n > 0 ? n : 0] = '\0';
        return;
    }
}

static void read_image(int fd, struct image *out)
{
    ElfW(Ehdr) header;

    memset(out, 0, sizeof(*out));
    if (pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
        return;
    out->elf = true;
    out->other_machine = header.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32);
    if (!out->other_machine)
        read_loader(fd, &header, out);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* The shim is built as this very program is: what loads one loads the other. */
static bool our_loader(const char *loader)
{
    struct image self;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return true;
    read_image(fd, &self);
    close(fd);
    return !*self.loader || strcmp(base_name(self.loader), base_name(loader)) == 0;
}

static enum ns_reach judge_image(const struct image *image, const char *path, char *why, size_t why_bytes)
{
    if (!image->elf)
        return NS_REACH_UNKNOWN;
    if (image->other_machine) {
        snprintf(why, why_bytes, "%s is built for another word size", path);
        return NS_REACH_BREAKS;
    }
    if (!*image->loader) {
        snprintf(why, why_bytes, "%s is statically linked", path);
        return NS_REACH_IGNORES;
    }
    if (!our_loader(image->loader)) {
        snprintf(why, why_bytes, "%s uses another C library (%s)", path, image->loader);
        return NS_REACH_BREAKS;
    }
    return NS_REACH_YES;
}

/* ---- scripts ---- */

/* Puts the interpreter of a "#!" file into `out`. False when it is no such file. */
static bool interpreter(int fd, char *out, size_t out_bytes)
{
    char line[256]; /* BINPRM_BUF_SIZE: the kernel reads no more */
    ssize_t n = pread(fd, line, sizeof(line) - 1, 0);
    size_t start, len;

    if (n < 2 || line[0] != '#' || line[1] != '!')
        return false;
    line[n] = '\0';
    start = 2 + strspn(line + 2, " \t");
    len = strcspn(line + start, " \t\n");
    if (len == 0 || len >= out_bytes)
        return false;
    memcpy(out, line + start, len);
    out[len] = '\0';
    return true;
}

enum ns_reach ns_reach(const char *path, char *why, size_t why_bytes)
{
    char file[PATH_MAX], next[PATH_MAX];
    enum ns_reach result;
    struct image image;
    int depth, fd;
    bool script;

    if (strlen(path) >= sizeof(file))
        return NS_REACH_UNKNOWN;
    strcpy(file, path);
    for (depth = 0; depth <= INTERPRETERS_MAX; depth++) {
        fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return NS_REACH_UNKNOWN;
        script = interpreter(fd, next, sizeof(next));
        if (script) { /* its own mode bits mean nothing (execve(2)) */
            close(fd);
            strcpy(file, next);
            continue;
        }
        read_image(fd, &image);
        result = gains_privilege(fd, file, why, why_bytes) ? NS_REACH_IGNORES
                                                           : judge_image(&image, file, why, why_bytes);
        close(fd);
        return result;
    }
    return NS_REACH_UNKNOWN;
}
