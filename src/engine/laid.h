/*
 * The state of a session as one process lays it down for the next (dormant.h):
 * everything that is true of it whoever has it, with what ring and inbox hold.
 * What is the process's own (numbers, registrations, timers, attempts) is no part of it.
 */
#ifndef NS_ENGINE_LAID_H
#define NS_ENGINE_LAID_H

#include "engine/sock.h"

/* Writes it to the session's share. `fd` is one of its descriptors. Table, rx and tx
 * held. False when there is no room. */
bool ns_laid_write(struct ns_sock *s, int fd);

/* Reads it. Table held, and the share claimed. False when it makes no sense: the
 * session must not be replayed then. */
bool ns_laid_read(struct ns_sock *s);

/* The same in a file of its own, from offset `at` on, for a program that follows in this
 * process (heirloom.h). Returns how many bytes that were; 0 when there is no room, or it
 * is no state that anybody could go on with. Table held. */
uint64_t ns_laid_put(const struct ns_sock *s, int file, uint64_t at);
bool ns_laid_get(struct ns_sock *s, int file, uint64_t at);

/*
 * The same for a process that is no relative, and only delivers what the application
 * has written (remains.h): in a file of its own, for whatever state of a protected
 * session, as one whose application has ended its stream and reads no more. Returns an
 * internal descriptor or a negative errno. Table, rx and tx held.
 */
int ns_laid_file(struct ns_sock *s, int fd);
/* Reads it, into a new object. Table held. */
bool ns_laid_take(struct ns_sock *s, int file);

/* The same for one that goes on with all of it (joint.h). */
int ns_laid_whole_file(struct ns_sock *s, int fd);
bool ns_laid_take_whole(struct ns_sock *s, int file);

#endif
