/*
 * How a process reaches another of its family without a broker: a datagram socket
 * with a random name, by which the other says what it wants. A listener's process
 * passes on a RESUME for a session that a child of its has; a child says that
 * a program which knows nothing of us is about to get a connection; a process calls for a
 * session that another has (joint.h).
 */
#ifndef NS_ENGINE_MAILBOX_H
#define NS_ENGINE_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NS_MAILBOX_BYTES 16

/* This process's, made at the first call; NULL where there is no helper, or no
 * descriptor. Any thread. */
const uint8_t *ns_mailbox(void);

/* Passes on a connection that begins with a RESUME, which has been read from it:
 * `fd` is duplicated. False when nobody is there. On the helper. */
bool ns_mailbox_pass(const uint8_t to[NS_MAILBOX_BYTES], int fd, const uint8_t *packet, size_t bytes);

/* Calls for a session that the other process has (joint.h). The answer comes to the other end of
 * `fd`, which is duplicated. False when nobody is there. Any thread. */
struct ns_joint_question;
bool ns_mailbox_ask(const uint8_t to[NS_MAILBOX_BYTES], int fd, const struct ns_joint_question *q);

/* Reads what came on a socket with SO_PASSCRED, who from, and the descriptor beside it: internal,
 * or -1. Returns how many bytes, 0 at the end, or -EPERM when it is from somebody who is not to be trusted. */
ssize_t ns_mailbox_receive(int fd, void *data, size_t bytes, int *passed, uid_t *from);

/* In a forked child: asks the parent to answer HELLO no more, now. False when it
 * has not answered any, or cannot be reached. Any thread. */
bool ns_mailbox_mute_parent(void);

/* The parent's name, for a program that follows in this process, and there. */
bool ns_mailbox_parents(uint8_t out[NS_MAILBOX_BYTES]);
void ns_mailbox_set_parents(const uint8_t name[NS_MAILBOX_BYTES]);

/* Before a fork, and in the child. */
void ns_mailbox_fork_prepare(void);
void ns_mailbox_fork_child(void);

#endif
