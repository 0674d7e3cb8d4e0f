/*
 * The processes that see to what others have left undelivered (engine/remains.h), and relay
 * what others use in common (engine/joint.h): one for each user that a broker has had such a
 * process of, started when there is something, under the shim, and gone when all is
 * delivered. It is this program again.
 *
 * A process of its own, because the broker has no engine and what comes with a state
 * is another user's: it runs as that user, and is all that can be hurt.
 */
#ifndef NS_DAEMON_ADOPTER_H
#define NS_DAEMON_ADOPTER_H

#include <sys/types.h>
#include <uv.h>

struct ns_adopter;

struct ns_adopters {
    uv_loop_t *loop;
    int listening; /* the broker's */
    struct ns_adopter *first;
};

/* Passes `fd`, which stays the caller's, to the one of this user. Returns 0 or a negative errno. */
int ns_adopters_give(struct ns_adopters *a, uid_t uid, gid_t gid, int fd);

/* They go on without the broker. */
void ns_adopters_close(struct ns_adopters *a);

/* In a process that was started for this: does it, and exits. In any other: returns at once. */
void ns_adopter_resume(void);

#endif
