/* Records of a Unix socket, with descriptors beside them (unix(7), SCM_RIGHTS). */
#ifndef NS_ENGINE_RECORD_H
#define NS_ENGINE_RECORD_H

#include <stddef.h>
#include <sys/types.h>

#define NS_RECORD_FDS 6 /* beside one, at most */

/* Does not wait for room. The descriptors stay the caller's; those that are negative are none.
 * Returns how many bytes, or a negative errno. */
ssize_t ns_record_send(int to, const void *data, size_t bytes, const int *fds, size_t count);

/* Does not wait for one. Takes up to `room` descriptors, which are closed on exec; what is more is
 * closed. `from`: whose it is, where the socket has SO_PASSCRED; NULL: nobody asks. Returns how many
 * bytes, or a negative errno: then there are no descriptors. */
ssize_t ns_record_receive(int socket, void *data, size_t bytes, int *fds, size_t room, size_t *count, uid_t *from);

#endif
