/*
 * libc's own functions, as the shim calls them.
 *
 * `ns_real` is complete from the first instruction on: before ns_bind its
 * pointers lead to the bare system call, or, for what libc does beyond a
 * system call, to a function that binds first (early.c). So an interposed
 * function never asks whether the shim is ready, and a call from inside an
 * allocator's start-up, or from the constructor of a library that is
 * initialised before us, never enters the dynamic linker.
 *
 * Naming: what the application calls `send` is `ns_real.send` here. Calls that
 * libc lacks (epoll_pwait2 before glibc 2.35) keep the bare system call, which
 * answers ENOSYS where the kernel lacks it too.
 */
#ifndef NS_PRELOAD_REAL_H
#define NS_PRELOAD_REAL_H

#include <aio.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
#include <wordexp.h>

#include "engine/socket.h"

struct file_handle;

/* Calls that are one system call: X(result, name, argument types). */
#define NS_REAL_PLAIN(X)                                                                                   \
    X(ssize_t, read, (int, void *, size_t))                                                                \
    X(ssize_t, readv, (int, const struct iovec *, int))                                                    \
    X(ssize_t, preadv2, (int, const struct iovec *, int, off_t, int))                                      \
    X(ssize_t, recv, (int, void *, size_t, int))                                                           \
    X(ssize_t, recvfrom, (int, void *, size_t, int, struct sockaddr *, socklen_t *))                       \
    X(ssize_t, recvmsg, (int, struct msghdr *, int))                                                       \
    X(int, recvmmsg, (int, struct mmsghdr *, unsigned, int, struct timespec *))                            \
    X(ssize_t, write, (int, const void *, size_t))                                                         \
    X(ssize_t, writev, (int, const struct iovec *, int))                                                   \
    X(ssize_t, pwritev2, (int, const struct iovec *, int, off_t, int))                                     \
    X(ssize_t, send, (int, const void *, size_t, int))                                                     \
    X(ssize_t, sendto, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))               \
    X(ssize_t, sendmsg, (int, const struct msghdr *, int))                                                 \
    X(int, sendmmsg, (int, struct mmsghdr *, unsigned, int))                                               \
    X(ssize_t, sendfile, (int, int, off_t *, size_t))                                                      \
    X(ssize_t, splice, (int, off64_t *, int, off64_t *, size_t, unsigned))                                 \
    X(int, poll, (struct pollfd *, nfds_t, int))                                                           \
    X(int, ppoll, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))                    \
    X(int, select, (int, fd_set *, fd_set *, fd_set *, struct timeval *))                                  \
    X(int, pselect, (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *))        \
    X(int, epoll_ctl, (int, int, int, struct epoll_event *))                                               \
    X(int, epoll_wait, (int, struct epoll_event *, int, int))                                              \
    X(int, epoll_pwait, (int, struct epoll_event *, int, int, const sigset_t *))                           \
    X(int, epoll_pwait2, (int, struct epoll_event *, int, const struct timespec *, const sigset_t *))      \
    X(int, connect, (int, const struct sockaddr *, socklen_t))                                             \
    X(int, listen, (int, int))                                                                             \
    X(int, accept, (int, struct sockaddr *, socklen_t *))                                                  \
    X(int, accept4, (int, struct sockaddr *, socklen_t *, int))                                            \
    X(int, shutdown, (int, int))                                                                           \
    X(int, getsockname, (int, struct sockaddr *, socklen_t *))                                             \
    X(int, getpeername, (int, struct sockaddr *, socklen_t *))                                             \
    X(int, getsockopt, (int, int, int, void *, socklen_t *))                                               \
    X(int, setsockopt, (int, int, int, const void *, socklen_t))                                           \
    X(int, fcntl, (int, int, ...))                                                                         \
    X(int, ioctl, (int, unsigned long, ...))                                                               \
    X(int, close, (int))                                                                                   \
    X(int, close_range, (unsigned, unsigned, int))                                                         \
    X(int, dup, (int))                                                                                     \
    X(int, dup2, (int, int))                                                                               \
    X(int, dup3, (int, int, int))                                                                          \
    X(int, socket, (int, int, int))                                                                        \
    X(int, socketpair, (int, int, int, int *))                                                             \
    X(int, open, (const char *, int, ...))                                                                 \
    X(int, openat, (int, const char *, int, ...))                                                          \
    X(int, creat, (const char *, mode_t))                                                                  \
    X(int, open_by_handle_at, (int, struct file_handle *, int))                                            \
    X(int, pipe, (int *))                                                                                  \
    X(int, pipe2, (int *, int))                                                                            \
    X(int, eventfd, (unsigned, int))                                                                       \
    X(int, epoll_create, (int))                                                                            \
    X(int, epoll_create1, (int))                                                                           \
    X(int, timerfd_create, (clockid_t, int))                                                               \
    X(int, signalfd, (int, const sigset_t *, int))                                                         \
    X(int, inotify_init, (void))                                                                           \
    X(int, inotify_init1, (int))                                                                           \
    X(int, fanotify_init, (unsigned, unsigned))                                                            \
    X(int, memfd_create, (const char *, unsigned))                                                         \
    X(int, pidfd_open, (pid_t, unsigned))                                                                  \
    X(int, pidfd_getfd, (int, int, unsigned))                                                              \
    X(int, execve, (const char *, char *const[], char *const[]))                                           \
    X(int, execveat, (int, const char *, char *const[], char *const[], int))                               \
    X(void, _exit, (int))                                                                                  \
    X(int, prctl, (int, ...))                                                                              \
    X(long, syscall, (long, ...))

/*
 * Calls that are more than one system call: X(result, value of failure, name,
 * parameters, arguments).
 */
#define NS_REAL_WHOLE(X)                                                                                   \
    X(int, -1, __open_2, (const char *a, int b), (a, b))                                                   \
    X(int, -1, __openat_2, (int a, const char *b, int c), (a, b, c))                                       \
    X(int, -1, mkstemp, (char *a), (a))                                                                    \
    X(int, -1, mkostemp, (char *a, int b), (a, b))                                                         \
    X(int, -1, mkstemps, (char *a, int b), (a, b))                                                         \
    X(int, -1, mkostemps, (char *a, int b, int c), (a, b, c))                                              \
    X(FILE *, NULL, fdopen, (int a, const char *b), (a, b))                                                \
    X(FILE *, NULL, freopen, (const char *a, const char *b, FILE *c), (a, b, c))                           \
    X(int, EOF, fclose, (FILE *a), (a))                                                                    \
    X(int, -1, vdprintf, (int a, const char *b, va_list c), (a, b, c))                                     \
    X(int, -1, __vdprintf_chk, (int a, int b, const char *c, va_list d), (a, b, c, d))                     \
    X(int, -1, __vasprintf_chk, (char **a, int b, const char *c, va_list d), (a, b, c, d))                 \
    X(int, EAI_SYSTEM, getaddrinfo,                                                                        \
      (const char *a, const char *b, const struct addrinfo *c, struct addrinfo **d), (a, b, c, d))         \
    X(struct hostent *, NULL, gethostbyname, (const char *a), (a))                                         \
    X(struct hostent *, NULL, gethostbyname2, (const char *a, int b), (a, b))                              \
    X(int, ENOSYS, gethostbyname_r,                                                                        \
      (const char *a, struct hostent *b, char *c, size_t d, struct hostent **e, int *f),                   \
      (a, b, c, d, e, f))                                                                                  \
    X(int, ENOSYS, gethostbyname2_r,                                                                       \
      (const char *a, int b, struct hostent *c, char *d, size_t e, struct hostent **f, int *g),            \
      (a, b, c, d, e, f, g))                                                                               \
    X(int, -1, execvp, (const char *a, char *const b[]), (a, b))                                           \
    X(int, -1, execvpe, (const char *a, char *const b[], char *const c[]), (a, b, c))                      \
    X(int, -1, fexecve, (int a, char *const b[], char *const c[]), (a, b, c))                              \
    X(int, ENOSYS, posix_spawn_file_actions_adddup2, (posix_spawn_file_actions_t * a, int b, int c), (a, b, c)) \
    X(int, ENOSYS, posix_spawn,                                                                            \
      (pid_t * a, const char *b, const posix_spawn_file_actions_t *c, const posix_spawnattr_t *d,          \
       char *const e[], char *const f[]),                                                                  \
      (a, b, c, d, e, f))                                                                                  \
    X(int, ENOSYS, posix_spawnp,                                                                           \
      (pid_t * a, const char *b, const posix_spawn_file_actions_t *c, const posix_spawnattr_t *d,          \
       char *const e[], char *const f[]),                                                                  \
      (a, b, c, d, e, f))                                                                                  \
    X(int, -1, aio_read, (struct aiocb * a), (a))                                                          \
    X(int, -1, aio_write, (struct aiocb * a), (a))                                                         \
    X(int, -1, lio_listio, (int a, struct aiocb *const b[], int c, struct sigevent *d), (a, b, c, d))      \
    X(int, -1, system, (const char *a), (a))                                                               \
    X(FILE *, NULL, popen, (const char *a, const char *b), (a, b))                                         \
    X(int, WRDE_NOSPACE, wordexp, (const char *a, wordexp_t *b, int c), (a, b, c))                         \
    X(pid_t, -1, fork, (void), ())                                                                         \
    X(pid_t, -1, _Fork, (void), ())                                                                        \
    X(int, -1, sigaction, (int a, const struct sigaction *b, struct sigaction *c), (a, b, c))              \
    X(sighandler_t, SIG_ERR, signal, (int a, sighandler_t b), (a, b))                                      \
    X(sighandler_t, SIG_ERR, __sysv_signal, (int a, sighandler_t b), (a, b))                               \
    X(sighandler_t, SIG_ERR, sigset, (int a, sighandler_t b), (a, b))

struct ns_real {
#define X(result, name, args) result(*name) args;
    NS_REAL_PLAIN(X)
#undef X
#define X(result, failure, name, params, args) result(*name) params;
    NS_REAL_WHOLE(X)
#undef X
    void (*quick_exit)(int);
};

extern struct ns_real ns_real;

/*
 * Looks every function up behind us (RTLD_NEXT) and fills ns_real. May be
 * called more than once and by several threads: each writes the same values.
 * Must not be called from an allocator. errno is left alone.
 */
void ns_bind(void);

#endif
