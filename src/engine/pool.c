/* Memory for objects that is never unmapped, and never used for another kind of object. */
#include "engine/gate.h"
#include "engine/joint.h"
#include "engine/broker.h"
#include "engine/dormant.h"
#include "engine/listener.h"
#include "engine/memory.h"
#include "engine/sock.h"
#include "engine/sys.h"

#include <stddef.h>
#include <string.h>

struct ns_object *ns_objects;

struct pool {
    size_t size;
    struct ns_object *free;
    char *fresh, *end; /* memory that has not been used yet: not touched, so that no fork has to copy it */
};

static struct pool pools[] = {
    [NS_KIND_SOCK] = { sizeof(struct ns_sock), NULL },
    [NS_KIND_LISTENER] = { sizeof(struct ns_listener), NULL },
    [NS_KIND_EPOLL] = { sizeof(struct ns_object), NULL },
};
static struct ns_object *zombies; /* freed, but a thread may still be inside */

static struct ns_object *take(enum ns_kind kind)
{
    struct pool *pool = &pools[kind];
    size_t size = (pool->size + 63) & ~(size_t)63, chunk = 64 * 1024;
    struct ns_object *o = pool->free;
    if (o) {
        pool->free = o->next;
        return o;
    }
    if ((o = ns_memory_near(size)))
        return o;
    if (!pool->fresh || size > (size_t)(pool->end - pool->fresh)) {
        if (!(pool->fresh = ns_memory(chunk)))
            return NULL;
        pool->end = pool->fresh + chunk;
    }
    o = (struct ns_object *)pool->fresh;
    pool->fresh += size;
    return o;
}

/* What a session has in memory goes. Whoever writes or reads still has found it before it left the
 * table. It may be this very thread, under a signal handler that we have not seen being installed:
 * then it is the next time's, as long as either lock is held. */
static void empty(struct ns_sock *s)
{
    if (ns_lock_mine(&s->rx) || ns_lock_mine(&s->tx))
        return;
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    ns_session_destroy(&s->session);
    ns_ring_destroy(&s->inbox);
    s->emptied = true;
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
}

static bool is_empty(struct ns_object *o)
{
    struct ns_sock *s = (struct ns_sock *)o;
    if (o->kind == NS_KIND_SOCK && !s->emptied && __atomic_load_n(&s->rx.word, __ATOMIC_ACQUIRE) == 0 &&
        __atomic_load_n(&s->tx.word, __ATOMIC_ACQUIRE) == 0)
        empty(s);
    return o->kind != NS_KIND_SOCK || s->emptied;
}

static void reclaim(void)
{
    struct ns_object **p = &zombies;
    while (*p) {
        struct ns_object *o = *p;
        if (ns_slots_inside(o) || !is_empty(o)) {
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
    struct ns_object *o = take(kind);
    if (!o)
        return NULL;
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
    __atomic_store_n(&ns_objects, o, __ATOMIC_SEQ_CST);
    return o;
}

void ns_object_free(struct ns_object *o)
{
    if (o->kind == NS_KIND_RELAYED)
        __atomic_store_n(&o->kind, NS_KIND_SOCK, __ATOMIC_SEQ_CST); /* of their pool */
    if (o->kind == NS_KIND_SOCK) {
        struct ns_sock *s = (struct ns_sock *)o;
        ns_gate_try(s);
        ns_joint_drop(s);
        ns_broker_freed(s);
        ns_sock_unindex(s);
        ns_dormant_drop(s);
        empty(s);
    }
    if (o->previous)
        o->previous->next = o->next;
    else
        __atomic_store_n(&ns_objects, o->next, __ATOMIC_SEQ_CST);
    if (o->next)
        o->next->previous = o->previous;
    o->next = zombies;
    zombies = o;
    reclaim();
}
