#include "engine/preserve.h"

#include "engine/sys.h"

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

/* include/uapi/linux/tcp.h with the series of kernel/patches */
#define PRESERVE_INFO   61
#define PRESERVE_OFFERED 0
#define ADDRESSES_MAX    8

struct preserve_info {
    uint8_t state;
    uint8_t locals, remotes;
    uint8_t local, remote; /* in use: which of them */
    uint8_t reason;
    uint8_t pad[2];
    uint32_t moves, follows;
    struct in6_addr local_address[ADDRESSES_MAX];
    struct in6_addr remote_address[ADDRESSES_MAX];
};

bool ns_preserve_local(int fd, struct ns_address *local)
{
    struct preserve_info i = { 0 };
    socklen_t len = sizeof i;
    if (ns_sys_getsockopt(fd, IPPROTO_TCP, PRESERVE_INFO, &i, &len) < 0 || len != sizeof i)
        return false;
    if (i.state == PRESERVE_OFFERED || (i.locals < 2 && i.remotes < 2) || i.local >= ADDRESSES_MAX)
        return false;
    *local = (struct ns_address){ .family = AF_INET6 };
    memcpy(local->bytes, &i.local_address[i.local], sizeof i.local_address[0]);
    return true;
}
