/*
 * This process's connection to a broker (docs/architecture.md, "The broker"):
 * how the processes of a tree, or of a machine, reach each other about sessions.
 *
 * NAMESOCKET_BROKER names it: "@name" in the abstract namespace, or a path;
 * "none": no broker. Without it, the machine's (NS_BROKER_MACHINE) if there is
 * one. The broker keeps soft state only. What it forgets is told again when the
 * connection is made again; what nobody answers is answered here in time, with
 * an error. The application never waits for it.
 *
 * Everything runs on the helper (thread.h), and so do all calls back, unless
 * something else is said. Nothing blocks.
 */
#ifndef NS_ENGINE_BROKER_H
#define NS_ENGINE_BROKER_H

#include "core/message.h"
#include "core/time.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ns_sock;

#define NS_BROKER_MACHINE "/run/namesocket/broker"

/* The helper has just started: connects, if there is a broker to connect to.
 * Any thread, before the loop runs. */
void ns_broker_start(void);

/* Takes that back, where there is no thread for it after all. */
void ns_broker_stop(void);

/* There is something to tell: looks whether there is a broker by now, from time to time. */
void ns_broker_look(struct ns_time now);

/* Whether there is a connection to a broker now. Any thread. */
bool ns_broker_connected(void);

/* Whether there is one, or one is being made again after it was lost. Any thread. */
bool ns_broker_expected(void);

/* Since when there has been none, while one is expected; any thread. */
struct ns_time ns_broker_lost_since(void);

/* ---- what this process holds ---- */

/* Tells the broker that this process holds `s`, or what has changed about it. May
 * be called again and again. A session that is not told of can be found all the
 * same: the broker asks every process before it says that nobody has it. Whoever holds it
 * in common with another process, after a fork, sets s->inherited first: a second process that
 * tells of a server's session as its own has been fooled by a NEW sent again, and is made to demote it. */
void ns_broker_hold(struct ns_sock *s);

/* This process holds it no more. */
void ns_broker_let_go(const uint8_t id[16], enum ns_message_role role);

/* A session's memory is given back: it is held no more, if that was told. Table held. */
void ns_broker_freed(struct ns_sock *s);

/* ---- passing connections on ---- */

enum ns_broker_answer {
    NS_BROKER_TAKEN = 0,   /* another process has it: close your descriptor, without shutdown */
    NS_BROKER_UNKNOWN = 1, /* no process has the session */
    NS_BROKER_LATER = 2,   /* nobody can say now, and nobody has taken it */
    NS_BROKER_PERHAPS = 3, /* nobody can say whether it was taken: close your descriptor, and write nothing */
};

typedef void ns_broker_answered(void *ctx, enum ns_broker_answer answer, struct ns_time now);

/*
 * Offers the connection `fd`, of which `bytes` bytes `read` were read already, to the
 * process that holds session `id`. `fd` is duplicated; do not read from it until the answer.
 * Returns false when it cannot even be asked; else `answered` is called exactly
 * once, later, unless ns_broker_withdraw(ctx) comes first.
 */
bool ns_broker_offer(const uint8_t id[16], int fd, const uint8_t *read, size_t bytes,
                     ns_broker_answered *answered, void *ctx);
void ns_broker_withdraw(void *ctx);

/* ---- telling the other holders of a session ---- */

/* What a message is about; each has one handler. At most NS_TELL_KINDS. */
enum ns_tell_kind {
    NS_TELL_LISTENER_OPEN,     /* the listener may be accepted from by a program that knows nothing of us */
    NS_TELL_SHARED_FIRST = 16, /* from here on: sessions in shared memory */
    NS_TELL_KINDS = 32,
};

/* How a handler answers: at once with 0 or a negative errno, or NS_TELL_PENDING and
 * ns_broker_acknowledge later. */
#define NS_TELL_PENDING 1

struct ns_told {
    uint32_t token;            /* for ns_broker_acknowledge */
    const uint8_t *session_id; /* 16 bytes */
    enum ns_message_role role;
    const uint8_t *payload;
    size_t bytes;
    int fd; /* internal; becomes the handler's; -1: none came */
};

/* Called for each message of that kind from another process, whether or not this one
 * knows the session (then: answer -ENOENT). */
typedef int ns_told_handler(const struct ns_told *told, struct ns_time now);
void ns_broker_handle(enum ns_tell_kind kind, ns_told_handler *handler);

/* Answers a message whose handler said NS_TELL_PENDING: 0 or a negative errno. */
void ns_broker_acknowledge(uint32_t token, int status);

/*
 * Called once for each ns_broker_tell, when every other holder has answered or
 * gone. `holders`: how many answered; `status`: 0, or the first negative errno that one
 * of them answered. -ENOTCONN: the broker went meanwhile, and some may have had
 * the message and some not; -ETIMEDOUT: one of them did not answer within
 * NS_TELL_PATIENCE_MS.
 */
typedef void ns_tell_over(void *ctx, unsigned holders, int status, struct ns_time now);
#define NS_TELL_PATIENCE_MS 2000

/*
 * Sends a message to every other process that holds `id` (ns_broker_hold). `payload` is copied, at most
 * NS_MESSAGE_TELL_BYTES; `fd` (or -1) is duplicated. In the order of the calls, for each receiver. Returns 0,
 * and `over` (may be NULL) will be called; or -ENOTCONN, -EMSGSIZE, -ENOBUFS (too much is under way), and it
 * will not.
 */
int ns_broker_tell(const uint8_t id[16], enum ns_message_role role, enum ns_tell_kind kind,
                   const void *payload, size_t bytes, int fd, ns_tell_over *over, void *ctx);

/* ---- apart from the helper's connection; any thread ---- */

/* Another connection to the broker, an internal descriptor, or a negative errno. */
int ns_broker_open(void);
/* Sends a record with a descriptor on it. Returns 0 or a negative errno. */
int ns_broker_send_on(int broker, const struct ns_message *m, int fd);

/* In a forked child: the connection is the parent's. */
void ns_broker_fork_child(void);

#endif
