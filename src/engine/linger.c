#include "engine/linger.h"

#include "engine/end.h"
#include "engine/engine.h"
#include "engine/first.h"
#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/resume.h"
#include "engine/sys.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>

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

static unsigned waiting; /* for NEW; atomic */

bool ns_linger_for_new(struct ns_sock *s)
{
    if (__atomic_fetch_add(&waiting, 1, __ATOMIC_RELAXED) < NS_LINGER_NEW_MAX) {
        s->linger_for_new = true;
        return true;
    }
    __atomic_fetch_sub(&waiting, 1, __ATOMIC_RELAXED);
    return false;
}

NS_EACH_FORK void ns_linger_fork_child(void)
{
    waiting = 0;
}

static void waits_no_more(struct ns_sock *s)
{
    if (s->linger_for_new)
        __atomic_fetch_sub(&waiting, 1, __ATOMIC_RELAXED);
    s->linger_for_new = false;
}

/* Once NEW is off the stream the session can be resumed like any other. */
static void take_new(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_lock(&s->rx);
    enum ns_first first = ns_first_bytes(s, s->linger_fd);
    ns_unlock(&s->rx);
    ns_table_hold(&hold);
    if (first == NS_FIRST_NEW && !ns_sock_find(s->session.id))
        ns_sock_index(s);
    ns_table_unhold(&hold);
}

/* Whether there is still a NEW to wait for: not behind an end, nor behind anything else. */
static bool awaits_new(struct ns_sock *s, struct ns_time now)
{
    struct pollfd p = { .fd = s->linger_fd, .events = POLLRDHUP };
    int unread = 0;
    if (s->linger_until.ns == 0)
        s->linger_until = ns_time_add(now, ns_time_ms(NS_LINGER_NEW_MS));
    ns_sys_ioctl(s->linger_fd, SIOCINQ, &unread);
    if (unread >= NS_PACKET_BYTES_NEW)
        take_new(s);
    return ns_sock_state(s) == NS_AWAITING && unread < NS_PACKET_BYTES_NEW &&
           ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) == 0 && ns_time_before(now, s->linger_until);
}

void ns_linger_look(struct ns_sock *s, struct ns_time now)
{
    if (ns_sock_state(s) == NS_AWAITING && awaits_new(s, now)) {
        look_again(s, now);
        return;
    }
    waits_no_more(s);
    if (!ns_session_protected(&s->session)) { /* the kernel does the rest */
        ns_sock_bury(s, now);
        return;
    }
    if (ns_sock_state(s) == NS_SUSPENDED) {
        ns_resume_suspended(s, now);
        return;
    }
    struct ns_ledger l = { 0 };
    bool known = ns_ledger_read(s->linger_fd, &l) == 0, delivered = !known || l.unacknowledged == 0;
    /* While it is asked about, the client may lack what it has acknowledged. */
    bool busy = s->replay.fd > 0 || (delivered && s->guests > 0);
    if (!busy && delivered) {
        ns_info("closed session delivered to the end");
        ns_sock_bury(s, now);
        return;
    }
    if (!busy && l.state == NS_TCP_CLOSE) { /* it died with bytes on it */
        ns_sock_lost(s, s->generation, -ECONNRESET);
        if (ns_sock_state(s) != NS_SUSPENDED)
            ns_sock_bury(s, now);
        return;
    }
    look_again(s, now);
}

void ns_linger_closed(struct ns_sock *s, struct ns_time now)
{
    if (ns_sock_number(s) >= 0)
        return; /* an earlier note; it has a descriptor */
    if (s->linger_fd < 0) {
        waits_no_more(s);
        ns_sock_bury(s, now);
        return;
    }
    look_again(s, now);
}
