#include "engine/sock.h"

#include "engine/engine.h"
#include "engine/ledger.h"
#include "engine/listener.h"
#include "engine/watch.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

_Atomic(struct ns_object *) *ns_table;
struct ns_lock ns_table_lock;
struct ns_object *ns_objects;
uint32_t ns_count_offering, ns_count_awaiting, ns_count_swaps, ns_count_special;

static int table_top = -1; /* the highest descriptor ever put; table */

#define HASH_SIZE 1024
static struct ns_sock *by_id[HASH_SIZE];

int ns_table_init(void)
{
    void *p = mmap(NULL, NS_FD_MAX * sizeof *ns_table, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    ns_table = p;
    return 0;
}

void ns_table_hold(struct ns_hold *h)
{
    sigset_t all;
    sigfillset(&all);
    ns_sys_sigmask(SIG_SETMASK, &all, &h->saved);
    h->took = ns_lock(&ns_table_lock);
}

void ns_table_unhold(struct ns_hold *h)
{
    if (h->took)
        ns_unlock(&ns_table_lock);
    ns_sys_sigmask(SIG_SETMASK, &h->saved, NULL);
}

/* ---- memory that is never used for anything else ---- */

struct pool {
    size_t size;
    struct ns_object *free;
};

static struct pool pools[] = {
    [NS_KIND_SOCK] = { sizeof(struct ns_sock), NULL },
    [NS_KIND_LISTENER] = { sizeof(struct ns_listener), NULL },
    [NS_KIND_EPOLL] = { sizeof(struct ns_object), NULL },
};
static struct ns_object *zombies; /* freed, but a thread may still be inside */

static bool pool_fill(enum ns_kind kind)
{
    size_t size = (pools[kind].size + 63) & ~(size_t)63, chunk = 64 * 1024;
    char *p = mmap(NULL, chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return false;
    for (size_t at = 0; at + size <= chunk; at += size) {
        struct ns_object *o = (struct ns_object *)(p + at);
        o->next = pools[kind].free;
        pools[kind].free = o;
    }
    return true;
}

static void bury_zombies(void)
{
    struct ns_object **p = &zombies;
    while (*p) {
        struct ns_object *o = *p;
        if (ns_slots_inside(o)) {
            p = &o->next;
            continue;
        }
        *p = o->next;
        o->next = pools[o->kind].free;
        pools[o->kind].free = o;
    }
}

struct ns_object *ns_object_new(enum ns_kind kind)
{
    if (!pools[kind].free && !pool_fill(kind))
        return NULL;
    struct ns_object *o = pools[kind].free;
    pools[kind].free = o->next;
    if (kind == NS_KIND_SOCK) {
        /* A thread with a stale pointer may hold either lock this moment. */
        struct ns_sock *s = (struct ns_sock *)o;
        memset((char *)s + sizeof s->o, 0, offsetof(struct ns_sock, rx) - sizeof s->o);
        memset((char *)s + offsetof(struct ns_sock, session), 0,
               sizeof *s - offsetof(struct ns_sock, session));
    } else {
        memset((char *)o + sizeof *o, 0, pools[kind].size - sizeof *o);
    }
    *o = (struct ns_object){ .kind = kind, .fd = -1, .next = ns_objects };
    if (ns_objects)
        ns_objects->previous = o;
    ns_objects = o;
    return o;
}

void ns_object_free(struct ns_object *o)
{
    if (o->kind == NS_KIND_SOCK) {
        struct ns_sock *s = (struct ns_sock *)o;
        for (struct ns_sock **p = &by_id[s->session.id[0] | (s->session.id[1] & 3) << 8]; *p;
             p = &(*p)->hash_next)
            if (*p == s) {
                *p = s->hash_next;
                break;
            }
        ns_session_destroy(&s->session);
        ns_ring_destroy(&s->inbox);
    }
    if (o->previous)
        o->previous->next = o->next;
    else
        ns_objects = o->next;
    if (o->next)
        o->next->previous = o->previous;
    o->next = zombies;
    zombies = o;
    bury_zombies();
}

bool ns_name_learn(struct ns_name *name, int fd, int (*ask)(int, struct sockaddr *, socklen_t *))
{
    if (name->length)
        return true;
    name->length = sizeof name->address;
    if (ask(fd, (struct sockaddr *)&name->address, &name->length) < 0)
        name->length = 0;
    return name->length != 0;
}

/* ---- descriptors ---- */

static ino_t inode_of(int fd)
{
    struct stat st;
    return ns_sys_fstat(fd, &st) == 0 ? st.st_ino : 0;
}

bool ns_object_verify(const struct ns_object *o, int fd)
{
    return o->inode == 0 || inode_of(fd) == o->inode;
}

void ns_object_identify(struct ns_object *o)
{
    if (o->inode == 0 && o->fd >= 0)
        o->inode = inode_of(o->fd);
}

void ns_table_put(int fd, struct ns_object *o)
{
    if (o->fds++ == 0)
        o->fd = fd;
    if (fd > table_top)
        table_top = fd;
    __atomic_store_n((struct ns_object **)&ns_table[fd], o, __ATOMIC_SEQ_CST);
}

void ns_object_each_fd(struct ns_object *o, void (*each)(void *ctx, int fd), void *ctx)
{
    if (o->fds == 1) {
        each(ctx, o->fd);
        return;
    }
    for (int fd = 0; fd <= table_top; fd++)
        if (ns_object_at(fd) == o)
            each(ctx, fd);
}

static void take_first(void *ctx, int fd)
{
    struct ns_object *o = ctx;
    if (o->fd < 0)
        o->fd = fd;
}

struct ns_object *ns_table_remove(int fd)
{
    struct ns_object *o = ns_object_at(fd);
    if (!o)
        return NULL;
    __atomic_store_n((struct ns_object **)&ns_table[fd], NULL, __ATOMIC_SEQ_CST);
    o->fds--;
    if (o->fd == fd) {
        o->fd = -1;
        if (o->fds > 0) {
            uint32_t fds = o->fds;
            o->fds = 2; /* so that the table is searched */
            ns_object_each_fd(o, take_first, o);
            o->fds = fds;
        }
    }
    return o->fds == 0 ? o : NULL;
}

struct ns_sock *ns_sock_create(int fd, enum ns_role role, uint8_t version)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_object *o = (unsigned)fd < NS_FD_MAX ? ns_object_new(NS_KIND_SOCK) : NULL;
    if (o) {
        struct ns_sock *s = (struct ns_sock *)o;
        ns_session_init(&s->session, role, version);
        ns_ring_init(&s->inbox, 0);
        s->linger_fd = -1;
        s->rx_open = role == NS_CLIENT;
        s->tx_open = true;
        if (role == NS_SERVER)
            __atomic_fetch_add(&ns_count_awaiting, 1, __ATOMIC_SEQ_CST);
        ns_table_put(fd, o);
    }
    ns_table_unhold(&hold);
    return (struct ns_sock *)o;
}

static struct ns_sock **bucket(const uint8_t id[16])
{
    return &by_id[id[0] | (id[1] & 3) << 8];
}

void ns_sock_index(struct ns_sock *s)
{
    struct ns_sock **b = bucket(s->session.id);
    s->hash_next = *b;
    *b = s;
}

struct ns_sock *ns_sock_find(const uint8_t id[16])
{
    for (struct ns_sock *s = *bucket(id); s; s = s->hash_next)
        if (memcmp(s->session.id, id, sizeof s->session.id) == 0)
            return s;
    return NULL;
}

/* ---- state ---- */

static void count_state(enum ns_state state, uint32_t by)
{
    if (state == NS_OFFERING)
        __atomic_fetch_add(&ns_count_offering, by, __ATOMIC_SEQ_CST);
    else if (state == NS_AWAITING)
        __atomic_fetch_add(&ns_count_awaiting, by, __ATOMIC_SEQ_CST);
    else if (state == NS_SUSPENDED)
        __atomic_fetch_add(&ns_count_special, by, __ATOMIC_SEQ_CST);
}

void ns_sock_uncount(struct ns_sock *s)
{
    count_state(s->session.state, -1u);
    if (ns_sock_inbox_filled(s))
        __atomic_fetch_sub(&ns_count_special, 1, __ATOMIC_SEQ_CST);
}

bool ns_sock_event(struct ns_sock *s, enum ns_event event)
{
    enum ns_state old = s->session.state;
    if (!ns_session_event(&s->session, event))
        return false;
    enum ns_state new = s->session.state;
    count_state(old, -1u);
    count_state(new, 1);
    ns_debug("descriptor %d: %s, %s, now %s", s->o.fd, ns_state_name(old), ns_event_name(event),
             ns_state_name(new));
    return true;
}

bool ns_sock_faithful(struct ns_sock *s, int fd)
{
    struct ns_ledger l, again;
    if (__atomic_load_n(&s->unfaithful, __ATOMIC_ACQUIRE) || ns_ledger_read(fd, &l) < 0)
        return false;
    /* The two counters come from two calls: on a living connection, only what
     * has not moved in between is a picture of one moment. */
    for (int i = 0; i < 16; i++) {
        if (ns_ledger_read(fd, &again) < 0)
            return false;
        if (again.acknowledged == l.acknowledged && again.unacknowledged == l.unacknowledged)
            break;
        l = again;
    }
    return ns_carrier_faithful(&s->session.carrier, l.acknowledged, l.unacknowledged, s->fin_queued);
}

bool ns_sock_lost(struct ns_sock *s, uint32_t generation, int error)
{
    sigset_t saved;
    ns_lock_quiet(&s->tx, &saved);
    bool mine = s->generation == generation && s->session.state == NS_CONNECTED && !s->retired;
    bool resumable = ns_session_protected(&s->session);
    if (mine) {
        int fd = s->o.fd >= 0 ? s->o.fd : s->linger_fd;
        resumable = fd >= 0 && ns_sock_faithful(s, fd) && ns_helper_running();
        ns_sock_event(s, resumable ? NS_EVENT_LOST : NS_EVENT_DEMOTED);
        s->error = error;
        __atomic_store_n(&s->tx_open, false, __ATOMIC_SEQ_CST);
        if (resumable)
            __atomic_store_n(&s->rx_open, false, __ATOMIC_SEQ_CST);
    }
    ns_unlock_quiet(&s->tx, &saved);
    if (mine && resumable)
        ns_helper_post(s, NS_TODO_SUSPENDED);
    if (mine && !resumable) {
        ns_info("session demoted: bytes were written around it, or nobody can resume it");
        ns_sock_forget(s);
    }
    return resumable;
}

void ns_sock_let_go(struct ns_sock *s)
{
    if (__atomic_load_n(&s->helped, __ATOMIC_ACQUIRE)) {
        ns_helper_post_lazily(s, NS_TODO_CLOSED);
        return;
    }
    ns_sock_uncount(s);
    ns_object_free(&s->o);
}

static void clear_entry(void *ctx, int fd)
{
    __atomic_store_n((struct ns_object **)&ns_table[fd], NULL, __ATOMIC_SEQ_CST);
}

void ns_sock_forget(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    if (s->o.fds > 0) {
        ns_object_each_fd(&s->o, clear_entry, NULL);
        s->o.fds = 0;
        s->o.fd = -1;
        ns_watch_drop_all(&s->o);
        ns_sock_let_go(s);
    }
    ns_table_unhold(&hold);
}

void ns_sock_born(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    if (s->o.fds == 0) { /* closed meanwhile */
        ns_table_unhold(&hold);
        return;
    }
    /* Only servers are asked for; a client of theirs may be in this process. */
    bool server = s->session.role == NS_SERVER;
    bool replayed = server && ns_sock_find(s->session.id) != NULL;
    if (server && !replayed)
        ns_sock_index(s);
    if (!replayed) {
        ns_helper_post_lazily(s, NS_TODO_BORN);
    }
    ns_table_unhold(&hold);
    if (replayed) {
        /* Somebody on the path has sent a NEW again: a RESUME must find the first. */
        ns_sock_demote(s, "its NEW was seen before");
        return;
    }
    ns_sock_touch(s);
    ns_info("session established on descriptor %d", s->o.fd);
}

void ns_sock_open_rx(struct ns_sock *s)
{
    if (s->rx_open || ns_ring_used(&s->inbox) > 0)
        return;
    ns_ring_release(&s->inbox);
    __atomic_store_n(&s->rx_open, true, __ATOMIC_SEQ_CST);
}

/* A plain connection lives as long as plain TCP lets it. */
static void restore_keepalive(struct ns_sock *s)
{
    if (!s->keepalive_ours || s->o.fd < 0)
        return;
    for (int i = 3; i >= 0; i--)
        ns_sys_setsockopt(s->o.fd, ns_keepalive_options[i].level, ns_keepalive_options[i].name, &s->keepalive[i],
                          sizeof(int));
}

void ns_sock_demote(struct ns_sock *s, const char *why)
{
    sigset_t saved;
    __atomic_store_n(&s->unfaithful, true, __ATOMIC_SEQ_CST);
    ns_lock_quiet(&s->tx, &saved);
    bool was_protected = ns_session_protected(&s->session);
    bool now = s->session.state != NS_SUSPENDED && !ns_sock_inbox_filled(s) &&
               s->session.carrier.tx_position == s->session.ring.head;
    if (now)
        now = ns_sock_event(s, NS_EVENT_DEMOTED);
    if (now)
        restore_keepalive(s);
    ns_unlock_quiet(&s->tx, &saved);
    if (now && was_protected) {
        ns_info("session demoted: %s", why);
        ns_tell("demoted to plain TCP: %s", why);
    }
    if (now)
        ns_sock_forget(s);
}
