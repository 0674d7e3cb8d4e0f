#include "daemon/crossing.h"

#include "engine/sys.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

static socklen_t bytes_of(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* An IPv4 address as such, as an IPv4 socket names it. */
static void unmap(struct sockaddr_storage *a)
{
    struct sockaddr_in6 a6;
    struct sockaddr_in *a4 = (void *)a;

    memcpy(&a6, a, sizeof(a6));
    if (a->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a6.sin6_addr))
        return;
    memset(a, 0, sizeof(*a));
    a4->sin_family = AF_INET;
    a4->sin_port = a6.sin6_port;
    memcpy(&a4->sin_addr, a6.sin6_addr.s6_addr + 12, 4);
}

static void map(struct sockaddr_storage *a)
{
    struct sockaddr_in a4;
    struct sockaddr_in6 *a6 = (void *)a;

    memcpy(&a4, a, sizeof(a4));
    memset(a, 0, sizeof(*a));
    a6->sin6_family = AF_INET6;
    a6->sin6_port = a4.sin_port;
    a6->sin6_addr.s6_addr[10] = a6->sin6_addr.s6_addr[11] = 0xff;
    memcpy(a6->sin6_addr.s6_addr + 12, &a4.sin_addr, 4);
}

static int name_of(int fd, struct sockaddr_storage *a)
{
    socklen_t bytes = sizeof(*a);

    return getsockname(fd, (struct sockaddr *)a, &bytes) < 0 ? -errno : 0;
}

/* Two sockets have the port: SO_REUSEPORT, which both must set before they are bound. */
static int socket_here(const struct sockaddr_storage *here)
{
    int fd = ns_sys_socket(here->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

    if (fd < 0)
        return fd;
    r = setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){ 1 }, sizeof(int)) < 0 ? -errno : 0;
    if (r == 0)
        r = ns_sys_bind(fd, (const struct sockaddr *)here, bytes_of(here));
    if (r == 0)
        return fd;
    ns_sys_close(fd);
    return r;
}

/* A port without a listener would answer by a reset. */
static int open_deaf(struct ns_crossing *c)
{
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = { .len = 1, .filter = &drop };
    int fd = socket_here(&c->here), r;

    if (fd < 0)
        return fd;
    r = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
    if (r == 0)
        r = ns_sys_listen(fd, 1);
    if (r == 0)
        r = name_of(fd, &c->here);
    if (r == 0)
        return fd;
    ns_sys_close(fd);
    return r;
}

static int connect_there(int fd, const struct sockaddr_storage *to)
{
    int flags = fcntl(fd, F_GETFL), r;

    if (!(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    r = ns_sys_connect(fd, (const struct sockaddr *)to, bytes_of(to));
    if (!(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags);
    return r == -EINPROGRESS ? 0 : r;
}

int ns_crossing_begin(struct ns_crossing *c, int fd, const struct sockaddr_storage *meant)
{
    struct sockaddr_storage to = *meant;
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int r;

    unmap(&to);
    memset(&c->here, 0, sizeof(c->here));
    if (to.ss_family == AF_INET)
        memcpy(&c->here, &v4, sizeof(v4));
    else
        memcpy(&c->here, &v6, sizeof(v6));
    c->deaf = open_deaf(c);
    if (c->deaf < 0)
        return c->deaf;
    to = c->here;
    if (to.ss_family != meant->ss_family)
        map(&to);
    r = connect_there(fd, &to);
    if (r == 0)
        r = name_of(fd, &c->there);
    if (r < 0)
        ns_crossing_refuse(c);
    unmap(&c->there);
    return r;
}

static bool is_in(int fd, unsigned states)
{
    struct tcp_info info;
    socklen_t bytes = sizeof(info);

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 && (1u << info.tcpi_state) & states;
}

int ns_crossing_meet(struct ns_crossing *c, int fd)
{
    int ours = is_in(fd, 1u << TCP_SYN_SENT) ? socket_here(&c->here) : -ETIMEDOUT, r;

    if (ours >= 0) {
        r = ns_sys_connect(ours, (struct sockaddr *)&c->there, bytes_of(&c->there));
        /* Had it given up just now, somebody else might have its port. */
        if ((r < 0 && r != -EINPROGRESS) || is_in(fd, 1u << TCP_CLOSE)) {
            ns_sys_close(ours);
            ours = r < 0 && r != -EINPROGRESS ? r : -ETIMEDOUT;
        }
    }
    ns_crossing_refuse(c);
    return ours;
}

int ns_crossing_look(int fd)
{
    struct sockaddr_in any = { .sin_family = AF_INET };
    int r = ns_sys_connect(fd, (struct sockaddr *)&any, sizeof(any));

    return r == -EALREADY ? -EINPROGRESS : r;
}

bool ns_crossing_gone(int fd)
{
    return is_in(fd, 1u << TCP_CLOSE);
}

void ns_crossing_dissolve(int fd)
{
    ns_sys_connect(fd, &(struct sockaddr){ .sa_family = AF_UNSPEC }, sizeof(struct sockaddr));
}

void ns_crossing_refuse(struct ns_crossing *c)
{
    if (c->deaf >= 0)
        ns_sys_close(c->deaf);
    c->deaf = -1;
}
