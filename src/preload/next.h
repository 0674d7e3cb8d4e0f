/*
 * The functions behind us, by name: what dlsym(RTLD_NEXT) finds, for a fifth of its time. The
 * shim looks up a hundred at the start of each program, also of one that serves a single
 * connection and ends.
 */
#ifndef NS_PRELOAD_NEXT_H
#define NS_PRELOAD_NEXT_H

/* Learns which libraries come after the one that `own` is in, up to libc. Returns the path that
 * this one was loaded from, or NULL. To be called once more if libraries may have come. */
const char *ns_next_begin(const void *own);

/* NULL where there is none, or where only dlsym can say. */
void *ns_next_find(const char *name);

#endif
