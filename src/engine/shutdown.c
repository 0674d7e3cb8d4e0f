/* shutdown(2): the end of one direction, by the application's wish. */
#include "engine/end.h"
#include "engine/sys.h"

int ns_shutdown(int fd, int how)
{
    struct ns_slot *slot = ns_slot_self();
    struct ns_sock *s = ns_sock_at(fd);
    if (!s || !slot || how < SHUT_RD || how > SHUT_RDWR || !ns_slot_enter(slot, s))
        return NS_NOT_OURS;
    int r = NS_NOT_OURS;
    bool forget = false;
    sigset_t saved;
    ns_lock_quiet(&s->tx, &saved);
    enum ns_state state = s->session.state;
    if (ns_sock_at(fd) == s && how != SHUT_RD) {
        if (state == NS_ASKING || state == NS_CONNECTING) {
            /* Nothing was written, nothing will be. */
            forget = ns_sock_event(s, NS_EVENT_ANSWER_NO);
        } else if (state == NS_CONNECTED && s->tx_open) {
            r = ns_sys_shutdown(fd, how);
            s->fin_queued |= r == 0;
            __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
        } else if (ns_session_protected(&s->session)) {
            /* The end goes out after the last byte, once there is a connection. */
            __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
            r = 0;
        } else if (state == NS_OFFERING) {
            forget = ns_sock_event(s, NS_EVENT_DEMOTED);
        } else if (state == NS_AWAITING) {
            r = ns_sys_shutdown(fd, how);
            s->fin_queued |= r == 0;
            __atomic_store_n(&s->session.tx_ended, true, __ATOMIC_SEQ_CST);
        }
    }
    ns_unlock_quiet(&s->tx, &saved);
    if (ns_sock_state(s) == NS_SUSPENDED)
        ns_slots_wake();
    if (forget)
        ns_sock_forget(s);
    ns_slot_leave(slot);
    return r;
}
