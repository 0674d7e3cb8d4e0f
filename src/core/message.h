/*
 * Messages between a process under namesocket and its broker (docs/architecture.md,
 * "The broker"), and between nsctl and a broker. Each is one record of a Unix
 * SOCK_SEQPACKET connection, with at most one descriptor beside it.
 *
 * Pure and without state, as wire.h. What comes from the other side is never
 * trusted: every length is checked, every string is ended here.
 */
#ifndef NS_CORE_MESSAGE_H
#define NS_CORE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define NS_MESSAGE_MAGIC   0x4E42 /* "NB" */
#define NS_MESSAGE_VERSION 1

/* magic 16, version 8, type 8, role 8, serial 32, status 32, id 128 */
#define NS_MESSAGE_HEADER_BYTES  29
#define NS_MESSAGE_BYTES_MAX     1024
#define NS_MESSAGE_ADDRESS_MAX   107 /* sockaddr_un has no more (unix(7)) */
#define NS_MESSAGE_TELL_BYTES    512
#define NS_MESSAGE_READ_BYTES    128 /* of a connection that is passed on */
#define NS_MESSAGE_NAME_BYTES    256 /* with the NUL */
#define NS_MESSAGE_PROGRAM_BYTES 16  /* with the NUL, as the kernel keeps it (proc(5), comm) */

enum ns_message_type {
    NS_MESSAGE_JOIN = 1,  /* process to broker, first of all: program */
    NS_MESSAGE_SESSION,   /* process to broker: it holds this; broker to nsctl: this is held */
    NS_MESSAGE_GONE,      /* process to broker: it holds this no more */
    NS_MESSAGE_RESUME,    /* a connection for this session, with what was read of it; a descriptor */
    NS_MESSAGE_FIND,      /* broker to process: do you hold this? */
    NS_MESSAGE_TELL,      /* process to broker, broker to the other holders; may have a descriptor */
    NS_MESSAGE_ANSWER,    /* to RESUME, FIND, TELL, REPORT, LIST: status */
    NS_MESSAGE_REPORT,    /* broker to process: tell all that you hold, then answer */
    NS_MESSAGE_LIST,      /* nsctl to broker: the same, of everybody */
    NS_MESSAGE_HOLDER,    /* broker to nsctl: a process that holds the session before it */
    NS_MESSAGE_DUPLICATE, /* broker to process: another has told of this session first */
    NS_MESSAGE_ADOPT,     /* process to broker: a connection for whoever sees to what this one leaves; a
                             descriptor */
    NS_MESSAGE_TYPES,
};

/* Of an ANSWER to RESUME and FIND; one to TELL has 0 or a negative errno. */
enum ns_message_status {
    NS_MESSAGE_TAKEN = 0,
    NS_MESSAGE_UNKNOWN = 1, /* nobody has the session */
    NS_MESSAGE_LATER = 2,   /* nobody can say now, and nobody has the connection */
    NS_MESSAGE_PERHAPS = 3, /* somebody may have the connection: whoever else has it must not write to it */
};

/* Both ends of a session may be told of to one broker: an id alone does not name one. */
enum ns_message_role {
    NS_MESSAGE_CLIENT,
    NS_MESSAGE_SERVER,
    NS_MESSAGE_ROLES,
};

/* One end of a connection: 16 bytes of address, IPv4 as ::ffff:a.b.c.d. */
struct ns_message_end {
    uint8_t address[16];
    uint16_t port;
};

/* What there is to know of a session. */
struct ns_message_session {
    uint8_t proof[16];                 /* what only who has the session's keys can say; to nsctl: zero */
    bool inherited;                    /* held in common with another process, not a second one of that id */
    uint8_t state;                     /* enum ns_state */
    struct ns_message_end local, peer; /* the pair in use */
    uint64_t established_s;            /* wall clock, seconds since 1970; 0: not known */
    uint64_t sent, received;           /* bytes of the application's streams */
    uint32_t resumes;
    char name[NS_MESSAGE_NAME_BYTES]; /* that the application connected by; or empty */
};

struct ns_message_holder {
    uint32_t pid, uid;
    char program[NS_MESSAGE_PROGRAM_BYTES];
};

struct ns_message {
    enum ns_message_type type;
    enum ns_message_role role; /* of what has the id */
    uint32_t serial;           /* the sender's; an answer has that of its question */
    int32_t status;            /* ANSWER: 0, or what the question's text says */
    uint8_t id[16];            /* of the session; zero where there is none */
    union {
        char program[NS_MESSAGE_PROGRAM_BYTES]; /* JOIN */
        struct ns_message_session session;      /* SESSION */
        struct ns_message_holder holder;        /* HOLDER */
        uint32_t count;                         /* ANSWER to TELL: how many have answered */
        struct {
            uint8_t kind; /* TELL */
            uint16_t bytes;
            uint8_t data[NS_MESSAGE_TELL_BYTES]; /* TELL; RESUME: NS_MESSAGE_READ_BYTES at most */
        } payload;
    };
};

/* Whether `type` is one that may have a descriptor beside it. */
static inline bool ns_message_carries(enum ns_message_type type)
{
    return type == NS_MESSAGE_RESUME || type == NS_MESSAGE_TELL || type == NS_MESSAGE_ADOPT;
}

/* Writes `m`; returns the length, at most NS_MESSAGE_BYTES_MAX. Strings that are too long are cut. */
size_t ns_message_put(uint8_t out[NS_MESSAGE_BYTES_MAX], const struct ns_message *m);

/* Reads one whole record. Returns true, or false for anything that ns_message_put
 * would not have written; then *m is of no use. */
bool ns_message_get(const uint8_t *in, size_t bytes, struct ns_message *m);

/* The address of the broker that `text` names: "@name" in the abstract namespace, or a
 * path from /, of at most NS_MESSAGE_ADDRESS_MAX bytes. Returns its length, or 0 for anything else. */
socklen_t ns_message_address(struct sockaddr_un *out, const char *text);

#endif
