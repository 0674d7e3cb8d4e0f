/* Where libnsshim.so is, and how it gets into LD_PRELOAD. */
#ifndef NS_DAEMON_SHIM_H
#define NS_DAEMON_SHIM_H

#include <stddef.h>

/*
 * Finds the shim: in the build tree beside this program, in the library
 * directory that belongs to this program's, then where it was to be installed.
 * Returns 0, or -ENOENT with `path` the last place that was looked at.
 */
int ns_shim_find(char *path, size_t path_bytes);

/*
 * Puts `path` (absolute) in front of what LD_PRELOAD has, unless it is there.
 * Returns 0; -EINVAL when the path has a blank or a colon, which separate
 * entries; -ENOMEM.
 */
int ns_shim_preload(const char *path);

#endif
