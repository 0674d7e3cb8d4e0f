#include "engine/sockopts.h"

#include "engine/sys.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>

#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
/* Of later kernels. */
#ifndef SO_TIMESTAMP_NEW
#define SO_TIMESTAMP_NEW    63
#define SO_TIMESTAMPNS_NEW  64
#define SO_TIMESTAMPING_NEW 65
#endif
#define SO_TXREHASH         74
#define SO_RCVMARK          75
#define SO_RCVPRIORITY      82
#define IP_LOCAL_PORT_RANGE 51
#define TCP_RTO_MAX_MS      44
#define TCP_RTO_MIN_US      45
#define TCP_DELACK_MAX_US   46

/* Everything that can be both read and set. Options whose value names a path
 * (SO_BINDTODEVICE, IP_UNICAST_IF) are left out: the path is what changes. */
static const struct {
    int level, name;
} options[] = {
    { SOL_SOCKET, SO_LINGER },          { SOL_SOCKET, SO_OOBINLINE },
    { SOL_SOCKET, SO_RCVTIMEO },        { SOL_SOCKET, SO_SNDTIMEO },
    { SOL_SOCKET, SO_RCVLOWAT },        { SOL_SOCKET, SO_PRIORITY },
    { SOL_SOCKET, SO_MARK },            { SOL_SOCKET, SO_TIMESTAMP },
    { SOL_SOCKET, SO_TIMESTAMPNS },     { SOL_SOCKET, SO_TIMESTAMPING },
    { SOL_SOCKET, SO_BUSY_POLL },       { SOL_SOCKET, SO_INCOMING_CPU },
    { SOL_SOCKET, SO_REUSEADDR },       { SOL_SOCKET, SO_REUSEPORT },
    { SOL_SOCKET, SO_DONTROUTE },       { SOL_SOCKET, SO_DEBUG },
    { SOL_SOCKET, SO_BROADCAST },       { SOL_SOCKET, SO_SELECT_ERR_QUEUE },
    { SOL_SOCKET, SO_MAX_PACING_RATE }, { SOL_SOCKET, SO_ZEROCOPY },
    { SOL_SOCKET, SO_RXQ_OVFL },        { SOL_SOCKET, SO_PREFER_BUSY_POLL },
    { SOL_SOCKET, SO_TIMESTAMP_NEW },   { SOL_SOCKET, SO_TIMESTAMPNS_NEW },
    { SOL_SOCKET, SO_TIMESTAMPING_NEW }, { SOL_SOCKET, SO_TXREHASH },
    { SOL_SOCKET, SO_RCVMARK },         { SOL_SOCKET, SO_RCVPRIORITY },
    { SOL_SOCKET, SO_KEEPALIVE },       { IPPROTO_TCP, TCP_KEEPIDLE },
    { IPPROTO_TCP, TCP_KEEPINTVL },     { IPPROTO_TCP, TCP_KEEPCNT },
    { IPPROTO_TCP, TCP_NODELAY },       { IPPROTO_TCP, TCP_CORK },
    { IPPROTO_TCP, TCP_CONGESTION },    { IPPROTO_TCP, TCP_LINGER2 },
    { IPPROTO_TCP, TCP_SYNCNT },        { IPPROTO_TCP, TCP_DEFER_ACCEPT },
    { IPPROTO_TCP, TCP_USER_TIMEOUT },  { IPPROTO_TCP, TCP_NOTSENT_LOWAT },
    { IPPROTO_TCP, TCP_INQ },           { IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS },
    { IPPROTO_TCP, TCP_TX_DELAY },      { IPPROTO_TCP, TCP_RTO_MAX_MS },
    { IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT }, { IPPROTO_IP, IP_LOCAL_PORT_RANGE },
    { IPPROTO_IP, IP_TOS },             { IPPROTO_IP, IP_TTL },
    { IPPROTO_IP, IP_MTU_DISCOVER },    { IPPROTO_IP, IP_RECVERR },
    { IPPROTO_IP, IP_RECVTTL },         { IPPROTO_IP, IP_RECVTOS },
    { IPPROTO_IP, IP_PKTINFO },         { IPPROTO_IP, IP_RECVOPTS },
    { IPPROTO_IP, IP_RETOPTS },         { IPPROTO_IP, IP_MINTTL },
    { IPPROTO_IP, IP_FREEBIND },        { IPPROTO_IP, IP_TRANSPARENT },
    { IPPROTO_IPV6, IPV6_TCLASS },      { IPPROTO_IPV6, IPV6_UNICAST_HOPS },
    { IPPROTO_IPV6, IPV6_MTU_DISCOVER }, { IPPROTO_IPV6, IPV6_RECVERR },
    { IPPROTO_IPV6, IPV6_RECVTCLASS },  { IPPROTO_IPV6, IPV6_RECVHOPLIMIT },
    { IPPROTO_IPV6, IPV6_RECVPKTINFO }, { IPPROTO_IPV6, IPV6_MINHOPCOUNT },
    { IPPROTO_IPV6, IPV6_AUTOFLOWLABEL }, { IPPROTO_IPV6, IPV6_DONTFRAG },
};

/* Of them, what means nothing on a connection within the host, or something else. */
static const struct {
    int level, name;
} of_path[] = {
    { SOL_SOCKET, SO_MARK },            { SOL_SOCKET, SO_BUSY_POLL },
    { SOL_SOCKET, SO_INCOMING_CPU },    { SOL_SOCKET, SO_DONTROUTE },
    { SOL_SOCKET, SO_MAX_PACING_RATE }, { SOL_SOCKET, SO_PREFER_BUSY_POLL },
    { IPPROTO_TCP, TCP_CONGESTION },    { IPPROTO_TCP, TCP_SYNCNT },
    { IPPROTO_TCP, TCP_LINGER2 },       { IPPROTO_TCP, TCP_WINDOW_CLAMP },
    { IPPROTO_TCP, TCP_USER_TIMEOUT },  { IPPROTO_TCP, TCP_TX_DELAY },
    { IPPROTO_IP, IP_TOS },             { IPPROTO_IP, IP_TTL },
    { IPPROTO_IP, IP_MTU_DISCOVER },    { IPPROTO_IP, IP_MINTTL },
    { IPPROTO_IP, IP_FREEBIND },        { IPPROTO_IP, IP_TRANSPARENT },
    { IPPROTO_IPV6, IPV6_TCLASS },      { IPPROTO_IPV6, IPV6_UNICAST_HOPS },
    { IPPROTO_IPV6, IPV6_MTU_DISCOVER }, { IPPROTO_IPV6, IPV6_MINHOPCOUNT },
    { IPPROTO_IPV6, IPV6_AUTOFLOWLABEL }, { IPPROTO_IPV6, IPV6_DONTFRAG },
};

static bool is_of_path(int level, int name)
{
    for (size_t i = 0; i < sizeof of_path / sizeof *of_path; i++)
        if (of_path[i].level == level && of_path[i].name == name)
            return true;
    return false;
}

static void copy_one(int from, int to, int level, int name)
{
    char is[32] = "", now[32] = "";
    socklen_t a = sizeof is, b = sizeof now;
    if (ns_sys_getsockopt(from, level, name, is, &a) < 0 || ns_sys_getsockopt(to, level, name, now, &b) < 0)
        return;
    if (a != b || memcmp(is, now, a) != 0)
        ns_sys_setsockopt(to, level, name, is, a);
}

/* A size that the application has fixed stays fixed; one that the kernel tunes
 * goes on being tuned. The kernel gives back twice what it is told. */
static void copy_buffer(int from, int to, int name, int lock_bit)
{
    int locks = 0, size = 0;
    socklen_t len = sizeof locks;
    if (ns_sys_getsockopt(from, SOL_SOCKET, SO_BUF_LOCK, &locks, &len) < 0 || !(locks & lock_bit))
        return;
    len = sizeof size;
    if (ns_sys_getsockopt(from, SOL_SOCKET, name, &size, &len) < 0)
        return;
    size /= 2;
    ns_sys_setsockopt(to, SOL_SOCKET, name, &size, sizeof size);
}

/* What a socket forgets with its connection (tcp_disconnect). */
static const int forgotten[NS_SOCKOPTS_FORGOTTEN] = { TCP_WINDOW_CLAMP, TCP_RTO_MIN_US, TCP_DELACK_MAX_US };

void ns_sockopts_remember(int fd, int values[NS_SOCKOPTS_FORGOTTEN])
{
    for (size_t i = 0; i < NS_SOCKOPTS_FORGOTTEN; i++) {
        socklen_t len = sizeof values[i];
        if (ns_sys_getsockopt(fd, IPPROTO_TCP, forgotten[i], &values[i], &len) < 0)
            values[i] = 0;
    }
}

/* Of windows only one that is smaller than what the kernel gives to a new connection is of
 * the application's making. */
static void copy_forgotten(int to, const int values[NS_SOCKOPTS_FORGOTTEN])
{
    int now[NS_SOCKOPTS_FORGOTTEN];
    ns_sockopts_remember(to, now);
    for (size_t i = 0; i < NS_SOCKOPTS_FORGOTTEN; i++)
        if (values[i] > 0 && (i == 0 ? values[i] < now[i] : values[i] != now[i]))
            ns_sys_setsockopt(to, IPPROTO_TCP, forgotten[i], &values[i], sizeof values[i]);
}

static void copy_all(int from, int to, bool path)
{
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (path || !is_of_path(options[i].level, options[i].name))
            copy_one(from, to, options[i].level, options[i].name);
    copy_buffer(from, to, SO_SNDBUF, 1);
    copy_buffer(from, to, SO_RCVBUF, 2);
}

void ns_sockopts_copy(int from, int to, const int values[NS_SOCKOPTS_FORGOTTEN])
{
    copy_all(from, to, true);
    copy_forgotten(to, values);
}

void ns_sockopts_copy_within(int from, int to)
{
    copy_all(from, to, false);
}
