/*
 * Seccomp user notification (seccomp_unotify(2)): a program's socket calls are
 * held until another process, which started it, has looked at them. No privilege
 * is needed, and a static program is held like any other.
 *
 * Nothing here allocates. All functions but ns_notify_install are for the one
 * thread that answers.
 */
#ifndef NS_DAEMON_NOTIFY_H
#define NS_DAEMON_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A call that is held. Its arguments are the other process's words: look, never trust. */
struct ns_notice {
    uint64_t id;
    pid_t thread;
    enum { NS_NOTICE_CONNECT, NS_NOTICE_PEER_NAME, NS_NOTICE_LOCAL_NAME, NS_NOTICE_ERROR } call;
    int fd;
    uint64_t address, length; /* connect: the length; else where it is */
};

/*
 * From now on connect, getpeername, getsockname and getsockopt of SO_ERROR of this
 * process, and of all that it starts, are held. Sets no_new_privs when there is no other way
 * (prctl(2)): set-user-ID programs then gain nothing.
 * Returns a descriptor to answer by, close-on-exec, or a negative errno: -EBUSY
 * when another such filter is in force already.
 */
int ns_notify_install(void);

/* Takes a notice when the descriptor is readable. Returns 0; -ENOENT when the caller has gone, or another
 * negative errno. */
int ns_notify_receive(int notify, struct ns_notice *out);

/* Whether the call is still held: a signal may have interrupted it. */
bool ns_notify_held(int notify, const struct ns_notice *notice);

/* The call goes on as if nobody had looked. */
void ns_notify_continue(int notify, const struct ns_notice *notice);

/*
 * The call returns 0, or fails with `error` (negative errno). Returns 0, or
 * -ENOENT when the caller has gone or was interrupted by a signal.
 */
int ns_notify_answer(int notify, const struct ns_notice *notice, int error);

/* Copies from and to the caller's memory; all of it, or a negative errno. */
int ns_notify_read(const struct ns_notice *notice, uint64_t from, void *to, size_t bytes);
int ns_notify_write(const struct ns_notice *notice, uint64_t to, const void *from, size_t bytes);

/*
 * A descriptor for the open file that notice->fd is in the caller,
 * close-on-exec, the receiver's to close (pidfd_getfd(2)). Returns it, or a
 * negative errno; -ENOENT when the caller has gone.
 */
int ns_notify_fetch(int notify, const struct ns_notice *notice);

#endif
