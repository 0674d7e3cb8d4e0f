#include "daemon/roll.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_MAX 1000000
#define HELD_MAX    100000 /* by one member */

static struct ns_entry **bucket(struct ns_roll *roll, const uint8_t id[16])
{
    /* Ids are random; whoever chooses his own slows himself. */
    size_t hash = (size_t)id[0] | (size_t)id[1] << 8 | (size_t)id[2] << 16;

    return &roll->buckets[hash % (sizeof(roll->buckets) / sizeof(*roll->buckets))];
}

struct ns_entry *ns_roll_find(struct ns_roll *roll, const uint8_t id[16], enum ns_message_role role)
{
    struct ns_entry *e = *bucket(roll, id);

    while (e && (e->role != role || memcmp(e->id, id, sizeof(e->id)) != 0))
        e = e->hash_next;
    return e;
}

struct ns_entry *ns_roll_from(struct ns_roll *roll, uint64_t number)
{
    struct ns_entry *e = roll->first;

    while (e && e->number < number)
        e = e->next;
    return e;
}

static struct ns_entry *add(struct ns_roll *roll, struct ns_member *m, const struct ns_message *message)
{
    struct ns_entry *e = roll->count < ENTRIES_MAX ? calloc(1, sizeof(*e)) : NULL;
    struct ns_entry **b = bucket(roll, message->id);

    if (!e)
        return NULL;
    e->number = ++roll->next_number;
    e->role = message->role;
    memcpy(e->id, message->id, sizeof(e->id));
    e->uid = m->uid;
    memcpy(e->proof, message->session.proof, sizeof(e->proof));
    e->hash_next = *b;
    *b = e;
    e->previous = roll->last;
    *(roll->last ? &roll->last->next : &roll->first) = e;
    roll->last = e;
    roll->count++;
    return e;
}

static void forget(struct ns_roll *roll, struct ns_entry *e)
{
    struct ns_entry **at = bucket(roll, e->id);

    while (*at != e)
        at = &(*at)->hash_next;
    *at = e->hash_next;
    *(e->previous ? &e->previous->next : &roll->first) = e->next;
    *(e->next ? &e->next->previous : &roll->last) = e->previous;
    roll->count--;
    free(e);
}

/* An entry that nobody holds any more goes, too. */
static void leave(struct ns_roll *roll, struct ns_held *h)
{
    struct ns_entry *e = h->entry;
    struct ns_held **at = &e->held;

    while (*at != h)
        at = &(*at)->next_of_session;
    *at = h->next_of_session;
    *(h->previous_of_member ? &h->previous_of_member->next_of_member : &h->member->held) = h->next_of_member;
    if (h->next_of_member)
        h->next_of_member->previous_of_member = h->previous_of_member;
    h->member->held_count--;
    free(h);
    if (!e->held)
        forget(roll, e);
}

static struct ns_held *hold(struct ns_entry *e, struct ns_member *m)
{
    struct ns_held *h = m->held_count < HELD_MAX ? calloc(1, sizeof(*h)) : NULL;

    if (!h)
        return NULL;
    *h = (struct ns_held){ .next_of_session = e->held, .next_of_member = m->held, .member = m, .entry = e };
    if (m->held)
        m->held->previous_of_member = h;
    e->held = h;
    m->held = h;
    m->held_count++;
    return h;
}

static struct ns_held *find_held(struct ns_entry *e, const struct ns_member *m)
{
    struct ns_held *h = e ? e->held : NULL;

    while (h && h->member != m)
        h = h->next_of_session;
    return h;
}

/*
 * One who holds a session in common with another may have changed his user since,
 * which is what sshd does: he shows that he has its keys.
 */
static bool may_join(const struct ns_entry *e, const struct ns_member *m, const struct ns_message *message)
{
    return m->uid == 0 || m->uid == e->uid || memcmp(e->proof, message->session.proof, sizeof(e->proof)) == 0;
}

int ns_roll_tell(struct ns_roll *roll, struct ns_member *m, const struct ns_message *message)
{
    struct ns_entry *e = ns_roll_find(roll, message->id, message->role);
    struct ns_held *h = find_held(e, m);

    if (e && !h && !may_join(e, m, message))
        return -EPERM;
    if (e && !h && e->original && !message->session.inherited)
        return -EEXIST;
    if (!e)
        e = add(roll, m, message);
    if (e && !h)
        h = hold(e, m);
    if (e && !e->held)
        forget(roll, e);
    if (!h)
        return -ENOMEM;
    e->original |= !message->session.inherited;
    e->about = message->session;
    h->report = m->report;
    return 0;
}

bool ns_roll_allows(const struct ns_entry *e, uid_t uid)
{
    bool allowed = uid == 0 || uid == e->uid;

    for (const struct ns_held *h = e->held; h && !allowed; h = h->next_of_session)
        allowed = h->member->uid == uid;
    return allowed;
}

void ns_roll_release(struct ns_roll *roll, struct ns_member *m, const uint8_t id[16],
                     enum ns_message_role role)
{
    struct ns_held *h = find_held(ns_roll_find(roll, id, role), m);

    if (h)
        leave(roll, h);
}

void ns_roll_release_all(struct ns_roll *roll, struct ns_member *m)
{
    while (m->held)
        leave(roll, m->held);
}

void ns_roll_release_untold(struct ns_roll *roll, struct ns_member *m)
{
    for (struct ns_held *h = m->held, *next; h; h = next) {
        next = h->next_of_member;
        if (h->report != m->report)
            leave(roll, h);
    }
}
