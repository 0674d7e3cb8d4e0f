#include "engine/dormant.h"

#include "engine/end.h"
#include "engine/engine.h"
#include "engine/estate.h"
#include "engine/first.h"
#include "engine/internal.h"
#include "engine/heirloom.h"
#include "engine/joint.h"
#include "engine/laid.h"
#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/mailbox.h"
#include "engine/recovery.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/watch.h"
#include "engine/witness.h"

#include <errno.h>
#include <string.h>

#define RECLAIM_MS 1000

uint32_t ns_count_dormant;

static uint32_t me(void)
{
    return (uint32_t)ns_sys_getpid();
}

static uint64_t word_of(const struct ns_share *x)
{
    return __atomic_load_n(&x->word, __ATOMIC_SEQ_CST);
}

static bool change(struct ns_share *x, uint64_t from, uint64_t to)
{
    return __atomic_compare_exchange_n(&x->word, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Whether its state is nothing but that: no exchange is under way, no byte is
 * between ring and socket. Table, rx and tx held. */
static bool whole(const struct ns_sock *s)
{
    if (s->unfaithful || s->session.version != 2)
        return false;
    if (s->session.state == NS_AWAITING)
        return true;
    return s->session.state == NS_CONNECTED && s->tx_open && !s->retired && !s->retiring && !s->recovery &&
           s->replay.fd <= 0 && s->session.pins == 0 && s->guests == 0 && !s->tx_full &&
           s->session.carrier.tx_position == s->session.ring.head;
}

/* ---- waking ---- */

/* In its owner's place. */
static void awake(struct ns_sock *s)
{
    ns_heirloom_spoil(s);
    s->kept = false;
    s->tx_open = true;
    s->inbox_filled = ns_ring_used(&s->inbox) > 0;
    s->rx_open = s->session.state == NS_CONNECTED && !s->inbox_filled;
    ns_sock_count(s);
    __atomic_fetch_sub(&ns_count_dormant, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->o.kind, NS_KIND_SOCK, __ATOMIC_SEQ_CST);
}

/* What a process in a sandbox has written is in the stream, though in nobody's ring. */
static bool catch_up(struct ns_sock *s)
{
    struct ns_ledger l;
    return s->session.state == NS_CONNECTED && ns_ring_used(&s->inbox) == 0 &&
           ns_ledger_read_still(s->o.fd, &l) == 0 &&
           (l.state == NS_TCP_ESTABLISHED || l.state == NS_TCP_CLOSE_WAIT) &&
           ns_session_catch_up(&s->session,
                               ns_carrier_written(&s->session.carrier, l.acknowledged, l.unacknowledged));
}

/* Whether the share's word becomes `mine`: nobody had it, or who had it in a sandbox (`lent`)
 * has ended. */
static bool take(struct ns_share *x, uint64_t mine, bool *lent)
{
    uint64_t word = word_of(x);
    uint32_t owner = (uint32_t)(word & NS_SHARE_OWNER);
    *lent = word == (owner | NS_SHARE_LENT);
    return *lent ? !ns_holder_alive(owner) && change(x, word, mine) : change(x, 0, mine);
}

static bool claim(struct ns_sock *s)
{
    struct ns_share *x = s->share;
    bool lent = false;
    if (s->kept)
        return true;
    if (!x || !take(x, me(), &lent))
        return false;
    uint32_t laid = __atomic_load_n(&x->laid, __ATOMIC_SEQ_CST);
    if (laid != s->laid && !ns_laid_read(s)) {
        ns_error("what another process has laid down of the session cannot be read");
        __atomic_fetch_or(&x->word, NS_SHARE_PLAIN, __ATOMIC_SEQ_CST);
        return false;
    }
    s->laid = laid;
    s->hollow = false;
    __atomic_store_n(&x->addressed, 0, __ATOMIC_SEQ_CST); /* that was another's */
    if (lent && !catch_up(s)) {
        __atomic_fetch_or(&x->word, NS_SHARE_PLAIN, __ATOMIC_SEQ_CST);
        return false;
    }
    ns_share_unhold(x, me()); /* after an exec that has failed it is not noted */
    ns_share_hold(x, me());
    return true;
}

/* Found again by whoever looks for it, and looked after. */
static void settle_in(struct ns_sock *s)
{
    if (s->session.state != NS_CONNECTED)
        return;
    ns_dormant_name(s);
    if (s->session.role == NS_SERVER)
        ns_sock_index(s);
    if (ns_helper_running()) /* another process may call for it at once */
        ns_helper_post(s, NS_TODO_BORN);
    else
        ns_helper_post_lazily(s, NS_TODO_BORN);
    if (s->session.role == NS_SERVER)
        ns_helper_start_late();
    else
        ns_helper_start();
    ns_sock_touch(s);
}

/* From where it is read and written nothing more may be: it is a relay's connection. */
static void put_away(struct ns_sock *s)
{
    int dead = ns_internal(ns_sys_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (dead < 0)
        return;
    ns_watch_suspend(&s->o);
    ns_swap_put_under(s, dead);
    ns_watch_resume(&s->o);
    ns_internal_close(dead);
}

/* Makes it plain TCP for all who have it; not one that is elsewhere already. */
static uint64_t spoil_for_all(struct ns_share *x)
{
    uint64_t word = word_of(x);
    while (!(word & NS_SHARE_MOVED) && !change(x, word, word | NS_SHARE_PLAIN))
        word = word_of(x);
    return word;
}

/* Another process has it, or had it when it was killed. */
static void lose(struct ns_sock *s)
{
    uint64_t word = s->share ? spoil_for_all(s->share) : 0;
    if (word & NS_SHARE_JOINT)
        put_away(s);
    bool hole = (word & NS_SHARE_MOVED) || ns_ring_used(&s->inbox) > 0 || s->hollow;
    bool awaiting = s->session.state == NS_AWAITING;
    ns_debug("descriptor %d: another process has the session", s->o.fd);
    ns_ring_destroy(&s->inbox);
    if (awaiting && hole)
        ns_session_event(&s->session, NS_EVENT_NEW);
    if (hole) {
        /* The connection here is gone, or bytes in front of it: nothing may be read. */
        ns_session_event(&s->session, NS_EVENT_LOST);
        ns_session_event(&s->session, NS_EVENT_GAVE_UP);
        __atomic_store_n(&s->failure, ECONNRESET, __ATOMIC_SEQ_CST);
        ns_info("the session was moved, or read, where this process cannot follow");
    }
    s->unfaithful = true;
    awake(s);
    if (hole)
        return;
    ns_info("session demoted: two processes use it at once");
    /* NEW has to be taken off, whoever reads it. */
    if (!awaiting) {
        ns_sock_event(s, NS_EVENT_DEMOTED);
        ns_sock_forget(s);
    }
}

/* Takes the table. Before it has it the session may go to a relay once more. */
static void hold_asked_for(struct ns_object *o, struct ns_hold *hold)
{
    bool nested = ns_lock_mine(&ns_table_lock);
    for (;;) {
        ns_object_await(o);
        if (!nested)
            ns_joint_ask((struct ns_sock *)o);
        ns_table_hold(hold);
        if (o->kind != NS_KIND_GOING || nested || !ns_table_own())
            return;
        ns_table_unhold(hold);
    }
}

struct ns_sock *ns_sock_wake(struct ns_object *o)
{
    struct ns_sock *s = (struct ns_sock *)o;
    struct ns_hold hold;
    hold_asked_for(o, &hold);
    if (o->kind == NS_KIND_DORMANT && o->fds > 0) {
        if (claim(s)) {
            awake(s);
            settle_in(s);
        } else {
            lose(s);
        }
    }
    bool here = o->kind == NS_KIND_SOCK && o->fds > 0;
    ns_table_unhold(&hold);
    return here ? s : NULL;
}

/* ---- around a sandbox ---- */

void ns_dormant_lend(struct ns_sock *s)
{
    bool lent;
    struct ns_share *x = s->share;
    if (s->o.kind != NS_KIND_DORMANT)
        return;
    bool taken =
        x && !s->kept && !s->hollow && ns_share_held(x, me()) && take(x, me() | NS_SHARE_LENT, &lent);
    uint32_t laid = taken ? __atomic_load_n(&x->laid, __ATOMIC_SEQ_CST) : s->laid;
    taken = taken && (laid == s->laid || ns_laid_read(s));
    s->laid = laid;
    if (taken && s->session.state == NS_CONNECTED && ns_ring_used(&s->inbox) == 0)
        return;
    lose(s);
    /* Nobody stands in front of the reads from here on: what is missing must not pass unnoticed. */
    if (ns_sock_state(s) == NS_FAILED && s->o.fd >= 0)
        ns_swap_abort(s->o.fd);
}

/* ---- going to sleep ---- */

/* Table, rx and tx held. False when a thread is inside it: then it stays. */
static bool put_to_sleep(struct ns_sock *s)
{
    /* In this order, so that either we see a thread inside or it sees this. */
    __atomic_store_n(&s->o.kind, NS_KIND_DORMANT, __ATOMIC_SEQ_CST);
    if (ns_slots_inside(s)) {
        __atomic_store_n(&s->o.kind, NS_KIND_SOCK, __ATOMIC_SEQ_CST);
        return false;
    }
    __atomic_fetch_add(&ns_count_dormant, 1, __ATOMIC_SEQ_CST);
    ns_sock_uncount(s);
    ns_sock_unindex(s);
    s->dormant_since = ns_now();
    return true;
}

/* Whoever looks at its share has the table or tx. */
static void leave_share(struct ns_sock *s)
{
    ns_lock(&s->tx);
    s->share = NULL;
    s->estate = NULL;
    ns_unlock(&s->tx);
}

/* The session is no more here, but may be asked for here. */
static void bear_witness(struct ns_sock *s)
{
    struct ns_estate *e = s->estate;
    struct ns_share *x = s->share;
    ns_share_unhold(x, me());
    leave_share(s);
    if (s->session.role == NS_SERVER)
        ns_witness_bear(e, x);
    else
        ns_estate_unuse(e);
}

void ns_dormant_drop(struct ns_sock *s)
{
    struct ns_estate *e = s->estate;
    if (!s->share)
        return;
    ns_share_unhold(s->share, me());
    leave_share(s);
    ns_estate_unuse(e);
}

static bool can_share(const struct ns_sock *s)
{
    if (s->o.kind != NS_KIND_SOCK || s->o.fd < 0 || s->session.version != 2 || s->unfaithful)
        return false;
    enum ns_state state = ns_sock_state(s);
    return state == NS_AWAITING || state == NS_CONNECTED || state == NS_SUSPENDED;
}

static bool needs_share(struct ns_sock *s)
{
    if (!can_share(s))
        return false;
    /* The others have a connection that is gone; the child gets the one in use. */
    if (s->share && (word_of(s->share) & NS_SHARE_MOVED))
        ns_dormant_drop(s);
    return !s->share;
}

static void begin_share(struct ns_sock *s, struct ns_estate *e, struct ns_share *x)
{
    x->word = me() | (s->session.state == NS_SUSPENDED ? NS_SHARE_MOVED : 0);
    ns_share_hold(x, me());
    ns_lock(&s->tx);
    s->estate = e;
    s->share = x;
    ns_unlock(&s->tx);
    s->laid = 0;
    s->inherited = true;
    if (ns_random(s->family_secret, sizeof s->family_secret) < 0)
        memset(s->family_secret, 0, sizeof s->family_secret); /* then nobody can ask */
    if (ns_session_protected(&s->session)) {
        memcpy(x->id, s->session.id, sizeof x->id);
        __atomic_store_n(&x->named, 1, __ATOMIC_SEQ_CST);
    }
}

/* Left to whoever of parent and child calls first, if it can be. Table held. */
static void leave_to_first(struct ns_sock *s)
{
    bool others = ns_share_held(s->share, me());
    s->unborn = ns_share_hold(s->share, NS_HOLDER_UNBORN);
    bool rx = ns_lock(&s->rx), tx = ns_lock(&s->tx);
    if (rx && tx && ns_dormant_ours(s) && whole(s)) {
        ns_first_release(s, s->o.fd);
        /* What both have in memory need not be written, unless for older holders. */
        if (others && ns_laid_write(s, s->o.fd))
            s->laid = __atomic_load_n(&s->share->laid, __ATOMIC_SEQ_CST);
        else if (!others)
            s->laid = __atomic_add_fetch(&s->share->laid, 1, __ATOMIC_SEQ_CST);
        else
            rx = false;
        if (rx && put_to_sleep(s) && !change(s->share, me(), 0))
            awake(s); /* an older holder has called for it: plain for all */
    }
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
}

/* What this process has, though it sleeps over an exec, it has to the full. Table held. */
static void wake_kept(void)
{
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        struct ns_sock *s = (struct ns_sock *)o;
        next = o->next;
        if (o->kind != NS_KIND_DORMANT || !s->kept || o->fd < 0)
            continue;
        awake(s);
        settle_in(s);
    }
}

/* NEW may have come since the connection was accepted. Whoever reads it makes the key that the
 * client and we have in common, and keeps it for the client's next connection: here that is once,
 * in children it would be each time. So late as can be. Of what is no NEW the helper would be made, and
 * for that memory allocated, whose lock the fork may hold already (pthread_atfork(3)). */
static void settle_awaiting(void)
{
    for (struct ns_object *o = ns_objects, *next; o; o = next) {
        struct ns_sock *s = (struct ns_sock *)o;
        next = o->next;
        if (o->kind == NS_KIND_SOCK && o->fd >= 0 && ns_sock_state(s) == NS_AWAITING && ns_first_new(o->fd))
            ns_first_settle(s, o->fd);
    }
}

void ns_dormant_prepare(void)
{
    size_t count = 0, used = 0;
    wake_kept();
    for (struct ns_object *o = ns_objects; o; o = o->next)
        count += needs_share((struct ns_sock *)o);
    struct ns_estate *e = ns_estate_new(count);
    if (!e && count > 0)
        ns_error("no memory for sessions that two processes hold");
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind == NS_KIND_DORMANT && !s->kept)
            s->unborn = ns_share_hold(s->share, NS_HOLDER_UNBORN);
        if (can_share(s) && !s->share && e && used < count)
            begin_share(s, e, ns_estate_share(e, used++));
    }
    settle_awaiting();
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (can_share(s) && s->share)
            leave_to_first(s);
    }
    for (; e && used < count; used++) /* lost meanwhile */
        ns_estate_unuse(e);
}

/* ---- in the child ---- */

bool ns_dormant_inherit(struct ns_sock *s)
{
    if (!s->share)
        return false;
    ns_share_hold_at(s->share, s->unborn, me());
    ns_lock_reset(&s->rx);
    ns_lock_reset(&s->tx);
    s->o.kind = NS_KIND_DORMANT;
    s->young = true;
    s->heirloom = 0;
    s->recovery = NULL;
    s->replay = (struct ns_source){ 0 };
    s->parked = s->stalled = (struct ns_timer){ 0 };
    s->todo = s->guests = s->holders = s->told = 0;
    s->helped = s->buried = s->retired = s->retiring = s->tx_full = s->touched = false;
    s->session.pins = 0;
    s->pulse = (struct ns_pulse){ 0 };
    s->hash_next = NULL;
    ns_count_dormant++;
    return true;
}

/* ---- whose it is ---- */

bool ns_dormant_ours(const struct ns_sock *s)
{
    return !s->share || (word_of(s->share) & ~(NS_SHARE_MOVED | NS_SHARE_JOINT)) == me();
}

/* Those whose connection is gone, or will be, have no part in how it ends. */
static bool gone_for_others(const struct ns_sock *s)
{
    return (word_of(s->share) & NS_SHARE_MOVED) || ns_sock_state(s) == NS_SUSPENDED;
}

bool ns_dormant_alone(const struct ns_sock *s)
{
    return !s->share || (ns_dormant_ours(s) && (gone_for_others(s) || !ns_share_held(s->share, me())));
}

bool ns_dormant_move(struct ns_sock *s)
{
    if (!s->share)
        return true;
    uint64_t word = word_of(s->share);
    return (word & ~NS_SHARE_JOINT) == (me() | NS_SHARE_MOVED) || change(s->share, me(), me() | NS_SHARE_MOVED);
}

void ns_dormant_plain(struct ns_sock *s)
{
    if (s->share)
        __atomic_fetch_or(&s->share->word, NS_SHARE_PLAIN, __ATOMIC_SEQ_CST);
}

void ns_dormant_name(struct ns_sock *s)
{
    if (!s->share)
        return;
    memcpy(s->share->id, s->session.id, sizeof s->share->id);
    __atomic_store_n(&s->share->named, 1, __ATOMIC_SEQ_CST);
}

void ns_dormant_met(struct ns_sock *s, const uint8_t client_key[32])
{
    ns_lock(&s->tx);
    if (s->share) {
        memcpy(s->share->client, client_key, sizeof s->share->client);
        __atomic_store_n(&s->share->met, 1, __ATOMIC_RELEASE);
    }
    ns_unlock(&s->tx);
}

void ns_dormant_address(struct ns_sock *s)
{
    struct ns_hold hold;
    const uint8_t *mailbox;
    ns_table_hold(&hold);
    if (s->share && ns_dormant_ours(s) && (mailbox = ns_mailbox())) {
        memcpy(s->share->mailbox, mailbox, sizeof s->share->mailbox);
        __atomic_store_n(&s->share->addressed, 1, __ATOMIC_SEQ_CST);
    }
    ns_table_unhold(&hold);
}

enum ns_owner ns_dormant_owner(const struct ns_sock *s, uint8_t mailbox[16])
{
    const struct ns_share *x = s->share;
    /* Where it is not named, nothing is known to be protected. */
    if (s->o.kind != NS_KIND_DORMANT || s->kept || s->hollow || !x || !__atomic_load_n(&x->named, __ATOMIC_SEQ_CST))
        return NS_OWNER_NONE;
    uint64_t word = word_of(x);
    uint32_t owner = (uint32_t)(word & NS_SHARE_OWNER);
    if (owner == 0 || owner == me() || (word & (NS_SHARE_PLAIN | NS_SHARE_LENT)) || !ns_holder_alive(owner))
        return NS_OWNER_NONE;
    if (!__atomic_load_n(&x->addressed, __ATOMIC_SEQ_CST))
        return word & NS_SHARE_JOINT ? NS_OWNER_NEXT : NS_OWNER_SOON;
    memcpy(mailbox, x->mailbox, sizeof x->mailbox);
    return NS_OWNER_THERE;
}

bool ns_dormant_join(struct ns_sock *s, uint64_t *before)
{
    *before = word_of(s->share);
    if ((*before & ~NS_SHARE_MOVED) != me() || !change(s->share, *before, me() | NS_SHARE_MOVED | NS_SHARE_JOINT))
        return false;
    /* Whoever wants it meanwhile is to wait for the relay. */
    __atomic_store_n(&s->share->addressed, 0, __ATOMIC_SEQ_CST);
    return true;
}

void ns_dormant_part(struct ns_sock *s, uint64_t before)
{
    change(s->share, me() | NS_SHARE_MOVED | NS_SHARE_JOINT, before);
    __atomic_store_n(&s->share->addressed, 1, __ATOMIC_SEQ_CST);
}

bool ns_dormant_stranded(struct ns_sock *s)
{
    if (!s->share || !ns_dormant_ours(s) || !ns_share_in_use(s->share, me()))
        return false;
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    bool laid_down = !gone_for_others(s) && whole(s);
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
    return !laid_down;
}

void ns_dormant_relay(struct ns_sock *s, struct ns_estate *e, struct ns_share *x)
{
    s->estate = e;
    s->share = x;
    ns_share_hold(x, me());
    __atomic_store_n(&x->word, me() | NS_SHARE_MOVED | NS_SHARE_JOINT, __ATOMIC_SEQ_CST);
}

void ns_dormant_leave(struct ns_sock *s)
{
    if (s->o.kind == NS_KIND_DORMANT) {
        ns_heirloom_spoil(s);
        s->kept = false;
        __atomic_fetch_sub(&ns_count_dormant, 1, __ATOMIC_SEQ_CST);
    }
    if (s->share)
        bear_witness(s);
}

NS_EACH_FORK void ns_dormant_fork_child(void)
{
    ns_count_dormant = 0;
}

/* ---- exec ---- */

enum ns_bequest ns_dormant_bequest(struct ns_sock *s)
{
    if (s->o.kind == NS_KIND_DORMANT)
        return NS_BEQUEST_READY;
    if (!can_share(s) || !ns_dormant_ours(s))
        return NS_BEQUEST_NEVER;
    if (ns_sock_state(s) == NS_SUSPENDED || s->retired || s->retiring || s->replay.fd > 0 || !s->tx_open)
        return NS_BEQUEST_NOT_YET;
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    bool ready = whole(s);
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
    return ready ? NS_BEQUEST_READY : NS_BEQUEST_SOON;
}

bool ns_dormant_bequeath(struct ns_sock *s)
{
    if (s->o.kind == NS_KIND_DORMANT)
        return true;
    bool rx = ns_lock(&s->rx), tx = ns_lock(&s->tx);
    bool asleep = rx && tx && can_share(s) && ns_dormant_ours(s) && whole(s);
    if (asleep)
        ns_first_release(s, s->o.fd);
    s->kept = asleep && put_to_sleep(s);
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
    return s->kept;
}

void ns_dormant_found(struct ns_sock *s, struct ns_estate *e, struct ns_share *x, bool kept)
{
    s->estate = e;
    s->share = x;
    s->kept = kept;
    s->inherited = s->young = true;
    s->linger_fd = -1;
    ns_sock_uncount(s);
    ns_count_dormant++;
    s->o.kind = NS_KIND_DORMANT;
}

void ns_dormant_exec_failed(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    wake_kept();
    ns_table_unhold(&hold);
}

/* ---- ending ---- */

/* Dormant, or never to be counted again. */
void ns_dormant_dispose(struct ns_sock *s)
{
    if (s->share)
        bear_witness(s);
    s->kept = false;
    ns_ring_destroy(&s->inbox);
    s->inbox_filled = false;
    ns_lock(&s->tx);
    if (!ns_session_event(&s->session, NS_EVENT_DEMOTED)) {
        ns_session_event(&s->session, NS_EVENT_LOST);
        ns_session_event(&s->session, NS_EVENT_GAVE_UP);
    }
    ns_unlock(&s->tx);
    if (s->o.kind == NS_KIND_DORMANT)
        __atomic_fetch_sub(&ns_count_dormant, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->o.kind, NS_KIND_SOCK, __ATOMIC_SEQ_CST);
    ns_watch_drop_all(&s->o);
    ns_sock_let_go(s);
}

/* Lays the state down for whoever calls next; where it is not whole, the others
 * go on without. Table held; a descriptor is still open. */
static void lay_down(struct ns_sock *s, int fd)
{
    ns_lock(&s->rx);
    ns_lock(&s->tx);
    bool laid = ns_dormant_ours(s) && whole(s);
    if (laid && s->session.state == NS_AWAITING)
        ns_first_release(s, fd);
    laid = laid && ns_laid_write(s, fd) && put_to_sleep(s);
    if (laid) {
        s->laid = __atomic_load_n(&s->share->laid, __ATOMIC_SEQ_CST);
        change(s->share, me(), 0);
    } else {
        ns_dormant_plain(s);
    }
    ns_unlock(&s->tx);
    ns_unlock(&s->rx);
}

bool ns_dormant_close(struct ns_sock *s, int fd)
{
    if (s->kept) {
        awake(s);
        settle_in(s);
    }
    if (!s->share)
        return false;
    bool others = ns_share_held(s->share, me());
    if (s->o.kind == NS_KIND_DORMANT) {
        if (!others && claim(s)) {
            awake(s);
            settle_in(s);
            return false;
        }
        ns_dormant_dispose(s);
        return true;
    }
    if (!ns_dormant_ours(s)) { /* it is plain TCP, and the end of the stream another's */
        ns_lock(&s->tx);
        ns_sock_event(s, NS_EVENT_DEMOTED);
        ns_unlock(&s->tx);
        return false;
    }
    if (!others || gone_for_others(s))
        return false;
    lay_down(s, fd);
    if (s->o.kind == NS_KIND_SOCK)
        ns_sock_uncount(s);
    ns_dormant_dispose(s);
    return true;
}

void ns_dormant_lay_all(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        bool here =
            (o->kind == NS_KIND_SOCK || o->kind == NS_KIND_DORMANT) && o->fd >= 0 && s->share && !s->heirloom;
        if (here && s->kept)
            awake(s);
        if (here && o->kind == NS_KIND_SOCK && ns_share_held(s->share, me()) && !gone_for_others(s) &&
            ns_sock_state(s) != NS_PLAIN)
            lay_down(s, o->fd);
        if (here && o->kind == NS_KIND_DORMANT)
            ns_share_unhold(s->share, me());
    }
    ns_table_unhold(&hold);
}

/* ---- on the helper ---- */

bool ns_dormant_reclaim(struct ns_time now)
{
    struct ns_hold hold;
    struct ns_object *next;
    if (__atomic_load_n(&ns_count_dormant, __ATOMIC_SEQ_CST) == 0)
        return false;
    ns_table_hold(&hold);
    for (struct ns_object *o = ns_objects; o; o = next) {
        struct ns_sock *s = (struct ns_sock *)o;
        next = o->next;
        if (o->kind != NS_KIND_DORMANT || o->fd < 0 || s->young || s->heirloom ||
            ns_time_before(now, ns_time_add(s->dormant_since, ns_time_ms(RECLAIM_MS))) || !claim(s))
            continue;
        awake(s);
        settle_in(s);
    }
    ns_table_unhold(&hold);
    return true;
}
