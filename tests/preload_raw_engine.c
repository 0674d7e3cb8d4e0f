/*
 * An engine that takes every descriptor for its own and makes the bare system
 * call for each. Linked with the shim's sources in place of the real engine,
 * it lets check_preload.sh compare what the shim does around the engine (errno,
 * SIGPIPE, vectors, several messages, times) with what libc does.
 */
#include <sys/mman.h>

#include "engine/adopt.h"
#include "engine/caller.h"
#include "engine/libc.h"
#include "engine/slot.h"
#include "engine/sock.h"
#include "engine/socket.h"
#include "engine/sys.h"

#define OURS 256 /* numbers from 3 to here are sessions, as far as the shim can see */

_Atomic(struct ns_object *) *ns_table;
struct ns_object *ns_objects; /* not NULL: there is always something */

int ns_engine_init(void)
{
    void *map = mmap(NULL, NS_FD_MAX * sizeof *ns_table, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (map == MAP_FAILED)
        return -ENOMEM;
    ns_table = map;
    ns_objects = map;
    for (int fd = 3; fd < OURS; fd++)
        ns_table[fd] = map;
    return 0;
}

/* Only sockets are data paths; read and write on others are libc's. */
static bool is_socket(int fd)
{
    int type;
    socklen_t len = sizeof type;

    return ns_sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
}

void ns_fd_born(int fd)
{
}

void ns_fd_duplicating(struct ns_duplicate *d, int oldfd)
{
}

void ns_fd_duplicated(struct ns_duplicate *d, int newfd)
{
}

int ns_fd_closing(int fd)
{
    return 0;
}

/* One number is the engine's: the application may neither close nor replace it. */
bool ns_fd_internal(int fd)
{
    return fd == OURS;
}

/* Nobody waits here. */
void ns_slot_poke(void)
{
}

int ns_fd_demote(int fd, const char *why, bool wait)
{
    return 0;
}

int ns_fd_leave(int fd, const char *why)
{
    return 0;
}

void ns_fd_passed(int fd)
{
}

size_t ns_fd_inbox(int fd)
{
    return 0;
}

void ns_names_learn(const char *name, const struct addrinfo *list)
{
}

void ns_names_learn_hostent(const char *name, const struct hostent *h)
{
}

int ns_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    return ns_sys_connect(fd, addr, len);
}

int ns_listen(int fd, int backlog)
{
    return ns_sys_listen(fd, backlog);
}

int ns_accept(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    return ns_sys_accept4(fd, addr, len, flags);
}

int ns_shutdown(int fd, int how)
{
    return ns_sys_shutdown(fd, how);
}

ssize_t ns_send(int fd, const void *buf, size_t len, int flags)
{
    return is_socket(fd) ? ns_sys_send(fd, buf, len, flags | MSG_NOSIGNAL) : NS_NOT_OURS;
}

ssize_t ns_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return is_socket(fd) ? ns_sys_sendmsg(fd, msg, flags | MSG_NOSIGNAL) : NS_NOT_OURS;
}

/* What may block blocks in libc, so that it can be cancelled. errno is put back, as the engine promises. */
#define RESULT(call)                                                                                       \
    ({                                                                                                     \
        int saved_ = errno;                                                                                \
        ssize_t r_ = (call);                                                                               \
                                                                                                           \
        if (r_ < 0)                                                                                        \
            r_ = -errno;                                                                                   \
        errno = saved_;                                                                                    \
        r_;                                                                                                \
    })

ssize_t ns_recv(int fd, void *buf, size_t len, int flags)
{
    return is_socket(fd) ? RESULT(ns_libc.recv(fd, buf, len, flags)) : NS_NOT_OURS;
}

ssize_t ns_recvmsg(int fd, struct msghdr *msg, int flags)
{
    return is_socket(fd) ? RESULT(ns_libc.recvmsg(fd, msg, flags)) : NS_NOT_OURS;
}

ssize_t ns_splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t len, unsigned flags)
{
    return ns_syscall6(SYS_splice, in, (long)in_offset, out, (long)out_offset, (long)len, flags);
}

int ns_recv_failure(int fd)
{
    return 0;
}

void ns_recv_fails_next(int fd, int error)
{
}

ssize_t ns_sendfile(int fd, int in_fd, off_t *offset, size_t count)
{
    return ns_syscall6(SYS_sendfile, fd, in_fd, (long)offset, (long)count, 0, 0);
}

int ns_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    return (int)RESULT(ns_libc.ppoll(fds, n, timeout, mask));
}

int ns_pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout, const sigset_t *mask)
{
    struct timespec left = timeout ? *timeout : (struct timespec){ 0 };

    return (int)ns_syscall6(SYS_pselect6, n, (long)r, (long)w, (long)e, timeout ? (long)&left : 0, 0);
}

int ns_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return ns_sys_epoll_ctl(epfd, op, fd, event);
}

int ns_epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask)
{
    return (int)RESULT(ns_libc.epoll_pwait(epfd, events, max, timeout_ms, mask));
}

int ns_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    return ns_sys_getsockname(fd, addr, len);
}

int ns_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    return ns_sys_getpeername(fd, addr, len);
}

int ns_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return ns_sys_getsockopt(fd, level, name, value, len);
}

int ns_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return ns_sys_setsockopt(fd, level, name, value, len);
}

int ns_ioctl(int fd, unsigned long request, void *arg)
{
    return ns_sys_ioctl(fd, request, arg);
}

void ns_spawn_prepare(bool (*given)(int fd))
{
    (void)given;
}

void ns_fork_prepare(void)
{
}

void ns_fork_parent(void)
{
}

void ns_spawn_parent(bool (*given)(int fd))
{
}

void ns_fork_child(void)
{
}

bool ns_exec_key_sound(const char *psk)
{
    return true;
}

bool ns_spawn_concerned(void)
{
    return false;
}

bool ns_exec_concerned(void)
{
    return false;
}

int ns_exec_prepare(bool followed)
{
    (void)followed;
    return -1;
}

void ns_exec_failed(int heirloom)
{
    (void)heirloom;
}

void ns_process_exiting(void)
{
}

bool ns_quiet;

void ns_quiet_fork_child(void)
{
}

void ns_quiet_begin(void)
{
}

void ns_object_await(const struct ns_object *o)
{
}

int ns_fd_set(int fd, long call, unsigned long command, long arg)
{
    return NS_NOT_OURS;
}

void ns_fd_settle(int fd)
{
}

struct ns_sock *ns_sock_wake(struct ns_object *o)
{
    return NULL;
}

void ns_adopt(int pair, ns_relay_reserve *reserve, ns_relay_begin *relay)
{
}

unsigned ns_adopted(void)
{
    return 0;
}

int ns_caller_read(void *to, const void *from, size_t n)
{
    memcpy(to, from, n);
    return 0;
}
