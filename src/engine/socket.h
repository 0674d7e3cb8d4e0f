/*
 * The engine's face: what the shim and the library call for a descriptor.
 *
 * Every function here that takes `fd` may be called from any thread, for any
 * descriptor. Results are those of the system call of the same name, except
 * that an error is returned as a negative errno and `errno` is left alone.
 * A function returns NS_NOT_OURS when the engine has nothing to do with the
 * descriptor (or no longer has); the caller then calls libc itself. Nothing
 * here is async-signal-safe beyond what is said at the function.
 */
#ifndef NS_ENGINE_SOCKET_H
#define NS_ENGINE_SOCKET_H

#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

#define NS_NOT_OURS INT_MIN

/* Descriptors at or above this number are never protected. */
#define NS_FD_MAX (1 << 20)

struct ns_object;
struct ns_slot;
extern _Atomic(struct ns_object *) *ns_table;

/* Whether the engine holds anything for `fd`. One load; async-signal-safe. */
static inline bool ns_ours(int fd)
{
    return (unsigned)fd < NS_FD_MAX && ns_table &&
           __atomic_load_n((struct ns_object **)&ns_table[fd], __ATOMIC_ACQUIRE) != NULL;
}

/* Whether it holds anything at all: without, no set of descriptors has to be looked through. */
extern struct ns_object *ns_objects;
static inline bool ns_engaged(void)
{
    return __atomic_load_n(&ns_objects, __ATOMIC_RELAXED) != NULL;
}

/*
 * Reads NAMESOCKET_* from the environment (docs: nsrun(1)), maps the table.
 * Called once, before any other function, with ns_libc filled. Starts no
 * thread and opens no descriptor. Returns 0, or, when nothing is protected, -ENOMEM or
 * -EINVAL (NAMESOCKET_PSK is bad: nobody is to be spoken to without a key).
 */
int ns_engine_init(void);

/* ---- descriptors are born and die ---- */

/* `fd` has just been created by whatever call: a stale entry is dropped. */
void ns_fd_born(int fd);

/*
 * Around a call that makes a duplicate of `oldfd` (dup, dup2, dup3, F_DUPFD):
 * _duplicating before it, then, with its result, _duplicated. In between the
 * connection may be replaced, and `oldfd` closed, by another thread.
 */
struct ns_duplicate {
    struct ns_slot *slot;
    struct ns_object *object;
};
void ns_fd_duplicating(struct ns_duplicate *d, int oldfd);
void ns_fd_duplicated(struct ns_duplicate *d, int newfd);

/*
 * Before close(fd), and before dup2/dup3 onto fd. Afterwards the caller does
 * the real call. Returns 0. May hand an undelivered session to the helper
 * thread, which keeps a duplicate until its last byte is acknowledged.
 */
int ns_fd_closing(int fd);

/* Before what the kernel is asked about the socket, or told: waits while it may be a relay's (joint.h). */
void ns_fd_settle(int fd);

/* fcntl(2) or ioctl(2) (`call`) that sets a flag or an owner: with the table held, since what is set while a
 * connection is replaced, or goes to a relay, is to be so on the next one. NS_NOT_OURS: the kernel's. */
int ns_fd_set(int fd, long call, unsigned long command, long arg);

/* Whether `fd` is one of the engine's own descriptors, which an application's
 * close, closefrom and close_range must pass over. */
bool ns_fd_internal(int fd);

/*
 * Makes a session plain TCP, with `why` in the log, for what the engine cannot
 * repeat (splice, zero copy). That takes a working connection: where there is
 * none it waits, or says -EAGAIN without `wait`. -EINTR: a signal has come.
 * Any other error is the one with which the session has ended. What was unread
 * of an earlier connection is still read by ns_recv first (ns_fd_inbox).
 */
int ns_fd_demote(int fd, const char *why, bool wait);

/* The same for a descriptor that goes where the engine cannot follow (stdio,
 * another process or program). Bytes of an earlier connection cannot go there:
 * rather than miss them, the stream ends with an error. */
int ns_fd_leave(int fd, const char *why);

/* Before a descriptor goes to another process by SCM_RIGHTS, after ns_fd_leave, and when one
 * has come: if it listens, or will, others may accept what comes there. */
void ns_fd_passed(int fd);

/* How many bytes of an earlier connection are unread. */
size_t ns_fd_inbox(int fd);

/* ---- naming ---- */

/* The application learned that `name` has these addresses (NULL-safe). */
void ns_names_learn(const char *name, const struct addrinfo *list);
void ns_names_learn_hostent(const char *name, const struct hostent *h);

/* ---- connection life ---- */

int ns_connect(int fd, const struct sockaddr *addr, socklen_t len);  /* any socket */
int ns_listen(int fd, int backlog);                                   /* any socket; does the real listen */
int ns_accept(int fd, struct sockaddr *addr, socklen_t *len, int flags); /* NS_NOT_OURS: not our listener */
int ns_shutdown(int fd, int how);

/* ---- data; flags as for send(2) and recv(2) ---- */

ssize_t ns_send(int fd, const void *buf, size_t len, int flags);
ssize_t ns_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t ns_recv(int fd, void *buf, size_t len, int flags);
ssize_t ns_recvmsg(int fd, struct msghdr *msg, int flags);
/* For recvmmsg(2): the error that a session which has failed has to tell, once; 0 for none.
 * And puts back one that came after a message. */
int ns_recv_failure(int fd);
void ns_recv_fails_next(int fd, int error);
/* Copies from `in_fd` at *offset (or its file position when NULL), as
 * sendfile(2), through memory. */
ssize_t ns_sendfile(int fd, int in_fd, off_t *offset, size_t count);
/* As splice(2), through memory, where one of `in` and `out` is a session. */
ssize_t ns_splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t len, unsigned flags);

/* ---- waiting; `timeout` NULL means for ever; `mask` may be NULL ----
 *
 * These return NS_NOT_OURS when no descriptor in the set needs the engine now;
 * the caller then makes the plain call. epoll: `fd` sets are known to the
 * engine through ns_epoll_ctl. */

int ns_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
int ns_pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout, const sigset_t *mask);
int ns_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event); /* NS_NOT_OURS: do the real call */
int ns_epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask);

/* ---- what the application may ask ---- */

int ns_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
int ns_getpeername(int fd, struct sockaddr *addr, socklen_t *len);
int ns_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int ns_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int ns_ioctl(int fd, unsigned long request, void *arg);

/* ---- processes ---- */

void ns_fork_prepare(void);
void ns_spawn_prepare(bool (*given)(int fd));
void ns_fork_parent(void);
void ns_fork_child(void);
/* The same around a spawn, whose child inherits nothing that is close-on-exec but
 * what `given` says (it may be NULL). */
void ns_spawn_parent(bool (*given)(int fd));
/* Whether a session would go to another program if this process became it now. */
bool ns_exec_concerned(void);
/* Whether one would go to what is spawned, and a fork in its place takes from no listener. */
bool ns_spawn_concerned(void);
/* Whether a program with this NAMESOCKET_PSK (or NULL) could take what it is left: with a bad key
 * it protects nothing. */
bool ns_exec_key_sound(const char *psk);
/*
 * Before exec: what must not be lost is seen to. `followed`: the new program has the
 * shim, and sessions go on there. Returns the number that its environment must have as
 * NAMESOCKET_HEIRLOOM (heirloom.h), or -1 for none; ns_exec_failed takes it back.
 */
int ns_exec_prepare(bool followed);
void ns_exec_failed(int heirloom);
/* Before the process ends. */
void ns_process_exiting(void);
/* Before the call that puts the process into a sandbox (quiet.h). Waits for sessions
 * that are suspended, as exec does. Any thread. */
void ns_quiet_begin(void);
/* In a child of a process in a sandbox: what waits to be accepted is the parent's. */
void ns_quiet_fork_child(void);
extern bool ns_quiet;

#endif
