/*
 * A process becomes another program. Sessions whose descriptors it inherits go on
 * there if it has the shim (heirloom.h); they become plain TCP before, if it has not.
 */
#include "engine/exec.h"

#include "engine/door.h"
#include "engine/dormant.h"
#include "engine/engine.h"
#include "engine/heirloom.h"
#include "engine/hello.h"
#include "engine/joint.h"
#include "engine/large.h"
#include "engine/listener.h"
#include "engine/sys.h"

/* How long an exchange that is under way is waited for; one takes a few round trips. */
#define EXCHANGE_MS 10000

/* The next one, if it is a session that goes nowhere yet, or -1. Table held. */
static int left_behind(struct ns_object *o)
{
    struct ns_sock *s = (struct ns_sock *)o;
    bool sock = o->kind == NS_KIND_SOCK || ns_kind_sleeps(o->kind);
    return sock && !s->heirloom && ns_sock_state(s) != NS_FAILED ? ns_object_inherited(o) : -1;
}

static int next_left_behind(void)
{
    struct ns_hold hold;
    int fd = -1;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && fd < 0; o = o->next)
        fd = left_behind(o);
    ns_table_unhold(&hold);
    return fd;
}

/* One that a relay has, which is left to the next program in any case. Table held. */
static bool left_relayed(struct ns_object *o)
{
    return o->kind == NS_KIND_RELAYED && ns_object_inherited(o) >= 0;
}

/* A listener; connections may wait for it that the kernel knows nothing of. Table held. */
static bool left_listening(struct ns_object *o)
{
    return o->kind == NS_KIND_LISTENER && ns_object_inherited(o) >= 0;
}

static bool any_left(bool (*is)(struct ns_object *o))
{
    struct ns_hold hold;
    bool any = false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o && !any; o = o->next)
        any = is(o);
    ns_table_unhold(&hold);
    return any;
}

bool ns_exec_concerned(void)
{
    return ns_table && ns_objects && (next_left_behind() >= 0 || any_left(left_relayed) || any_left(left_listening));
}

bool ns_exec_key_sound(const char *psk)
{
    static struct ns_policy unused NS_LARGE;
    char why[128];
    if (!psk)
        return true;
    ns_policy_defaults(&unused);
    return ns_policy_set(&unused, "PSK", psk, why, sizeof why) >= 0;
}

/* A listener that the next program has, too, which would not know what to make of a NEW. */
static void unlock_listeners(void)
{
    struct ns_hold hold;
    bool any = false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        if (!left_listening(o))
            continue;
        any = true;
        if (((struct ns_listener *)o)->door)
            ns_door_unlock((struct ns_listener *)o);
    }
    ns_table_unhold(&hold);
    if (any)
        ns_hello_mute();
}

/* From here on only the kernel keeps what comes to a listener that the next program has. Not before: what is waited for may be
 * a session whose RESUME comes there. Table held. */
static void pause_listeners(void)
{
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (left_listening(o))
            ns_listener_pause((struct ns_listener *)o);
}

/* Whether one of them has to be waited for; table held. */
static bool under_way(bool patient)
{
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        if (o->kind == NS_KIND_GOING)
            return true;
        if (left_behind(o) < 0)
            continue;
        enum ns_bequest b = ns_dormant_bequest((struct ns_sock *)o);
        if (b == NS_BEQUEST_NOT_YET || (b == NS_BEQUEST_SOON && patient))
            return true;
    }
    return false;
}

/* Leaves what can be left to the next program, in one step. */
static int hand_down(void)
{
    struct ns_time end = ns_time_add(ns_now(), ns_time_ms(EXCHANGE_MS));
    struct ns_hold hold;
    ns_table_hold(&hold);
    while (under_way(ns_time_before(ns_now(), end))) {
        ns_table_unhold(&hold);
        ns_sys_ppoll(NULL, 0, &(struct timespec){ 0, 1000000 }, NULL);
        ns_table_hold(&hold);
    }
    pause_listeners();
    bool begun = ns_heirloom_begin();
    for (struct ns_object *o = ns_objects; begun && o; o = o->next)
        if (left_behind(o) >= 0)
            ns_heirloom_add((struct ns_sock *)o);
        else if (left_relayed(o))
            ns_heirloom_add_relayed((struct ns_sock *)o);
        else if (left_listening(o) && ns_listener_waits((struct ns_listener *)o))
            ns_heirloom_add_listener((struct ns_listener *)o);
    int file = begun ? ns_heirloom_end() : -1;
    ns_table_unhold(&hold);
    return file;
}

int ns_exec_prepare(bool followed)
{
    struct ns_hold hold;
    int fd, heirloom = -1;
    if (!ns_table || !ns_objects)
        return -1;
    unlock_listeners();
    if (followed && ns_table_own() && !ns_table_lent()) {
        ns_offers_settle();
        ns_unlock(&ns_table_lock);
        ns_await_delivered(true);
        heirloom = hand_down();
    }
    /* A program without us knows nothing of NEW in front, or of another connection
     * to come. What is closed by exec is delivered as at the end of a process. */
    while ((fd = next_left_behind()) >= 0)
        if (ns_fd_leave(fd, "exec") == -ENOBUFS)
            break;
    if (ns_table_own() && !ns_table_lent()) {
        ns_joint_leave(-1);
        ns_dormant_lay_all();
        ns_await_delivered(true);
    }
    if (heirloom >= 0)
        ns_heirloom_pass_on();
    if (ns_table_own() && !ns_table_lent()) {
        ns_table_hold(&hold);
        pause_listeners();
        ns_table_unhold(&hold);
    }
    return heirloom;
}

static void listeners_go_on(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_LISTENER)
            ns_listener_go_on((struct ns_listener *)o);
    ns_table_unhold(&hold);
}

void ns_exec_failed(int heirloom)
{
    if (ns_table && ns_objects && ns_table_own() && !ns_table_lent())
        listeners_go_on();
    if (heirloom < 0)
        return;
    ns_heirloom_undo();
    ns_dormant_exec_failed();
}
