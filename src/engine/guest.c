#include "engine/guest.h"

#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/large.h"
#include "engine/lock.h"
#include "engine/memory.h"
#include "engine/sys.h"

#include <string.h>

#define STRANGERS_MAX 128
#define LEASES_MAX    128
#define ASKING_MAX    512
#define CROWDS        256
#define CHUNK         32

struct ns_guest *ns_guests;
static struct ns_guest *last, *unused;

static struct table {
    unsigned count, most;
    uint16_t crowds[CROWDS]; /* how many there are of each */
} strangers NS_LARGE, leases NS_LARGE, asking NS_LARGE;
static bool begun; /* they are this process's own, and not as its parent had them */

static struct ns_lock lease_lock;
static int lease_fds[LEASES_MAX] NS_LARGE; /* lease_lock */
static int lease_fd_count;                 /* lease_lock */

/* ---- memory; never given back, so that a pointer to one that has gone can be looked at ---- */

static bool more(void)
{
    struct ns_guest *chunk = ns_memory(CHUNK * sizeof *chunk);
    for (int i = 0; chunk && i < CHUNK; i++) {
        chunk[i].next = unused;
        unused = &chunk[i];
    }
    return chunk != NULL;
}

/*
 * Whose it is: an IPv4 address, or what a site of IPv6 has at the least, a /64
 * (RFC 6177). Where two share a number they share a limit; which two, nobody
 * outside can tell.
 */
static uint8_t crowd_of(const struct ns_address *a)
{
    const struct ns_identity *own = ns_identity();
    uint32_t h = 0;
    for (size_t i = 0; i < (a->family == AF_INET6 ? 8 : 4); i++)
        h = (h ^ a->bytes[i] ^ (own ? own->secret_key[i] : 0)) * 0x01000193u + a->family;
    return (uint8_t)(h >> 24 ^ h >> 12);
}

struct ns_guest *ns_guest_new(int fd, void (*ready)(struct ns_source *, uint32_t, struct ns_time),
                              void (*expired)(struct ns_timer *, struct ns_time))
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    if (!unused && !more()) {
        ns_error("no memory for a connection of a peer");
        ns_internal_close(fd);
        return NULL;
    }
    struct ns_guest *g = unused;
    unused = g->next;
    *g = (struct ns_guest){ .state = NS_GUEST_STRANGER,
                            .previous = last,
                            .source = { .fd = fd, .ready = ready },
                            .timer = { .fire = expired } };
    *(last ? &last->next : &ns_guests) = g;
    last = g;
    if (ns_sys_getpeername(fd, (struct sockaddr *)&ss, &len) == 0)
        ns_address_from_sockaddr(&g->from, NULL, (struct sockaddr *)&ss, len);
    g->crowd = crowd_of(&g->from);
    return g;
}

/* ---- the tables ---- */

static void begin(void)
{
    strangers = (struct table){ .most = STRANGERS_MAX };
    leases = (struct table){ .most = LEASES_MAX };
    asking = (struct table){ .most = ASKING_MAX };
    begun = true;
}

static struct table *table_of(const struct ns_guest *g)
{
    if (!begun)
        begin();
    return g->state == NS_GUEST_LEASE ? &leases : g->state == NS_GUEST_ANSWERED ? &asking : &strangers;
}

static void note_lease(int fd, bool on)
{
    ns_lock(&lease_lock);
    for (int i = 0; i < lease_fd_count && !on; i++)
        if (lease_fds[i] == fd) {
            lease_fds[i] = lease_fds[--lease_fd_count];
            break;
        }
    if (on)
        lease_fds[lease_fd_count++] = fd;
    ns_unlock(&lease_lock);
}

static void uncount(struct ns_guest *g)
{
    struct table *t = table_of(g);
    if (!g->counted)
        return;
    g->counted = false;
    t->count--;
    t->crowds[g->crowd]--;
    if (g->state == NS_GUEST_LEASE)
        note_lease(g->source.fd, false);
}

/* The oldest of the largest crowd, the newcomer counted in its own. */
static struct ns_guest *victim(struct table *t, const struct ns_guest *newcomer)
{
    struct ns_guest *found = NULL;
    unsigned most = 0;
    for (struct ns_guest *g = ns_guests; g; g = g->next) {
        if (!g->counted || table_of(g) != t)
            continue;
        unsigned n = t->crowds[g->crowd] + (g->crowd == newcomer->crowd);
        if (n > most) {
            most = n;
            found = g;
        }
    }
    return found;
}

struct ns_guest *ns_guest_in_the_way(const struct ns_guest *g)
{
    struct table *t = table_of(g);
    return t->count == t->most ? victim(t, g) : NULL;
}

void ns_guest_count(struct ns_guest *g)
{
    struct table *t = table_of(g);
    struct ns_guest *other = ns_guest_in_the_way(g);
    if (other)
        ns_guest_free(other);
    g->counted = true;
    t->count++;
    t->crowds[g->crowd]++;
    if (g->state == NS_GUEST_LEASE)
        note_lease(g->source.fd, true);
}

void ns_guest_become(struct ns_guest *g, enum ns_guest_state state)
{
    uncount(g);
    g->state = state;
}

void ns_guest_free(struct ns_guest *g)
{
    uncount(g);
    ns_timer_clear(&g->timer);
    if (g->source.fd >= 0) {
        ns_loop_remove(&g->source);
        ns_internal_close(g->source.fd);
        g->source.fd = -1;
    }
    *(g->previous ? &g->previous->next : &ns_guests) = g->next;
    *(g->next ? &g->next->previous : &last) = g->previous;
    g->state = NS_GUEST_FREE;
    g->sock = NULL;
    g->next = unused;
    unused = g;
}

void ns_guest_end_leases(void)
{
    sigset_t saved;
    ns_lock_quiet(&lease_lock, &saved);
    for (int i = 0; i < lease_fd_count; i++)
        ns_sys_shutdown(lease_fds[i], SHUT_WR);
    ns_unlock_quiet(&lease_lock, &saved);
}

NS_EACH_FORK void ns_guest_fork_child(void)
{
    /* The parent's helper may have been half-way through a change: nothing is looked
     * at. The descriptors are closed with all internal ones. */
    ns_guests = last = unused = NULL;
    begun = false;
    lease_fd_count = 0;
    ns_lock_reset(&lease_lock);
}
