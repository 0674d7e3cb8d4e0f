/* The engine's own descriptors: close-on-exec, out of the way, and known, so
 * that an application that closes everything passes over them. */
#ifndef NS_ENGINE_INTERNAL_H
#define NS_ENGINE_INTERNAL_H

/* Takes `fd` (or passes a negative errno on) and returns it under a high
 * number, noted as internal. */
int ns_internal(int fd);
void ns_internal_close(int fd);
/* The descriptor stops being internal without being closed. */
void ns_internal_release(int fd);

/* It is a forked child's too. */
void ns_internal_inherit(int fd);
/* In a forked child: closes all others; what they led to is the parent's. */
void ns_internal_fork_child(void);

#endif
