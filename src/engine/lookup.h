/* A name's addresses, looked up on the helper's loop. */
#ifndef NS_ENGINE_LOOKUP_H
#define NS_ENGINE_LOOKUP_H

#include "core/path.h"
#include "core/time.h"

struct ns_lookup;

/* `done` is called once, from the loop or from within this call; NULL when it
 * was, or without memory (`done` gets -ENOMEM). */
struct ns_lookup *ns_lookup_start(const char *name,
                                  void (*done)(void *ctx, int error, const struct ns_address *list, size_t n),
                                  void *ctx, struct ns_time now);
void ns_lookup_cancel(struct ns_lookup *l);

#endif
