#include "engine/linger.h"

#include "engine/end.h"
#include "engine/ledger.h"
#include "engine/resume.h"

#include <errno.h>
#include <stddef.h>

#define LOOK_MS 20

static void due(struct ns_timer *timer, struct ns_time now)
{
    ns_linger_look((struct ns_sock *)((char *)timer - offsetof(struct ns_sock, parked)), now);
}

static void look_again(struct ns_sock *s, struct ns_time now)
{
    s->parked.fire = due;
    ns_timer_set(&s->parked, ns_time_add(now, ns_time_ms(LOOK_MS)));
}

void ns_linger_look(struct ns_sock *s, struct ns_time now)
{
    if (ns_sock_state(s) == NS_SUSPENDED) {
        ns_resume_suspended(s, now);
        return;
    }
    struct ns_ledger l;
    bool replaying = s->replay.fd > 0;
    if (!replaying && (ns_ledger_read(s->linger_fd, &l) < 0 || l.unacknowledged == 0)) {
        ns_sock_bury(s, now);
        return;
    }
    if (!replaying && l.state == NS_TCP_CLOSE) { /* it died with bytes on it */
        ns_sock_lost(s, s->generation, -ECONNRESET);
        if (ns_sock_state(s) != NS_SUSPENDED)
            ns_sock_bury(s, now);
        return;
    }
    look_again(s, now);
}

void ns_linger_closed(struct ns_sock *s, struct ns_time now)
{
    if (s->o.fd >= 0)
        return; /* an earlier note; it has a descriptor */
    if (s->linger_fd < 0) {
        ns_sock_bury(s, now);
        return;
    }
    look_again(s, now);
}
