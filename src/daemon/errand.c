#include "daemon/errand.h"

#include <stdlib.h>
#include <unistd.h>

static bool room(const struct ns_errands *all, uint32_t asker)
{
    size_t his = 0;

    for (const struct ns_errand *e = all->first; e; e = e->next)
        his += e->asker == asker;
    return all->count < NS_ERRANDS_MAX && his < NS_ERRANDS_OF_ONE;
}

struct ns_errand *ns_errand_new(struct ns_errands *all, const struct ns_message *message, uint32_t asker,
                                int fd)
{
    struct ns_errand *e = room(all, asker) ? calloc(1, sizeof(*e)) : NULL;

    if (!e)
        return NULL;
    *e = (struct ns_errand){ .next = all->first,
                             .serial = ++all->next_serial,
                             .asker = asker,
                             .question = message->serial,
                             .message = *message,
                             .fd = fd };
    all->first = e;
    all->count++;
    return e;
}

void ns_errand_free(struct ns_errands *all, struct ns_errand *e)
{
    struct ns_errand **at = &all->first;

    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    all->count--;
    if (e->fd >= 0)
        close(e->fd);
    free(e->awaited);
    free(e);
}

struct ns_errand *ns_errand_find(struct ns_errands *all, uint32_t serial)
{
    struct ns_errand *e = all->first;

    while (e && e->serial != serial)
        e = e->next;
    return e;
}

bool ns_errand_await(struct ns_errand *e, uint32_t member)
{
    if (e->awaited_count == e->awaited_room) {
        size_t room = e->awaited_room ? 2 * e->awaited_room : 16;
        uint32_t *longer = realloc(e->awaited, room * sizeof(*longer));

        if (!longer)
            return false;
        e->awaited = longer;
        e->awaited_room = room;
    }
    e->awaited[e->awaited_count++] = member;
    return true;
}

bool ns_errand_heard(struct ns_errand *e, uint32_t member)
{
    for (size_t i = 0; i < e->awaited_count; i++)
        if (e->awaited[i] == member) {
            e->awaited[i] = e->awaited[--e->awaited_count];
            return true;
        }
    return false;
}
