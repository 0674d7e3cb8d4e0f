/* When is a path dead? What the kernel does not say is found out here. On the
 * helper, unless said otherwise. */
#ifndef NS_ENGINE_DETECT_H
#define NS_ENGINE_DETECT_H

#include "engine/sock.h"

/* Before the loop runs: listens to rtnetlink. Without it, only errors and
 * missing progress tell. */
void ns_detect_start(void);

/* Takes that back, where there is no thread for it after all. */
void ns_detect_stop(void);
void ns_detect_fork_child(void);

/* Traffic has begun after a quiet time. */
void ns_detect_roused(struct ns_time now);

/* A session has become protected, or has got another connection. */
void ns_detect_born(struct ns_sock *s, struct ns_time now);
void ns_detect_moved(struct ns_sock *s, struct ns_time now);

/* What the kernel has said of links may have come at a time when it was not to
 * be acted upon: they are looked at again before long. */
void ns_detect_doubt_links(void);

#endif
