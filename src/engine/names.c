#include "engine/names.h"

#include "engine/large.h"
#include "engine/lock.h"
#include "engine/socket.h"

#include <arpa/inet.h>
#include <string.h>

#define ENTRIES 256 /* the oldest goes first */

static struct entry {
    struct ns_address address;
    char name[256];
} entries[ENTRIES] NS_LARGE;
static unsigned next_entry;
static struct ns_lock lock;

static bool literal(const char *name)
{
    unsigned char buf[16];
    return inet_pton(AF_INET, name, buf) == 1 || strchr(name, ':') != NULL;
}

static void learn(const char *name, const struct ns_address *a)
{
    struct entry *e = NULL;
    for (unsigned i = 0; i < ENTRIES && !e; i++)
        if (ns_address_equal(&entries[i].address, a))
            e = &entries[i];
    if (!e)
        e = &entries[next_entry++ % ENTRIES];
    e->address = *a;
    strncpy(e->name, name, sizeof e->name - 1);
}

void ns_names_learn(const char *name, const struct addrinfo *list)
{
    sigset_t saved;
    if (!name || literal(name) || strlen(name) > 255)
        return;
    ns_lock_quiet(&lock, &saved);
    for (; list; list = list->ai_next) {
        struct ns_address a;
        uint16_t port;
        if (list->ai_addr && ns_address_from_sockaddr(&a, &port, list->ai_addr, list->ai_addrlen) == 0)
            learn(name, &a);
    }
    ns_unlock_quiet(&lock, &saved);
}

void ns_names_learn_hostent(const char *name, const struct hostent *h)
{
    sigset_t saved;
    if (!name || !h || literal(name) || strlen(name) > 255)
        return;
    ns_lock_quiet(&lock, &saved);
    for (char **p = h->h_addr_list; *p; p++) {
        struct ns_address a = { .family = (uint8_t)h->h_addrtype };
        if ((size_t)h->h_length > sizeof a.bytes)
            continue;
        memcpy(a.bytes, *p, (size_t)h->h_length);
        learn(name, &a);
    }
    ns_unlock_quiet(&lock, &saved);
}

void ns_names_find(const struct ns_address *address, char out[256])
{
    sigset_t saved;
    out[0] = '\0';
    ns_lock_quiet(&lock, &saved);
    for (unsigned i = 0; i < ENTRIES; i++)
        if (entries[i].name[0] && ns_address_equal(&entries[i].address, address)) {
            memcpy(out, entries[i].name, sizeof entries[i].name);
            break;
        }
    ns_unlock_quiet(&lock, &saved);
}

NS_EACH_FORK void ns_names_fork_child(void)
{
    ns_lock_reset(&lock);
}
