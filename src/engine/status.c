#include "engine/status.h"

#include "engine/sock.h"
#include "engine/swap.h"
#include "engine/sys.h"

#include <string.h>

static enum ns_status_state state_of(enum ns_state state)
{
    switch (state) {
    case NS_CONNECTING:
    case NS_ASKING:
    case NS_OFFERING:
    case NS_AWAITING:
        return NS_STATUS_ASKING;
    case NS_CONNECTED:
        return NS_STATUS_CONNECTED;
    case NS_SUSPENDED:
        return NS_STATUS_SUSPENDED;
    case NS_FAILED:
        return NS_STATUS_FAILED;
    default:
        return NS_STATUS_PLAIN;
    }
}

int ns_status(int fd, struct ns_status *status)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_sock *s = ns_sock_peek(fd);
    if (!s) {
        ns_table_unhold(&hold);
        return NS_NOT_OURS;
    }
    *status = (struct ns_status){ .state = state_of(ns_sock_state(s)),
                                  .version = ns_session_protected(&s->session) ? s->session.version : 0,
                                  .resumes = s->resumes,
                                  .sent_bytes = s->session.ring.head,
                                  .received_bytes = ns_swap_received(s),
                                  .replayed_bytes = s->replayed };
    socklen_t a = sizeof status->local, b = sizeof status->peer;
    if (status->state != NS_STATUS_SUSPENDED) {
        ns_sys_getsockname(fd, (struct sockaddr *)&status->local, &a);
        ns_sys_getpeername(fd, (struct sockaddr *)&status->peer, &b);
    }
    memcpy(status->name, s->name, sizeof status->name);
    ns_table_unhold(&hold);
    return 0;
}
