#include "core/tell.h"

#include <string.h>

static bool begins(const struct ns_address *a, const uint8_t *prefix, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    return memcmp(a->bytes, prefix, whole) == 0 &&
           (rest == 0 || ((a->bytes[whole] ^ prefix[whole]) & (0xff00 >> rest & 0xff)) == 0);
}

bool ns_address_private(const struct ns_address *a)
{
    static const struct {
        uint8_t family, bits, prefix[4];
    } nets[] = {
        { AF_INET, 8, { 10 } },          { AF_INET, 12, { 172, 16 } },    { AF_INET, 16, { 192, 168 } },
        { AF_INET, 10, { 100, 64 } },    { AF_INET, 16, { 169, 254 } },   { AF_INET6, 7, { 0xfc } },
        { AF_INET6, 10, { 0xfe, 0xc0 } }, { AF_INET6, 10, { 0xfe, 0x80 } },
    };
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        if (a->family == nets[i].family && begins(a, nets[i].prefix, nets[i].bits))
            return true;
    return ns_address_loopback(a);
}

static bool neighbour(const struct ns_address *peer, const struct ns_local *all, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (all[i].address.family == peer->family && all[i].prefix_length > 0 &&
            begins(peer, all[i].address.bytes, all[i].prefix_length))
            return true;
    return false;
}

bool ns_local_may_be_told(const struct ns_local *l, const struct ns_address *peer, const struct ns_local *all,
                          size_t n)
{
    if (l->loopback || l->tentative || l->deprecated || !l->carrier || ns_scope_of(&l->address) <= NS_SCOPE_LINK)
        return false;
    return !ns_address_private(&l->address) || ns_address_private(peer) || neighbour(peer, all, n);
}
