#include "engine/quiet.h"

#include "engine/door.h"
#include "engine/dormant.h"
#include "engine/engine.h"
#include "engine/guest.h"
#include "engine/listener.h"
#include "engine/sock.h"
#include "engine/sys.h"

/* A descriptor of the next session that is more than plain TCP, or -1. */
static int next_session(void)
{
    struct ns_hold hold;
    int fd = -1;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && fd < 0; o = o->next) {
        bool here = o->kind == NS_KIND_SOCK || o->kind == NS_KIND_GOING;
        enum ns_state state = here ? ns_sock_state((struct ns_sock *)o) : NS_PLAIN;
        if (state != NS_PLAIN && state != NS_FAILED)
            fd = o->fd;
    }
    ns_table_unhold(&hold);
    return fd;
}

/* As sshd's process before the login, which has the connection only until then. It is not
 * woken: that would start the helper, in a process that may not have threads. */
static void lend_all(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        next = o->next;
        if (o->fd >= 0)
            ns_dormant_lend((struct ns_sock *)o);
    }
    ns_table_unhold(&hold);
}

/* In a sandbox nothing is taken out of it any more. A child leaves what waits to the others, who
 * may be there to accept; one whose parent has gone, or that never had one here, is most likely who accepts. */
static void settle_backlog(struct ns_listener *l)
{
    bool of_parent = l->parent != 0 && (uint32_t)ns_sys_getppid() == l->parent;
    if (l->door)
        return;
    if (of_parent)
        ns_listener_drop_backlog(l);
    else
        ns_listener_keep_backlog(l);
}

static void settle_listeners(void)
{
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_listener *l = (struct ns_listener *)o;
        if (o->kind != NS_KIND_LISTENER)
            continue;
        /* Other processes must not promise what this one, which may accept, cannot keep. */
        if (l->door && o->fd >= 0)
            ns_door_unlock(l);
        ns_listener_unwatch(l);
        settle_backlog(l);
    }
}

/* What the application has not accepted yet waits in a listener's queue: that one stays. */
static void forget_all(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    settle_listeners(); /* while epoll descriptors are known */
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        next = o->next;
        if (o->kind == NS_KIND_LISTENER && ns_queue_count(&((struct ns_listener *)o)->queue) > 0)
            continue;
        for (int fd = o->fd; o->fds > 0 && fd >= 0; fd = o->fd)
            ns_table_remove(fd);
    }
    ns_table_unhold(&hold);
}

void ns_quiet_fork_child(void)
{
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_LISTENER)
            ns_queue_forget(&((struct ns_listener *)o)->queue);
}

void ns_quiet_begin(void)
{
    int fd;
    if (!ns_table || ns_is_quiet())
        return;
    lend_all();
    while ((fd = next_session()) >= 0)
        if (ns_fd_leave(fd, "a sandbox") == -ENOBUFS)
            break;
    ns_guest_end_leases();
    ns_helper_stop();
    forget_all();
    ns_debug("in a sandbox: nothing is protected any more");
    __atomic_store_n(&ns_quiet, true, __ATOMIC_SEQ_CST);
}
