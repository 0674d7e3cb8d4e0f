/* What the whole engine shares: policy, log, identity, the clock. */
#ifndef NS_ENGINE_ENGINE_H
#define NS_ENGINE_ENGINE_H

#include "core/auth.h"
#include "core/log.h"
#include "core/policy.h"
#include "core/time.h"

struct ns_engine {
    struct ns_log log;
    int log_fd; /* NAMESOCKET_LOG_FILE, or -1 */
    struct ns_policy policy; /* constant after ns_engine_init; large */
};

extern struct ns_engine ns_engine;
extern int32_t ns_engine_pid; /* as the log tells it: not on the pages of that, which a fork leaves alone */

struct ns_time ns_now(void);

/* The number at the beginning of `text`, after blanks, which is then behind it; 0 where there is none. */
unsigned ns_number_at(const char **text);

/* Fills `out` with random bytes. Returns 0 or a negative errno. */
int ns_random(void *out, size_t bytes);

/* This process's keys and instance id, made at the first call; a forked child's
 * too. NULL when there is no randomness. Any thread. */
const struct ns_identity *ns_identity(void);

/* The one of the program that was in this process before (heirloom.h). */
void ns_identity_adopt(const struct ns_identity *from);

/* The master key shared with a peer's public key, computed once and kept for
 * the most recent peers. Any thread. Returns 0, 1 when it was computed now, or -EBADMSG. */
int ns_master_for(struct ns_master *out, const uint8_t peer_key[32], bool peer_is_client);

/* A forked child has computed the one with this client. From the second time on it is kept here,
 * where the next child gets it from. */
void ns_master_met(const uint8_t client_key[32]);

/* A line for the person who runs the program, under nsrun -v. */
void ns_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define ns_info(...)  ns_log(&ns_engine.log, NS_LOG_INFO, __VA_ARGS__)
#define ns_debug(...) ns_log(&ns_engine.log, NS_LOG_DEBUG, __VA_ARGS__)
#define ns_error(...) ns_log(&ns_engine.log, NS_LOG_ERROR, __VA_ARGS__)

void ns_engine_fork_prepare(void);
void ns_engine_fork_parent(void);
void ns_engine_fork_child(void);

#endif
