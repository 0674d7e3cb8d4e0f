#include "engine/gate.h"

#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/interrupt.h"
#include "engine/large.h"
#include "engine/sys.h"

#include <poll.h>
#include <string.h>

#define READERS_MAX 64
#define AWAKE_LOOKS 50
#define BRISK_LOOKS 1000 /* each millisecond; then */
#define SLOW_MS     50

/* ns_sock.gate is 1 + the descriptor, 0 for none. */
static void end_gate(struct ns_sock *s)
{
    int gate = __atomic_exchange_n(&s->gate, 0, __ATOMIC_ACQ_REL);
    if (gate)
        ns_internal_close(gate - 1);
}

/* ---- in the process that had the session ---- */

int ns_gate_make(struct ns_sock *s)
{
    int pair[2];
    int err = ns_sys_socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    if (err < 0)
        return err;
    __atomic_store_n(&s->gate, 1 + ns_internal(pair[0]), __ATOMIC_RELEASE);
    return ns_internal(pair[1]);
}

void ns_gate_drop(struct ns_sock *s)
{
    end_gate(s);
}

void ns_gate_try(struct ns_sock *s)
{
    if (__atomic_load_n(&s->gate, __ATOMIC_ACQUIRE) && !ns_slots_reading(s))
        end_gate(s);
}

/* Who is being made to leave, of one session at a time. */
static struct {
    struct ns_sock *session;
    uint32_t threads[READERS_MAX];
    bool asked[READERS_MAX];
    size_t count;
    unsigned looks, since_asked;
    bool interrupting; /* between ns_interrupt_begin and _end: for as short as can be */
} leaving NS_LARGE;

static void begin_leaving(struct ns_sock *s)
{
    memset(&leaving, 0, sizeof leaving);
    leaving.session = s;
    leaving.count = ns_slots_readers(s, leaving.threads, READERS_MAX);
}

static void ask(size_t i)
{
    if (!leaving.interrupting)
        leaving.interrupting = ns_interrupt_begin();
    if (!leaving.interrupting)
        return;
    ns_interrupt(leaving.threads[i]);
    leaving.asked[i] = true;
    leaving.since_asked = 0;
}

/* Where a handler has left the read by longjmp, or it has begun anew (SA_RESTART, a stop), the
 * slot does not say so. Table held. */
static bool has_left(size_t i)
{
    if (leaving.asked[i])
        return ns_interrupt_taken(leaving.threads[i]);
    int fd = ns_thread_reads(leaving.threads[i]);
    if (fd == NS_SLEEPS_ELSEWHERE || (fd >= 0 && ns_object_at(fd) != &leaving.session->o))
        return true;
    /* One that does not sleep is about to, or has just been woken; if not, it is told all the same. */
    if (fd >= 0 || (fd == NS_SLEEPS_NOT && leaving.looks > AWAKE_LOOKS))
        ask(i);
    return false;
}

static bool all_left(void)
{
    bool left = leaving.count <= READERS_MAX, heard = true;
    leaving.looks++;
    for (size_t i = 0; i < leaving.count && i < READERS_MAX; i++) {
        bool has = has_left(i);
        left &= has;
        heard &= has || !leaving.asked[i];
    }
    /* A thread that takes no signal keeps nobody else's calls from being restarted. */
    if (leaving.interrupting && (heard || ++leaving.since_asked > AWAKE_LOOKS)) {
        ns_interrupt_end();
        leaving.interrupting = false;
    }
    return left;
}

/* One with a gate that is shut; table held. */
static struct ns_sock *one_shut(void)
{
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind != NS_KIND_RELAYED)
            continue;
        ns_gate_try(s);
        if (__atomic_load_n(&s->gate, __ATOMIC_RELAXED))
            return s;
    }
    return NULL;
}

static void end_leaving(void)
{
    if (!leaving.session)
        return; /* a page that is not written is not copied */
    if (leaving.interrupting)
        ns_interrupt_end();
    memset(&leaving, 0, sizeof leaving);
}

static void look(struct ns_timer *timer, struct ns_time now)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_sock *s = one_shut();
    if (s != leaving.session)
        end_leaving();
    if (s && s != leaving.session)
        begin_leaving(s);
    if (s && all_left())
        end_gate(s);
    ns_table_unhold(&hold);
    if (s)
        ns_timer_set(timer, ns_time_add(now, ns_time_ms(leaving.looks < BRISK_LOOKS ? 1 : SLOW_MS)));
}

static struct ns_timer timer = { .fire = look };

void ns_gate_clear(struct ns_time now)
{
    look(&timer, now);
}

NS_EACH_FORK void ns_gate_fork_child(void)
{
    end_leaving();
    timer.set = false;
}

/* ---- in the relay ---- */

void ns_gate_take(struct ns_sock *s, int end)
{
    s->gate = 1 + end;
}

bool ns_gate_open(struct ns_sock *s)
{
    int gate = __atomic_load_n(&s->gate, __ATOMIC_ACQUIRE);
    struct pollfd p = { .fd = gate - 1, .events = POLLIN };
    if (gate && ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) == 0)
        return false;
    end_gate(s);
    return true;
}
