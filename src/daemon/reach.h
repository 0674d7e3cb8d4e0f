/* Whether the dynamic linker will load the shim into a program (ld.so(8), LD_PRELOAD). */
#ifndef NS_DAEMON_REACH_H
#define NS_DAEMON_REACH_H

#include <stddef.h>

enum ns_reach {
    NS_REACH_YES,     /* as far as can be seen from the file */
    NS_REACH_UNKNOWN, /* the file cannot be read or understood: execve will say */
    NS_REACH_IGNORES, /* the program runs, the shim is not in it (its children may have it) */
    NS_REACH_BREAKS,  /* another C library or machine: its linker would complain, or refuse to start */
};

/*
 * Finds the file that execvp(3) would run for `command`: itself when it has a
 * slash, or the first executable file of that name in PATH.
 * Returns 0, or -ENOENT, -EACCES, -ENAMETOOLONG.
 */
int ns_reach_find(const char *command, char *path, size_t path_bytes);

/*
 * Looks at the file; follows "#!" to the interpreter. When the answer is IGNORES
 * or BREAKS, `why` gets the reason, such as "/bin/busybox is statically linked".
 */
enum ns_reach ns_reach(const char *path, char *why, size_t why_bytes);

#endif
