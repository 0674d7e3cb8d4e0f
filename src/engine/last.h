/*
 * The end of a process whose main thread has left by pthread_exit(3).
 *
 * libc ends such a process with its last thread, as if by exit(0). The helper is a
 * thread to libc, and would keep the process alive for ever. So it looks, from when
 * the main thread has left, whether only itself is left, and then has the process end.
 */
#ifndef NS_ENGINE_LAST_H
#define NS_ENGINE_LAST_H

#include "core/time.h"

/* The main thread is about to end, and not the process; in that thread. */
void ns_last_main_leaves(void);

/* On the helper: begins to look, if the main thread has left. */
void ns_last_look(struct ns_time now);

/* In a forked child: the thread that forked is its main thread. */
void ns_last_fork_child(void);

#endif
