/* Memory for objects that is never unmapped, and never used for another kind of object. */
#include "engine/broker.h"
#include "engine/dormant.h"
#include "engine/listener.h"
#include "engine/sock.h"
#include "engine/sys.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

struct ns_object *ns_objects;

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

static void reclaim(void)
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
        ns_broker_freed(s);
        ns_sock_unindex(s);
        ns_dormant_drop(s);
        /* Whoever writes or reads still has found it before it left the table. */
        ns_lock(&s->rx);
        ns_lock(&s->tx);
        ns_session_destroy(&s->session);
        ns_ring_destroy(&s->inbox);
        ns_unlock(&s->tx);
        ns_unlock(&s->rx);
    }
    if (o->previous)
        o->previous->next = o->next;
    else
        ns_objects = o->next;
    if (o->next)
        o->next->previous = o->previous;
    o->next = zombies;
    zombies = o;
    reclaim();
}
