#include "engine/caller.h"

#include "engine/sys.h"

#include <errno.h>
#include <string.h>

/* The same by the processor. */
static ssize_t copy(const struct iovec *to, size_t count, const struct iovec *from, size_t pieces)
{
    size_t copied = 0, d = 0, used = 0;
    for (size_t k = 0; k < pieces; k++) {
        size_t at = 0;
        while (at < from[k].iov_len && d < count) {
            size_t n = from[k].iov_len - at, room = to[d].iov_len - used;
            if (n > room)
                n = room;
            memcpy((char *)to[d].iov_base + used, (char *)from[k].iov_base + at, n);
            at += n;
            used += n;
            copied += n;
            if (used == to[d].iov_len) {
                d++;
                used = 0;
            }
        }
    }
    return (ssize_t)copied;
}

ssize_t ns_caller_scatter(const struct iovec *to, size_t count, const struct iovec *from, size_t pieces)
{
    ssize_t r = (ssize_t)ns_syscall6(SYS_process_vm_writev, ns_sys_getpid(), (long)from, (long)pieces, (long)to,
                                     (long)count, 0);
    if (r < 0)
        return r == -EFAULT ? r : copy(to, count, from, pieces);
    /* Once more, as far as it can be done: a tool that follows each store (valgrind) knows nothing of that call. */
    size_t whole = 0, room = 0;
    for (size_t i = 0; i < pieces; i++)
        whole += from[i].iov_len;
    for (size_t i = 0; i < count; i++)
        room += to[i].iov_len;
    if ((size_t)r == (whole < room ? whole : room))
        copy(to, count, from, pieces);
    return r;
}

int ns_caller_write(void *to, const void *from, size_t n)
{
    struct iovec theirs = { to, n }, ours = { (void *)from, n };
    return ns_caller_scatter(&theirs, 1, &ours, 1) == (ssize_t)n ? 0 : -EFAULT;
}

int ns_caller_read(void *to, const void *from, size_t n)
{
    struct iovec theirs = { (void *)from, n }, ours = { to, n };
    ssize_t r = (ssize_t)ns_syscall6(SYS_process_vm_readv, ns_sys_getpid(), (long)&ours, 1, (long)&theirs, 1, 0);
    if (r >= 0 || r == -EFAULT)
        return r == (ssize_t)n ? 0 : -EFAULT;
    memcpy(to, from, n);
    return 0;
}
