#include "daemon/notify.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#else
#error "which AUDIT_ARCH_ is this machine's?"
#endif

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV /* Linux 5.19 */
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* ---- the filter ---- */

/* Where the low half of a call's argument is; both machines are little-endian. */
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + (n) * sizeof(uint64_t))

static int load(unsigned long flags)
{
    /* Calls of another word size pass: their numbers mean something else. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 0, 10),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_connect, 7, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_getpeername, 6, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_getsockname, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_getsockopt, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT(1)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SOL_SOCKET, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT(2)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SO_ERROR, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };
    long fd =
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | flags, &program);

    return fd < 0 ? -errno : (int)fd;
}

int ns_notify_install(void)
{
    /* A held call must not begin again for every signal: Go sends its threads hundreds a second. */
    unsigned long flags = SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    int fd = load(flags);

    if (fd == -EINVAL)
        fd = load(flags = 0);
    if (fd != -EACCES)
        return fd;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    fd = load(flags);
    return fd == -EINVAL ? load(0) : fd;
}

/* ---- notices ---- */

int ns_notify_receive(int notify, struct ns_notice *out)
{
    struct seccomp_notif n;

    memset(&n, 0, sizeof(n)); /* the kernel insists */
    if (ioctl(notify, SECCOMP_IOCTL_NOTIF_RECV, &n) < 0)
        return -errno;
    out->id = n.id;
    out->thread = (pid_t)n.pid;
    out->call = n.data.nr == __NR_connect       ? NS_NOTICE_CONNECT
                : n.data.nr == __NR_getpeername ? NS_NOTICE_PEER_NAME
                : n.data.nr == __NR_getsockname ? NS_NOTICE_LOCAL_NAME
                                                : NS_NOTICE_ERROR;
    out->fd = (int)n.data.args[0];
    out->address = n.data.args[out->call == NS_NOTICE_ERROR ? 3 : 1];
    out->length = n.data.args[out->call == NS_NOTICE_ERROR ? 4 : 2];
    return 0;
}

static int respond(int notify, struct seccomp_notif_resp *response)
{
    return ioctl(notify, SECCOMP_IOCTL_NOTIF_SEND, response) < 0 ? -errno : 0;
}

void ns_notify_continue(int notify, const struct ns_notice *notice)
{
    /* Nothing is decided for safety's sake here, so it does not matter what the caller does to its memory
     * now. */
    respond(notify,
            &(struct seccomp_notif_resp){ .id = notice->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE });
}

bool ns_notify_held(int notify, const struct ns_notice *notice)
{
    return ioctl(notify, SECCOMP_IOCTL_NOTIF_ID_VALID, &notice->id) == 0;
}

int ns_notify_answer(int notify, const struct ns_notice *notice, int error)
{
    return respond(notify, &(struct seccomp_notif_resp){ .id = notice->id, .error = error });
}

/* ---- the caller's memory and descriptors ---- */

typedef ssize_t copy_fn(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long,
                        unsigned long);

static int copy(copy_fn *fn, const struct ns_notice *notice, uint64_t remote, void *local, size_t bytes)
{
    struct iovec here = { local, bytes }, there = { (void *)(uintptr_t)remote, bytes };
    ssize_t n = fn(notice->thread, &here, 1, &there, 1, 0);

    return n < 0 ? -errno : (size_t)n < bytes ? -EFAULT : 0;
}

int ns_notify_read(const struct ns_notice *notice, uint64_t from, void *to, size_t bytes)
{
    return copy(process_vm_readv, notice, from, to, bytes);
}

int ns_notify_write(const struct ns_notice *notice, uint64_t to, const void *from, size_t bytes)
{
    return copy(process_vm_writev, notice, to, (void *)from, bytes);
}

/* pidfd_open(2) takes no thread but the first. */
static pid_t process_of(pid_t thread)
{
    char path[64], line[256];
    pid_t process = -ESRCH;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
    status = fopen(path, "re");
    if (!status)
        return -errno;
    while (fgets(line, sizeof(line), status))
        if (sscanf(line, "Tgid: %d", &process) == 1)
            break;
    fclose(status);
    return process;
}

int ns_notify_fetch(int notify, const struct ns_notice *notice)
{
    pid_t process = process_of(notice->thread);
    int pidfd, fd, error;

    if (process < 0)
        return -ENOENT;
    pidfd = (int)syscall(SYS_pidfd_open, process, 0);
    if (pidfd < 0)
        return -errno;
    fd = (int)syscall(SYS_pidfd_getfd, pidfd, notice->fd, 0);
    error = -errno;
    close(pidfd);
    /* The number may have become another process's meanwhile. */
    if (!ns_notify_held(notify, notice)) {
        if (fd >= 0)
            close(fd);
        return -ENOENT;
    }
    return fd < 0 ? error : fd;
}
