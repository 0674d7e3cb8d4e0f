/*
 * One connection of a broker: records in, with who has sent them, and records out
 * through a bounded queue. Who does not read what he is sent is dropped; a
 * process connects again and tells everything again.
 */
#ifndef NS_DAEMON_MEMBER_H
#define NS_DAEMON_MEMBER_H

#include "core/message.h"

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

struct ns_held; /* roll.h */
struct ns_member;

struct ns_member_calls {
    /* A record has come; `fd` is -1 or becomes the callee's. The member may be dropped from within. */
    void (*message)(struct ns_member *m, const struct ns_message *message, int fd);
    /* Its queue is empty again, after ns_member_send had to wait. */
    void (*drained)(struct ns_member *m);
    /* It is gone; freed after this. */
    void (*gone)(struct ns_member *m);
};

struct ns_member {
    struct ns_member *next, *previous; /* the broker's list */
    uint32_t number;                   /* never used again */
    pid_t pid;                         /* of the last record's sender, as the kernel says */
    uid_t uid;                         /* the same: its real user */
    gid_t gid;                         /* and its group */
    bool joined;                       /* a process under namesocket, not nsctl */
    char program[NS_MESSAGE_PROGRAM_BYTES];
    struct ns_held *held; /* roll.h */
    size_t held_count;
    uint32_t report; /* roll.h: what was told since has this number */
    uint64_t cursor; /* broker.c: how far its listing has come; 0 for none */
    uint32_t list_serial;
    void *arg; /* of whoever made it */

    /* member.c's own */
    const struct ns_member_calls *calls;
    uv_poll_t poll;
    int fd;
    bool closing;
    struct ns_member_record *first, *last;
    size_t queued;
};

/* A member on the connected socket `fd`, which becomes its, with SO_PASSCRED set on it.
 * NULL: no memory; `fd` is closed. */
struct ns_member *ns_member_new(uv_loop_t *loop, int fd, const struct ns_member_calls *calls, void *arg);

/* Sends it a record, now or later; `fd` (or -1) is duplicated. False: its queue is
 * full, or it is dropped. */
bool ns_member_send(struct ns_member *m, const struct ns_message *message, int fd);

/* Whether its queue has room for much more. */
bool ns_member_roomy(const struct ns_member *m);

/* Closes the connection; `gone` is called from the loop. */
void ns_member_drop(struct ns_member *m);

#endif
