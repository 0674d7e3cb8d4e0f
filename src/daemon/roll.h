/* Which session is held by which members of a broker. */
#ifndef NS_DAEMON_ROLL_H
#define NS_DAEMON_ROLL_H

#include "daemon/member.h"

/* That one member holds one session: in a list of each. */
struct ns_held {
    struct ns_held *next_of_session;
    struct ns_held *next_of_member, *previous_of_member;
    struct ns_member *member;
    struct ns_entry *entry;
    uint32_t report; /* the member's when it last told of it */
};

struct ns_entry {
    struct ns_entry *hash_next;
    struct ns_entry *next, *previous; /* all, oldest first */
    uint64_t number;                  /* rises; never used again */
    enum ns_message_role role;
    uint8_t id[16];
    uid_t uid; /* whose it is: who told of it first */
    uint8_t proof[16];
    bool original; /* somebody has told of it as his own */
    struct ns_message_session about;
    struct ns_held *held;
};

struct ns_roll {
    struct ns_entry *buckets[4096];
    struct ns_entry *first, *last;
    size_t count;
    uint64_t next_number;
};

struct ns_entry *ns_roll_find(struct ns_roll *roll, const uint8_t id[16], enum ns_message_role role);

/* The first that is no older than `number`. */
struct ns_entry *ns_roll_from(struct ns_roll *roll, uint64_t number);

/* What a member tells of a session that it holds. Returns 0; -EEXIST: it is another's, who
 * told first; -EPERM: it is another user's, and the proof is not its; -ENOMEM, or too many. */
int ns_roll_tell(struct ns_roll *roll, struct ns_member *m, const struct ns_message *message);

/* A member holds it no more; an entry that nobody holds is freed. */
void ns_roll_release(struct ns_roll *roll, struct ns_member *m, const uint8_t id[16],
                     enum ns_message_role role);
/* Whether `uid` may see it, and send to it. */
bool ns_roll_allows(const struct ns_entry *e, uid_t uid);

/* The same of all that it holds. */
void ns_roll_release_all(struct ns_roll *roll, struct ns_member *m);
/* The same of all that it has not told of since its `report` changed. */
void ns_roll_release_untold(struct ns_roll *roll, struct ns_member *m);

#endif
