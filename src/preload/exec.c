/*
 * A process becomes another program. Its sessions go with it (engine/heirloom.h) if
 * the shim will be there, too, which is decided here, by the file and the environment
 * that the program will have. Where that is not certain they become plain TCP.
 *
 * exec is async-signal-safe: no malloc, and what is needed is on the stack.
 */
#include <alloca.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/reach.h"
#include "engine/heirloom.h"
#include "preload/interpose.h"

/* ---- whether the shim will be there ---- */

/* The file that this was loaded from, as the linker has found it. */
static struct {
    bool known;
    const char *path; /* NULL where it is not absolute */
    dev_t device;
    ino_t inode;
    const char *library_path; /* LD_LIBRARY_PATH, by which names without a slash are found */
} own;

void ns_exec_learn(const char *path)
{
    struct stat st;
    const char *where = getenv("LD_LIBRARY_PATH");

    if (!path || stat(path, &st) < 0)
        return;
    own.known = true;
    own.path = *path == '/' ? path : NULL;
    own.device = st.st_dev;
    own.inode = st.st_ino;
    own.library_path = where ? strdup(where) : NULL;
}

static bool is_own(const char *path)
{
    int fd = ns_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    struct stat st;
    bool is;

    if (fd < 0)
        return false;
    is = ns_sys_fstat(fd, &st) == 0 && st.st_dev == own.device && st.st_ino == own.inode;
    ns_sys_close(fd);
    return is;
}

/* The value in `envp`, or NULL. */
static const char *variable(char *const envp[], const char *name)
{
    size_t n = strlen(name);

    for (; envp && *envp; envp++) {
        if (strncmp(*envp, name, n) == 0 && (*envp)[n] == '=')
            return *envp + n + 1;
    }
    return NULL;
}

/* A name without a slash is looked for where it was found for this process (ld.so(8)). */
static bool leads_here(const char *entry, char *const envp[])
{
    const char *where = variable(envp, "LD_LIBRARY_PATH");

    if (strchr(entry, '/'))
        return is_own(entry);
    return own.path && strcmp(entry, strrchr(own.path, '/') + 1) == 0 &&
           strcmp(where ? where : "", own.library_path ? own.library_path : "") == 0 && is_own(own.path);
}

/* How much of `list` is its first entry. */
static size_t entry_length(const char *list)
{
    size_t n = 0;

    while (list[n] && list[n] != ':' && list[n] != ' ')
        n++;
    return n;
}

static bool preloaded(char *const envp[])
{
    const char *list = variable(envp, "LD_PRELOAD");
    char entry[PATH_MAX];

    while (own.known && list && *list) {
        size_t n = entry_length(list);

        if (n > 0 && n < sizeof entry) {
            memcpy(entry, list, n);
            entry[n] = '\0';
            if (leads_here(entry, envp))
                return true;
        }
        list += n;
        while (*list == ':' || *list == ' ')
            list++;
    }
    return false;
}

/* Privilege that this process has gained, or put aside, makes the linker ignore
 * LD_PRELOAD in the next program, too (AT_SECURE, getauxval(3)). */
static bool unprivileged(void)
{
    return ns_syscall6(SYS_getuid, 0, 0, 0, 0, 0, 0) == ns_syscall6(SYS_geteuid, 0, 0, 0, 0, 0, 0) &&
           ns_syscall6(SYS_getgid, 0, 0, 0, 0, 0, 0) == ns_syscall6(SYS_getegid, 0, 0, 0, 0, 0, 0);
}

bool ns_exec_followed(const char *path, char *const envp[])
{
    char why[PATH_MAX + 64];

    return path && unprivileged() && preloaded(envp) && ns_exec_key_sound(variable(envp, "NAMESOCKET_PSK")) &&
           ns_reach(path, why, sizeof why) == NS_REACH_YES;
}

/* ---- exec ---- */

/* Fails with the errno that exec would fail with, before anything is done for it: a
 * shell tries one directory after another. */
static bool cannot(const char *path)
{
    struct stat st;

    if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0) {
        if (stat(path, &st) < 0 || S_ISREG(st.st_mode))
            return false;
        errno = EACCES;
    }
    return errno == EACCES || errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENAMETOOLONG;
}

static size_t count(char *const envp[])
{
    size_t n = 0;

    while (envp && envp[n])
        n++;
    return n;
}

/* "name=number", written from the end of `text`; where it begins. Not snprintf: a child that is
 * another program the next moment has not run that yet, and each piece of libc costs it a fault. */
static char *assignment(char text[64], const char *name, unsigned number)
{
    char *at = text + 64;
    size_t n = strlen(name);

    *--at = '\0';
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    *--at = '=';
    return memcpy(at - n, name, n);
}

/* `envp` with one more variable, in `out`, which has room for two entries more. */
static char *const *with_heirloom(char *const envp[], size_t n, char **out, char text[64], int heirloom)
{
    if (n)
        memcpy(out, envp, n * sizeof *out);
    out[n] = assignment(text, NS_HEIRLOOM_VARIABLE, (unsigned)heirloom);
    out[n + 1] = NULL;
    return out;
}

/*
 * `call` is an exec, which uses `envp`; `path` the file that it loads, or NULL where
 * that cannot be said. It returns only if the exec has failed.
 */
#define BECOME(path, envp, call)                                                                        \
    ({                                                                                                  \
        int r_, saved_, heirloom_ = -1;                                                                 \
                                                                                                        \
        if (ns_ready()) {                                                                               \
            heirloom_ = ns_exec_prepare(ns_exec_concerned() && ns_exec_followed(path, envp));                   \
            if (heirloom_ >= 0) {                                                                       \
                size_t n_ = count(envp);                                                                \
                                                                                                        \
                envp = with_heirloom(envp, n_, alloca((n_ + 2) * sizeof *envp), alloca(64), heirloom_); \
            }                                                                                           \
        }                                                                                               \
        r_ = call;                                                                                      \
        saved_ = errno;                                                                                 \
        if (ns_ready())                                                                                 \
            ns_exec_failed(heirloom_);                                                                  \
        errno = saved_;                                                                                 \
        r_;                                                                                             \
    })

NS_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
    if (ns_ready() && ns_plausible(path) && ns_objects && cannot(path))
        return -1;
    return BECOME(ns_plausible(path) ? path : NULL, envp, ns_real.execve(path, argv, envp));
}

NS_EXPORT int execv(const char *path, char *const argv[])
{
    return execve(path, argv, environ);
}

/* A file that libc would run by a shell, since it is no program, is not followed. */
NS_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
    char path[PATH_MAX];
    int r;

    if (!ns_ready() || !ns_objects)
        return BECOME(NULL, envp, ns_real.execvpe(file, argv, envp));
    r = ns_reach_find(file, path, sizeof path);
    if (r < 0)
        return (int)ns_result(r);
    return BECOME(path, envp, ns_real.execvpe(path, argv, envp));
}

NS_EXPORT int execvp(const char *file, char *const argv[])
{
    return execvpe(file, argv, environ);
}

NS_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
    char path[32];

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return BECOME(path, envp, ns_real.fexecve(fd, argv, envp));
}

NS_EXPORT int execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)
{
    bool plain = ns_plausible(path) && (dir == AT_FDCWD || *path == '/') && flags == 0;

    return BECOME(plain ? path : NULL, envp, ns_real.execveat(dir, path, argv, envp, flags));
}

/*
 * Counts the arguments from `arg` to the NULL and lays them out as a vector on
 * the caller's stack: exec is async-signal-safe, so there is no malloc.
 * `envp` is what follows the NULL.
 */
#define VECTOR(argv, envp, arg)                                    \
    do {                                                           \
        va_list ap;                                                \
        size_t n = 1;                                              \
                                                                   \
        va_start(ap, arg);                                         \
        for (const char *a = arg; a; a = va_arg(ap, const char *)) \
            n++;                                                   \
        va_end(ap);                                                \
        argv = alloca(n * sizeof *argv);                           \
        argv[0] = (char *)arg;                                     \
        va_start(ap, arg);                                         \
        for (size_t i = 1; i < n; i++)                             \
            argv[i] = va_arg(ap, char *);                          \
        if (envp)                                                  \
            *(char *const **)envp = va_arg(ap, char *const *);     \
        va_end(ap);                                                \
    } while (0)

NS_EXPORT int execl(const char *path, const char *arg, ...)
{
    char *const **none = NULL;
    char **argv;

    VECTOR(argv, none, arg);
    return execv(path, argv);
}

NS_EXPORT int execlp(const char *file, const char *arg, ...)
{
    char *const **none = NULL;
    char **argv;

    VECTOR(argv, none, arg);
    return execvp(file, argv);
}

NS_EXPORT int execle(const char *path, const char *arg, ...)
{
    char *const *env;
    char *const **envp = &env;
    char **argv;

    VECTOR(argv, envp, arg);
    return execve(path, argv, env);
}
