/* In the relay: the end of the users' connection that it keeps for those who have not called yet. joint.h. */
#include "engine/joint.h"

#include "engine/estate.h"
#include "engine/internal.h"
#include "engine/sys.h"

#define HOLDERS_MS 100

/* Lets the users' end go where nobody else has a descriptor that may become one: what ends it
 * then are those who have it. */
static void look(struct ns_timer *timer, struct ns_time now)
{
    struct ns_hold hold;
    bool any = false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind != NS_KIND_SOCK || !s->users_end)
            continue;
        bool used = s->o.fd >= 0 && s->share && ns_share_in_use(s->share, (uint32_t)ns_sys_getpid());
        any |= used;
        if (!used)
            ns_joint_drop(s);
    }
    ns_table_unhold(&hold);
    if (any)
        ns_timer_set(timer, ns_time_add(now, ns_time_ms(HOLDERS_MS)));
}

static struct ns_timer holders = { .fire = look };

void ns_joint_keep(struct ns_sock *s, int end)
{
    s->users_end = 1 + end;
}

void ns_joint_drop(struct ns_sock *s)
{
    if (s->users_end)
        ns_internal_close(s->users_end - 1);
    s->users_end = 0;
}

void ns_joint_look(struct ns_time now)
{
    look(&holders, now);
}
