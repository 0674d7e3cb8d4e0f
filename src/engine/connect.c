#include "engine/connect.h"

#include "engine/ask.h"
#include "engine/caller.h"
#include "engine/end.h"
#include "engine/engine.h"
#include "engine/ledger.h"
#include "engine/libc.h"
#include "engine/listener.h"
#include "engine/names.h"
#include "engine/ready.h"
#include "engine/sys.h"
#include "engine/thread.h"
#include "engine/watch.h"

#include <errno.h>
#include <string.h>

static bool is_tcp(int fd)
{
    int v = 0;
    socklen_t len = sizeof v;
    return ns_sys_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &v, &len) == 0 && v == IPPROTO_TCP;
}

static int libc_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    int saved = errno;
    int r = ns_libc.connect(fd, addr, len);
    if (r < 0) {
        r = -errno;
        errno = saved;
    }
    return r;
}

static bool trusted(const struct ns_sock *s)
{
    return s->session.version == 1;
}

/* Version 1 names the session by its connection's two ends. */
static void learn_ends(struct ns_sock *s, int fd)
{
    if (!ns_name_learn(&s->local, fd, ns_sys_getsockname) || !ns_name_learn(&s->peer, fd, ns_sys_getpeername))
        return;
    s->last_local = s->local;
    s->last_peer = s->peer;
}

static void established(struct ns_sock *s, int fd)
{
    if (trusted(s))
        learn_ends(s, fd);
    ns_ask_begin(s, fd, trusted(s));
}

bool ns_client_established(struct ns_sock *s, int fd)
{
    struct ns_ledger l;
    if (ns_ledger_read(fd, &l) < 0 || (l.state != NS_TCP_ESTABLISHED && !l.fin_received))
        return false;
    established(s, fd);
    return true;
}

/* Linux says once that a connection stands which connect(2) did not wait for, and
 * EISCONN from then on. The kernel's own note of that went with the first socket. */
static int again(struct ns_sock *s, int fd, const struct sockaddr *addr, socklen_t len)
{
    enum ns_state state = ns_sock_state(s);
    if (state == NS_CONNECTED || state == NS_SUSPENDED || state == NS_FAILED)
        return __atomic_exchange_n(&s->connect_owed, false, __ATOMIC_RELAXED) ? 0 : -EISCONN;
    int r = libc_connect(fd, addr, len);
    if (r != 0 && r != -EISCONN)
        return r;
    __atomic_store_n(&s->connect_owed, false, __ATOMIC_RELAXED);
    if (state == NS_CONNECTING)
        ns_client_established(s, fd);
    return r;
}

/* To itself, where it would refuse its own HELLO as soon as it accepts; but it waits for the answer now. */
static bool to_oneself(int fd, const struct ns_address *to, uint16_t port)
{
    struct ns_name name = { .length = 0 };
    struct ns_address from;
    uint16_t from_port;
    return __atomic_load_n(&ns_count_listeners, __ATOMIC_RELAXED) && ns_name_learn(&name, fd, ns_sys_getsockname) &&
           ns_address_from_sockaddr(&from, &from_port, (struct sockaddr *)&name.address, name.length) == 0 &&
           ns_address_equal(&from, to) && ns_listener_own(port);
}

void ns_client_begin(int fd, const struct ns_address *to, uint16_t port, const char *name, int result)
{
    if (ns_policy_for(&ns_engine.policy, to, port, name[0] ? name : NULL) == NS_VERDICT_PLAIN ||
        to_oneself(fd, to, port) || ns_helper_start() < 0)
        return;
    struct ns_sock *s = ns_sock_create(fd, NS_CLIENT, ns_engine.policy.version);
    if (!s) {
        ns_error("no memory for a session: the connection stays plain TCP");
        return;
    }
    struct ns_hold hold;
    ns_table_hold(&hold);
    ns_watch_adopt(&s->o, fd);
    ns_table_unhold(&hold);
    s->pair.destination = *to;
    s->port = port;
    strncpy(s->name, name, sizeof s->name - 1);
    s->connect_owed = result != 0;
    if (result == 0)
        established(s, fd);
}

static int of_session(struct ns_sock *s, int fd, const struct sockaddr *addr, socklen_t len)
{
    sa_family_t family;
    if (!addr || len < sizeof family || ns_caller_read(&family, addr, sizeof family) < 0)
        return NS_NOT_OURS;
    if (family != AF_UNSPEC)
        return again(s, fd, addr, len);
    ns_sock_disconnect(s);
    return NS_NOT_OURS;
}

int ns_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct ns_address to;
    uint16_t port;
    struct ns_sock *s = ns_sock_at(fd);
    if (s)
        return of_session(s, fd, addr, len);
    if (!addr || (unsigned)fd >= NS_FD_MAX || ns_engine.policy.ask == NS_ASK_NEVER || !ns_table)
        return NS_NOT_OURS;
    int r = libc_connect(fd, addr, len);
    /* The address is looked at only when the kernel has read it: it may be where nothing can be. */
    if ((r != 0 && r != -EINPROGRESS && r != -EINTR) || ns_address_from_sockaddr(&to, &port, addr, len) < 0 ||
        port == 0 || ns_address_wildcard(&to) || !is_tcp(fd))
        return r;
    char name[256];
    ns_names_find(&to, name);
    ns_client_begin(fd, &to, port, name, r);
    return r;
}

void ns_offer_all(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        next = o->next; /* it may become plain TCP, and go */
        if (o->kind == NS_KIND_SOCK && o->fd >= 0 && ns_sock_state((struct ns_sock *)o) == NS_OFFERING)
            ns_offer_now((struct ns_sock *)o, o->fd);
    }
    ns_table_unhold(&hold);
}
