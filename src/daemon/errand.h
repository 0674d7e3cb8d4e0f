/*
 * What a broker is about for one of its members: a question that came, and those
 * who have to answer before it can.
 */
#ifndef NS_DAEMON_ERRAND_H
#define NS_DAEMON_ERRAND_H

#include "core/message.h"

#include <stdbool.h>
#include <uv.h>

struct ns_errand {
    struct ns_errand *next;
    uint32_t serial;          /* under which others are asked */
    uint32_t asker, question; /* the member's number, and the serial that it gave */
    bool searching, found;    /* RESUME: everybody is being asked who has it; somebody has said that he has */
    struct ns_message message; /* what came */
    int fd;                    /* RESUME: the connection; or -1 */
    int32_t status;            /* the first answer that is not 0 */
    uint32_t answers;
    uint32_t *awaited; /* numbers of members */
    size_t awaited_count, awaited_room;
    uint64_t deadline_ms; /* of uv_now */
};

/* All under way. Nobody fills the table alone. */
#define NS_ERRANDS_MAX    1024
#define NS_ERRANDS_OF_ONE 64
struct ns_errands {
    struct ns_errand *first;
    size_t count;
    uint32_t next_serial;
};

/* A new one; `fd` (or -1) becomes its. NULL: no memory or too many; `fd` is not taken. */
struct ns_errand *ns_errand_new(struct ns_errands *all, const struct ns_message *message, uint32_t asker,
                                int fd);
void ns_errand_free(struct ns_errands *all, struct ns_errand *e);

struct ns_errand *ns_errand_find(struct ns_errands *all, uint32_t serial);

/* One more has to answer. False: no memory. */
bool ns_errand_await(struct ns_errand *e, uint32_t member);
/* Whether it was awaited; it is no more. */
bool ns_errand_heard(struct ns_errand *e, uint32_t member);

#endif
