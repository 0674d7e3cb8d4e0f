/*
 * Calls on a connection as a whole: connect, listen, accept, accept4,
 * shutdown, names and options.
 *
 * bind is libc's own: the engine reads the address from the kernel.
 */
#include "preload/interpose.h"
#include "preload/stream.h"

NS_EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    if (ns_ready() && ns_plausible(addr)) {
        int r = ns_connect(fd, addr, len);

        ns_std_check(fd);
        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_real.connect(fd, addr, len);
}

NS_TWIN(__connect, connect);

NS_EXPORT int listen(int fd, int backlog)
{
    if (ns_ready()) {
        int r = ns_listen(fd, backlog);

        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_real.listen(fd, backlog);
}

/* As the kernel does: a connection whose name cannot be told is closed. */
static int accept_for(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    bool told = !addr || (ns_plausible(addr) && ns_plausible(len));
    int r = ns_accept(fd, told ? addr : NULL, len, flags);

    if (r >= 0 && !told) {
        close(r);
        return -EFAULT;
    }
    ns_std_check(r);
    return r;
}

NS_EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
    if (ns_ours(fd)) {
        int r = accept_for(fd, addr, len, 0);

        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_newborn(ns_real.accept(fd, addr, len));
}

NS_EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    if (ns_ours(fd)) {
        int r = accept_for(fd, addr, len, flags);

        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_newborn(ns_real.accept4(fd, addr, len, flags));
}

NS_EXPORT int shutdown(int fd, int how)
{
    if (ns_ours(fd)) {
        int r = ns_shutdown(fd, how);

        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_real.shutdown(fd, how);
}

NS_EXPORT int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    if (ns_ours(fd) && ns_plausible(addr) && ns_plausible(len)) {
        int r = ns_getsockname(fd, addr, len);

        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_real.getsockname(fd, addr, len);
}

NS_EXPORT int getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    if (ns_ours(fd) && ns_plausible(addr) && ns_plausible(len)) {
        int r = ns_getpeername(fd, addr, len);

        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_real.getpeername(fd, addr, len);
}

NS_EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    if (ns_ours(fd) && ns_plausible(value) && ns_plausible(len)) {
        int r = ns_getsockopt(fd, level, name, value, len);

        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_real.getsockopt(fd, level, name, value, len);
}

NS_EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    if (ns_ours(fd)) {
        int r = ns_setsockopt(fd, level, name, value, len);

        if (r != NS_NOT_OURS)
            return (int)ns_result(r);
    }
    return ns_real.setsockopt(fd, level, name, value, len);
}
