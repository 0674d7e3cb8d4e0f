#include "engine/pass.h"

#include "engine/end.h"
#include "engine/first.h"
#include "engine/hello.h"
#include "engine/sys.h"

void ns_pass_await_new(struct ns_sock *s, int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    bool answered = ns_hello_mute();
    if (ns_first_settle(s, fd) && answered && ns_sys_ppoll(&p, 1, &(struct timespec){ 0, 100000000 }, NULL) == 1)
        ns_first_settle(s, fd);
}

void ns_fd_demote(int fd, const char *why)
{
    struct ns_slot *slot = ns_slot_self();
    struct ns_sock *s = ns_sock_at(fd);
    if (!s || !slot || !ns_slot_enter(slot, s))
        return;
    if (ns_sock_at(fd) == s) {
        if (ns_sock_state(s) == NS_AWAITING)
            ns_pass_await_new(s, fd);
        ns_sock_demote(s, why);
    }
    ns_slot_leave(slot);
}
