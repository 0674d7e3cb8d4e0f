/* For programs that know of the shim: benchmarks, tests, and the broker's (daemon/adopter.c). */
#include "engine/adopt.h"
#include "engine/relayed.h"
#include "engine/sock.h"

/*
 * What the descriptor's connection is: 0 plain TCP (or no connection), 1 not
 * settled yet, 2 protected, 3 protected and suspended. Looked up with
 * dlsym(RTLD_DEFAULT, "namesocket_shim_state"). Any thread.
 */
__attribute__((visibility("default"))) int namesocket_shim_state(int fd);

int namesocket_shim_state(int fd)
{
    struct ns_sock *s = ns_sock_peek(fd);
    if (!s)
        return ns_relayed_at(fd) ? 2 : 0;
    switch (ns_sock_state(s)) {
    case NS_CONNECTED:
        return 2;
    case NS_SUSPENDED:
        return 3;
    case NS_PLAIN:
    case NS_FAILED:
        return 0;
    default:
        return 1;
    }
}

/* What a process of the broker's does with the sessions of other processes (engine/adopt.h).
 * Looked up by dlsym. */
__attribute__((visibility("default"))) void namesocket_shim_adopt(int pair, ns_relay_reserve *reserve,
                                                                  ns_relay_begin *relay);
__attribute__((visibility("default"))) unsigned namesocket_shim_adopted(void);

void namesocket_shim_adopt(int pair, ns_relay_reserve *reserve, ns_relay_begin *relay)
{
    ns_adopt(pair, reserve, relay);
}

unsigned namesocket_shim_adopted(void)
{
    return ns_adopted();
}
