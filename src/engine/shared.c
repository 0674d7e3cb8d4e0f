#include "engine/shared.h"

#include "engine/listener.h"
#include "engine/sys.h"

#include <stdio.h>
#include <string.h>

#define LISTEN 0x0A /* include/net/tcp_states.h */

static uint16_t port_of(int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    struct ns_address a;
    uint16_t port = 0;
    if (ns_sys_getsockname(fd, (struct sockaddr *)&ss, &len) < 0 ||
        ns_address_from_sockaddr(&a, &port, (struct sockaddr *)&ss, len) < 0)
        return 0;
    return port;
}

/* Our listeners on the port, and whether one of them may have company. */
static unsigned ours(uint16_t port, bool *shareable)
{
    struct ns_hold hold;
    unsigned n = 0;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        if (o->kind != NS_KIND_LISTENER || o->fd < 0 || port_of(o->fd) != port)
            continue;
        n++;
        *shareable |= ((struct ns_listener *)o)->shareable;
    }
    ns_table_unhold(&hold);
    return n;
}

static bool listens(const char *line, uint16_t port)
{
    unsigned local, state;
    return sscanf(line, "%*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x", &local, &state) == 2 && local == port &&
           state == LISTEN;
}

static unsigned in_file(const char *path, uint16_t port)
{
    char text[8192];
    size_t kept = 0;
    unsigned n = 0;
    ssize_t got;
    int fd = ns_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    while ((got = ns_sys_read(fd, text + kept, sizeof text - 1 - kept)) > 0) {
        kept += (size_t)got;
        text[kept] = '\0';
        char *line = text, *end;
        for (; (end = strchr(line, '\n')); line = end + 1) {
            *end = '\0';
            n += listens(line, port);
        }
        kept = (size_t)(text + kept - line);
        memmove(text, line, kept);
    }
    ns_sys_close(fd);
    return n;
}

bool ns_port_shared(uint16_t port)
{
    bool shareable = false;
    unsigned n = ours(port, &shareable);
    return shareable && in_file("/proc/net/tcp", port) + in_file("/proc/net/tcp6", port) > n;
}
