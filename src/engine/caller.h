/*
 * The memory that the application has named, where the engine reads or writes it itself in
 * the kernel's place: a pointer that leads nowhere, or to what may not be written, is EFAULT
 * and not the program's death. By process_vm_readv(2) and process_vm_writev(2) on this process;
 * where a filter forbids those, directly.
 *
 * For slow ways only: each costs a system call. Async-signal-safe; errno is left alone.
 */
#ifndef NS_ENGINE_CALLER_H
#define NS_ENGINE_CALLER_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Returns 0, or -EFAULT with an unknown part copied. */
int ns_caller_read(void *to, const void *from, size_t n);
int ns_caller_write(void *to, const void *from, size_t n);

/* Fills `to`, up to IOV_MAX buffers of the caller's, from up to as many of ours, as far as both
 * go. Returns the bytes, fewer where a buffer cannot be written, or -EFAULT for none. */
ssize_t ns_caller_scatter(const struct iovec *to, size_t count, const struct iovec *from, size_t pieces);

#endif
