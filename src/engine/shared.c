#include "engine/shared.h"

#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/listener.h"
#include "engine/sys.h"

#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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

bool ns_port_passed(uint16_t port)
{
    struct ns_hold hold;
    bool any = false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && !any; o = o->next)
        any = o->kind == NS_KIND_LISTENER && o->fd >= 0 && ((struct ns_listener *)o)->passed && port_of(o->fd) == port;
    ns_table_unhold(&hold);
    return any;
}

/* ---- sockets that came or went by SCM_RIGHTS, and may listen yet ---- */

#define PASSED_MAX 1024
static ino_t passed[PASSED_MAX] NS_LARGE; /* table */
static unsigned passed_count;             /* more than there is room for: all of them may be; table */

static ino_t inode_of(int fd)
{
    struct stat st;
    return ns_sys_fstat(fd, &st) == 0 ? st.st_ino : 0;
}

bool ns_socket_passed(int fd)
{
    ino_t inode = passed_count > 0 ? inode_of(fd) : 0;
    bool is = passed_count > PASSED_MAX;
    for (unsigned i = 0; i < passed_count && !is; i++)
        is = passed[i] == inode;
    return is;
}

/* Table held. */
static void note_passed(int fd)
{
    if (ns_socket_passed(fd))
        return;
    if (passed_count < PASSED_MAX)
        passed[passed_count] = inode_of(fd);
    passed_count++;
}

void ns_fd_passed(int fd)
{
    struct tcp_info info = { .tcpi_state = 0 };
    socklen_t len = sizeof info.tcpi_state;
    struct ns_hold hold;
    if ((unsigned)fd >= NS_FD_MAX || ns_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
        (info.tcpi_state != LISTEN && info.tcpi_state != NS_TCP_CLOSE))
        return;
    ns_table_hold(&hold);
    if (!ns_object_at(fd))
        note_passed(fd);
    if (!ns_object_at(fd) && info.tcpi_state == LISTEN)
        ns_listener_new(fd, true);
    ns_table_unhold(&hold);
    ns_listener_leave(fd);
}
