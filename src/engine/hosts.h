/*
 * The static table of host names, hosts(5).
 */
#ifndef NS_ENGINE_HOSTS_H
#define NS_ENGINE_HOSTS_H

#include <stddef.h>
#include <sys/types.h>

#include "core/path.h"

/*
 * Reads the file at `path` (borrowed, as `name` is) from its start to its end
 * and gives `found` every address on a line that holds `name`, in the file's
 * order, duplicates included; letters' case and one dot at the end of `name`
 * do not matter. The address is borrowed for the call. Lines that make no
 * sense are passed over; lines may be of any length. Opens one descriptor,
 * high and close-on-exec, and closes it. Returns how many were found, or what
 * openat(2) or read(2) said as a negative errno. Any thread; not from a signal
 * handler.
 */
ssize_t ns_hosts_lookup(const char *path, const char *name,
                        void (*found)(void *ctx, const struct ns_address *address), void *ctx);

/*
 * Reads the text of an address as getaddrinfo(3) does: like ns_address_parse,
 * but the scope may be an interface's name, and IPv4 may be written in the
 * short forms of inet_aton(3). Returns 0, -EINVAL, or -ENODEV when no such
 * interface is there. Any thread.
 */
int ns_hosts_literal(struct ns_address *a, const char *text);

#endif
