/*
 * What processes share about the sessions that several of them hold: one estate
 * for each fork, in a memory file that parent and child map, with a share for
 * each session. A share says who has the session's state now, and keeps that state
 * while nobody has it.
 *
 * Whoever maps an estate may be hostile (a child that has given up its privileges
 * to be harmless). So nothing in it is a pointer or an index that is followed
 * unchecked; at worst a session of that child's own is lost.
 */
#ifndef NS_ENGINE_ESTATE_H
#define NS_ENGINE_ESTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define NS_HOLDERS_MAX 13

/*
 * The word of a share: the process that has the session, or 0 while nobody has, and
 * what has become of it.
 */
#define NS_SHARE_OWNER 0xffffffffull /* bits of a pid */
#define NS_SHARE_PLAIN (1ull << 32)  /* it is plain TCP: never replay, never move it */
#define NS_SHARE_MOVED (1ull << 33)  /* the owner has given up the connection that the others have */
#define NS_SHARE_LENT  (1ull << 34)  /* the owner is in a sandbox, and uses it around us (quiet.h) */
#define NS_SHARE_JOINT (1ull << 35)  /* the owner is a relay, or about to make one its (joint.h); moved, too */

struct ns_share {
    uint64_t word;                    /* atomic */
    uint64_t at, bytes, room;         /* its state, in the file behind the shares */
    uint32_t laid;                    /* how often its state was written; atomic */
    uint32_t named;                   /* `id` is the session's; atomic */
    uint32_t addressed;               /* `mailbox` is the owner's; atomic */
    uint32_t holders[NS_HOLDERS_MAX]; /* processes that have a descriptor of it, 0 where none; atomic */
    uint8_t id[16];
    uint8_t mailbox[16];
    uint32_t met;      /* `client` is the public key of one that the owner had not met before; atomic */
    uint8_t client[32];
};

/* A process that is about to be forked, and one too many to be noted. */
#define NS_HOLDER_UNBORN 0xffffffffu
#define NS_HOLDER_MANY   0xfffffffeu

struct ns_estate; /* this process's mapping of one */

/* An estate of `count` shares, all zero, each in use by a session here. NULL when
 * there is no memory or descriptor. All here with the table held. */
struct ns_estate *ns_estate_new(size_t count);
struct ns_share *ns_estate_share(struct ns_estate *e, size_t i);

/* Whether `fd` is the file of one that has so many shares. */
bool ns_estate_sound(int fd, size_t count);
/* One that was inherited over exec: `fd` is taken, if it is sound, and in use once, by the caller. NULL
 * when it is none. Then its share `i` for another session here, or NULL. */
struct ns_estate *ns_estate_adopt(int fd, size_t count);
struct ns_share *ns_estate_use(struct ns_estate *e, size_t i);
/* For that: its file and how many shares it has; which of them `x` is. */
int ns_estate_file(const struct ns_estate *e, size_t *count);
size_t ns_estate_index(const struct ns_estate *e, const struct ns_share *x);

/* A session here has no more to do with it; or only watches what becomes of the
 * share, which costs no descriptor, until _unwatch. */
void ns_estate_unuse(struct ns_estate *e);
void ns_estate_watch(struct ns_estate *e);
void ns_estate_unwatch(struct ns_estate *e);

/* Whether this process may make a file as long as that, even in memory. */
bool ns_file_may_hold(uint64_t bytes);

/* ---- holders ---- */

/* Notes `pid`, or NS_HOLDER_UNBORN. Returns its place, for ns_share_holds. */
int ns_share_hold(struct ns_share *x, uint32_t pid);
void ns_share_hold_at(struct ns_share *x, int place, uint32_t pid);
void ns_share_unhold(struct ns_share *x, uint32_t pid);
/* Whether there is such a process. */
bool ns_holder_alive(uint32_t pid);
/* Whether any other process than `pid` still has a descriptor of it, as far as can be seen. */
bool ns_share_held(struct ns_share *x, uint32_t pid);
/* The same, and it is running: not one that was to be born, or that nobody knows, or that has ended and
 * is not waited for yet. Where being wrong costs the end of a stream. */
bool ns_share_in_use(struct ns_share *x, uint32_t pid);

/* ---- the state ---- */

/* Writes it; the caller owns the share. False when it did not fit. */
bool ns_share_write(struct ns_estate *e, struct ns_share *x, const struct iovec *pieces, int count);
/* Reads `bytes` bytes from `from` on. False when there are not as many. */
bool ns_share_read(struct ns_estate *e, const struct ns_share *x, uint64_t from, void *out, size_t bytes);

#endif
