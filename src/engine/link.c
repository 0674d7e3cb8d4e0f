#include "engine/link.h"

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/sys.h"

/* One datagram of announcements. A longer one (a link with many virtual functions) counts as an overrun. */
#define EVENT_BYTES 8192

/* The kernel fills dump datagrams up to the size that it is asked with, 32 KiB at most. */
#define DUMP_BYTES 32768

/* A dump that the kernel flags as inconsistent is begun again this often. */
#define DUMP_ATTEMPTS 4

/* Announcements that one call of ns_link_read takes: the caller's loop has other things to do. */
#define DATAGRAMS_MAX 4096

/* ---- reading messages ---- */

/* The attribute `type` of a message whose fixed part takes `fixed` bytes, with its length; or NULL. */
static const void *attribute(const struct nlmsghdr *m, size_t fixed, unsigned type, size_t *len)
{
    size_t offset = NLMSG_HDRLEN + NLMSG_ALIGN(fixed);

    while (offset + sizeof(struct rtattr) <= m->nlmsg_len) {
        const struct rtattr *a = (const struct rtattr *)((const char *)m + offset);

        if (a->rta_len < sizeof(*a) || a->rta_len > m->nlmsg_len - offset)
            return NULL;
        if ((a->rta_type & NLA_TYPE_MASK) == type) {
            *len = a->rta_len - RTA_LENGTH(0);
            return RTA_DATA(a);
        }
        offset += RTA_ALIGN(a->rta_len);
    }
    return NULL;
}

static uint32_t attribute_u32(const struct nlmsghdr *m, size_t fixed, unsigned type, uint32_t otherwise)
{
    size_t len;
    const void *data = attribute(m, fixed, type, &len);
    uint32_t value;

    if (!data || len < sizeof(value))
        return otherwise;
    memcpy(&value, data, sizeof(value));
    return value;
}

/* The fixed part, or NULL where the message is too short for it. */
static const void *fixed_part(const struct nlmsghdr *m, size_t fixed)
{
    return m->nlmsg_len >= NLMSG_LENGTH(fixed) ? NLMSG_DATA(m) : NULL;
}

/* Whether an RTM_*ADDR message is about an IP address; fills `out` then, but for the link's state. */
static bool read_address(const struct nlmsghdr *m, struct ns_local *out)
{
    const struct ifaddrmsg *fixed = fixed_part(m, sizeof(*fixed));
    const void *bytes;
    size_t want, len;
    uint32_t flags;

    if (!fixed || (fixed->ifa_family != AF_INET && fixed->ifa_family != AF_INET6))
        return false;
    want = fixed->ifa_family == AF_INET ? 4 : 16;
    /* On a point-to-point link IFA_ADDRESS is the other end's. */
    bytes = attribute(m, sizeof(*fixed), IFA_LOCAL, &len);
    if (!bytes)
        bytes = attribute(m, sizeof(*fixed), IFA_ADDRESS, &len);
    if (!bytes || len < want)
        return false;
    flags = attribute_u32(m, sizeof(*fixed), IFA_FLAGS, fixed->ifa_flags);

    memset(out, 0, sizeof(*out));
    out->address.family = fixed->ifa_family;
    memcpy(out->address.bytes, bytes, want);
    out->ifindex = fixed->ifa_index;
    out->prefix_length = fixed->ifa_prefixlen;
    out->deprecated = flags & IFA_F_DEPRECATED;
    /* For IPv4 the same bit means "secondary", which says nothing about the address' life. */
    out->temporary = fixed->ifa_family == AF_INET6 && (flags & IFA_F_TEMPORARY);
    /* An optimistic address may be used before detection ends (RFC 4429), a failed one never. */
    out->tentative = (flags & IFA_F_DADFAILED) || ((flags & IFA_F_TENTATIVE) && !(flags & IFA_F_OPTIMISTIC));
    if (out->address.family == AF_INET6 && ns_scope_of(&out->address) == NS_SCOPE_LINK)
        out->address.scope_id = out->ifindex;
    return true;
}

/* ---- announcements ---- */

static bool link_event(const struct nlmsghdr *m, struct ns_link_event *event)
{
    const struct ifinfomsg *fixed = fixed_part(m, sizeof(*fixed));
    const unsigned usable = IFF_UP | IFF_RUNNING | IFF_LOWER_UP;

    /* Bridges announce their ports in the same group, under AF_BRIDGE. */
    if (!fixed || fixed->ifi_family != AF_UNSPEC)
        return false;
    event->ifindex = (uint32_t)fixed->ifi_index;
    event->kind = NS_LINK_DOWN;
    if (m->nlmsg_type == RTM_NEWLINK && (fixed->ifi_flags & usable) == usable)
        event->kind = NS_LINK_UP;
    return true;
}

static bool address_event(const struct nlmsghdr *m, struct ns_link_event *event)
{
    struct ns_local local;

    if (!read_address(m, &local) || (m->nlmsg_type == RTM_NEWADDR && local.tentative))
        return false;
    event->kind = m->nlmsg_type == RTM_NEWADDR ? NS_LINK_ADDRESS_CAME : NS_LINK_ADDRESS_GONE;
    event->ifindex = local.ifindex;
    event->address = local.address;
    return true;
}

static bool route_event(const struct nlmsghdr *m, struct ns_link_event *event)
{
    const struct rtmsg *fixed = fixed_part(m, sizeof(*fixed));

    /* Each address brings routes of its own to the local table; the address says it all. */
    if (!fixed || fixed->rtm_type != RTN_UNICAST || (fixed->rtm_flags & RTM_F_CLONED) ||
        (fixed->rtm_family != AF_INET && fixed->rtm_family != AF_INET6) ||
        attribute_u32(m, sizeof(*fixed), RTA_TABLE, fixed->rtm_table) == RT_TABLE_LOCAL)
        return false;
    event->kind = NS_LINK_ROUTE_CHANGED;
    event->ifindex = attribute_u32(m, sizeof(*fixed), RTA_OIF, 0);
    return true;
}

static bool read_event(const struct nlmsghdr *m, struct ns_link_event *event)
{
    memset(event, 0, sizeof(*event));
    switch (m->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        return link_event(m, event);
    case RTM_NEWADDR:
    case RTM_DELADDR:
        return address_event(m, event);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return route_event(m, event);
    default:
        return false;
    }
}

int ns_link_open(void)
{
    struct sockaddr_nl addr = { .nl_family = AF_NETLINK,
                                .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
                                             RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE };
    int fd = ns_sys_high(ns_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
    int error;

    if (fd < 0)
        return fd;
    error = ns_sys_bind(fd, (struct sockaddr *)&addr, sizeof(addr));
    if (error < 0) {
        ns_sys_close(fd);
        return error;
    }
    return fd;
}

/*
 * Receives one datagram. Returns its length, or a negative errno; 0 for one
 * that is not the kernel's (any process may send to a netlink socket).
 */
static ssize_t receive(int fd, void *buf, size_t bytes)
{
    struct sockaddr_nl from = { 0 };
    struct iovec iov = { .iov_base = buf, .iov_len = bytes };
    struct msghdr msg = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t len;

    do {
        len = ns_sys_recvmsg(fd, &msg, MSG_DONTWAIT);
    } while (len == -EINTR);
    if (len < 0)
        return len;
    if (from.nl_pid != 0)
        return 0;
    return msg.msg_flags & MSG_TRUNC ? -ENOBUFS : len;
}

void ns_link_read(int fd, void (*event)(void *ctx, const struct ns_link_event *), void *ctx)
{
    const struct ns_link_event overrun = { .kind = NS_LINK_OVERRUN };
    struct nlmsghdr buf[EVENT_BYTES / sizeof(struct nlmsghdr)];
    struct ns_link_event e;

    for (int i = 0; i < DATAGRAMS_MAX; i++) {
        ssize_t len = receive(fd, buf, sizeof(buf));

        if (len == -ENOBUFS) {
            event(ctx, &overrun);
            continue;
        }
        if (len < 0)
            return;
        for (const struct nlmsghdr *m = buf; NLMSG_OK(m, len); m = NLMSG_NEXT(m, len)) {
            if (read_event(m, &e))
                event(ctx, &e);
        }
    }
}

/* ---- the addresses as they are ---- */

struct dump {
    int fd;
    uint32_t sequence;
    struct nlmsghdr *buf; /* DUMP_BYTES */
    struct ns_local *out;
    size_t n, max;
};

static void take_address(struct dump *d, const struct nlmsghdr *m)
{
    if (m->nlmsg_type == RTM_NEWADDR && d->n < d->max && read_address(m, &d->out[d->n]))
        d->n++;
}

/* Completes the addresses with what is known of their link. */
static void take_link(struct dump *d, const struct nlmsghdr *m)
{
    const struct ifinfomsg *fixed = fixed_part(m, sizeof(*fixed));
    struct ns_link_event e;

    if (!fixed || !read_event(m, &e) || (e.kind != NS_LINK_UP && e.kind != NS_LINK_DOWN))
        return;
    for (size_t i = 0; i < d->n; i++) {
        if (d->out[i].ifindex != e.ifindex)
            continue;
        d->out[i].carrier = e.kind == NS_LINK_UP;
        d->out[i].loopback = fixed->ifi_flags & IFF_LOOPBACK;
    }
}

static int request_dump(struct dump *d, uint16_t type)
{
    struct {
        struct nlmsghdr header;
        union {
            struct ifinfomsg link;
            struct ifaddrmsg address;
        };
        struct rtattr mask_attribute;
        uint32_t mask;
    } request = { .header = { .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP } };
    ssize_t sent;

    request.header.nlmsg_seq = ++d->sequence;
    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(request.address));
    if (type == RTM_GETLINK) {
        /* Counters of every link, several KiB each, are left out. */
        request.header.nlmsg_len = sizeof(request);
        request.mask_attribute = (struct rtattr){ .rta_len = RTA_LENGTH(4), .rta_type = IFLA_EXT_MASK };
        request.mask = RTEXT_FILTER_SKIP_STATS;
    }
    sent = ns_sys_send(d->fd, &request, request.header.nlmsg_len, MSG_DONTWAIT);
    return sent < 0 ? (int)sent : 0;
}

static int dump_error(const struct nlmsghdr *m)
{
    const int *error = fixed_part(m, sizeof(*error));

    return error && *error < 0 ? *error : -EIO;
}

/*
 * Asks for everything of `type` and gives it to `take`. The kernel answers
 * within the call that asks for more, so there is never anything to wait for
 * and MSG_DONTWAIT only guards against a kernel that does not answer. Returns
 * 0, a negative errno, or -EAGAIN when the tables changed meanwhile.
 */
static int run_dump(struct dump *d, uint16_t type, void (*take)(struct dump *, const struct nlmsghdr *))
{
    bool interrupted = false;
    int error = request_dump(d, type);

    if (error < 0)
        return error;
    for (;;) {
        ssize_t len = receive(d->fd, d->buf, DUMP_BYTES);

        if (len < 0)
            return len == -EAGAIN || len == -ENOBUFS ? -EIO : (int)len;
        for (const struct nlmsghdr *m = d->buf; NLMSG_OK(m, len); m = NLMSG_NEXT(m, len)) {
            if (m->nlmsg_seq != d->sequence)
                continue;
            interrupted |= m->nlmsg_flags & NLM_F_DUMP_INTR;
            if (m->nlmsg_type == NLMSG_DONE)
                return interrupted ? -EAGAIN : 0;
            if (m->nlmsg_type == NLMSG_ERROR)
                return dump_error(m);
            take(d, m);
        }
    }
}

/*
 * The addresses and then the state of the links they are on. A descriptor for
 * each attempt: an attempt that was given up may have left answers behind.
 */
static int dump_once(struct dump *d)
{
    int error;

    d->n = 0;
    d->fd = ns_sys_high(ns_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (d->fd < 0)
        return d->fd;
    error = run_dump(d, RTM_GETADDR, take_address);
    if (error == 0)
        error = run_dump(d, RTM_GETLINK, take_link);
    ns_sys_close(d->fd);
    return error;
}

ssize_t ns_link_addresses(struct ns_local *out, size_t max)
{
    /* Not malloc: on a thread's first call it makes an arena, which each fork would copy. */
    void *buf = mmap(NULL, DUMP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct dump d = { .out = out, .max = max, .buf = buf };
    int error = -EAGAIN;

    if (buf == MAP_FAILED)
        return -ENOMEM;
    for (int i = 0; i < DUMP_ATTEMPTS && error == -EAGAIN; i++)
        error = dump_once(&d);
    munmap(buf, DUMP_BYTES);
    return error < 0 ? error : (ssize_t)d.n;
}
