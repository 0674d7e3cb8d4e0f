/* Calls that put the process into a sandbox: the engine goes quiet before them. */
#ifndef NS_PRELOAD_SANDBOX_H
#define NS_PRELOAD_SANDBOX_H

/* Before seccomp(2) with this operation, and prctl(2) with these arguments. */
void ns_sandbox_seccomp(unsigned operation, const void *program);
void ns_sandbox_prctl(int option, unsigned long mode, const void *program);

#endif
