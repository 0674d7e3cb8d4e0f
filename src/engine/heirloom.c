#include "engine/heirloom.h"

#include "engine/dormant.h"
#include "engine/engine.h"
#include "engine/estate.h"
#include "engine/internal.h"
#include "engine/laid.h"
#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/listener.h"
#include "engine/mailbox.h"
#include "engine/relayed.h"
#include "engine/swap.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC       0x6e73686569726c32u /* raised where a field moves and no size shows it */
#define ESTATES_MAX 64 /* that one program leaves to another */
#define BACKLOGS_MAX 64
#define NUMBERS_MAX 16 /* descriptors of one session */

struct head {
    uint64_t magic;
    uint32_t size; /* of this, of an item and of a share: another version of the engine must not read it */
    uint32_t items;
    bool has_identity, has_parents;
    uint16_t ephemeral_low, ephemeral_high; /* as this program has read them */
    struct ns_identity identity;
    uint8_t parents[NS_MAILBOX_BYTES];
};

struct item {
    uint64_t next;        /* where the one after it begins */
    uint64_t state_bytes; /* behind it; 0: it is with another process */
    bool kept, spoilt;
    bool relayed; /* no session, but the way to one; without a state */
    bool listens; /* nor this */
    struct ns_backlog backlog;
    struct ns_name local, peer;
    enum ns_role role;
    int estate; /* its file, or -1 */
    uint32_t shares, share, laid;
    uint64_t established_s;
    ino_t inode;
    uint32_t numbers;
    int number[NUMBERS_MAX];
};

#define SIZE ((uint32_t)(sizeof(struct head) + sizeof(struct item) + sizeof(struct ns_share)))

static struct head made NS_LARGE; /* table */
static int made_file = -1;
static uint64_t made_bytes;
static struct ns_estate *made_estates[ESTATES_MAX] NS_LARGE;
static struct ns_backlog made_backlogs[BACKLOGS_MAX] NS_LARGE;
static unsigned made_backlogs_count;

static bool put(const void *from, size_t bytes, uint64_t at)
{
    return ns_file_may_hold(at + bytes) &&
           ns_syscall6(SYS_pwrite64, made_file, (long)from, (long)bytes, (long)at, 0, 0) == (long)bytes;
}

/* ---- before exec ---- */

/* One at a time: another thread may be about it, too. */
bool ns_heirloom_begin(void)
{
    if (made_file >= 0 || !ns_file_may_hold(sizeof made))
        return false;
    made_file = ns_internal(
        (int)ns_syscall6(SYS_memfd_create, (long)"namesocket", MFD_CLOEXEC | MFD_ALLOW_SEALING, 0, 0, 0, 0));
    made = (struct head){ .magic = MAGIC, .size = SIZE };
    made_bytes = sizeof made;
    memset(made_estates, 0, sizeof made_estates);
    made_backlogs_count = 0;
    return made_file >= 0;
}

static void add_number(void *ctx, int fd)
{
    struct item *i = ctx;
    int flags = ns_sys_fcntl(fd, F_GETFD, 0);
    if (flags >= 0 && !(flags & FD_CLOEXEC) && i->numbers++ < NUMBERS_MAX)
        i->number[i->numbers - 1] = fd;
}

static ino_t inode_of(int fd)
{
    struct stat st;
    return ns_sys_fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) ? st.st_ino : 0;
}

/* The next program takes so many, and no more. */
static bool note_estate(struct ns_estate *e)
{
    unsigned i = 0;
    if (!e)
        return true;
    while (i < ESTATES_MAX && made_estates[i] && made_estates[i] != e)
        i++;
    if (i < ESTATES_MAX)
        made_estates[i] = e;
    return i < ESTATES_MAX;
}

static void describe(struct item *i, const struct ns_sock *s)
{
    size_t shares = 0;
    i->kept = s->kept;
    i->role = s->session.role;
    i->laid = s->laid;
    i->inode = inode_of(s->o.fd);
    i->established_s = s->established_s;
    i->estate = s->estate ? ns_estate_file(s->estate, &shares) : -1;
    i->shares = (uint32_t)shares;
    i->share = s->estate ? (uint32_t)ns_estate_index(s->estate, s->share) : 0;
}

void ns_heirloom_add(struct ns_sock *s)
{
    struct item i = { .next = 0 };
    ns_object_each_fd(&s->o, add_number, &i);
    if (i.numbers == 0 || i.numbers > NUMBERS_MAX || ns_dormant_bequest(s) != NS_BEQUEST_READY ||
        !ns_dormant_bequeath(s) || !note_estate(s->estate))
        return;
    describe(&i, s);
    i.state_bytes = ns_laid_put(s, made_file, made_bytes + sizeof i);
    i.next = made_bytes + sizeof i + i.state_bytes;
    /* Without its state, it can only be another process's. */
    if ((s->kept && i.state_bytes == 0) || i.inode == 0 || !put(&i, sizeof i, made_bytes))
        return;
    s->heirloom = made_bytes;
    made_bytes = i.next;
    made.items++;
}

void ns_heirloom_add_relayed(struct ns_sock *s)
{
    struct item i = { .relayed = true, .estate = -1, .role = s->session.role, .local = s->local, .peer = s->peer };
    ns_object_each_fd(&s->o, add_number, &i);
    i.inode = inode_of(s->o.fd);
    i.next = made_bytes + sizeof i;
    if (i.numbers == 0 || i.numbers > NUMBERS_MAX || i.inode == 0 || !put(&i, sizeof i, made_bytes))
        return;
    made_bytes = i.next;
    made.items++;
}

void ns_heirloom_add_listener(struct ns_listener *l)
{
    struct item i = { .listens = true, .estate = -1, .backlog = l->backlog };
    ns_object_each_fd(&l->o, add_number, &i);
    i.inode = inode_of(l->o.fd);
    i.next = made_bytes + sizeof i;
    if (i.numbers > NUMBERS_MAX)
        i.numbers = NUMBERS_MAX; /* under those it is known */
    if (i.numbers == 0 || i.inode == 0 || !l->backlog.open ||
        made_backlogs_count == BACKLOGS_MAX || !put(&i, sizeof i, made_bytes))
        return;
    made_backlogs[made_backlogs_count++] = l->backlog;
    made_bytes = i.next;
    made.items++;
}

/* The files are the next program's, or this one's alone. Table held. */
static void pass_on(int flags)
{
    size_t shares;
    for (unsigned i = 0; i < ESTATES_MAX && made_estates[i]; i++)
        ns_sys_fcntl(ns_estate_file(made_estates[i], &shares), F_SETFD, flags);
    for (unsigned i = 0; i < made_backlogs_count; i++) {
        ns_sys_fcntl(made_backlogs[i].out, F_SETFD, flags);
        ns_sys_fcntl(made_backlogs[i].in, F_SETFD, flags);
    }
    ns_sys_fcntl(made_file, F_SETFD, flags);
}

int ns_heirloom_end(void)
{
    const struct ns_identity *own = made.items > 0 ? ns_identity() : NULL;
    made.has_identity = own != NULL;
    if (own)
        made.identity = *own;
    made.has_parents = ns_mailbox_parents(made.parents);
    made.ephemeral_low = ns_engine.policy.ephemeral_low;
    made.ephemeral_high = ns_engine.policy.ephemeral_high;
    bool written = made_file >= 0 && made.items > 0 && put(&made, sizeof made, 0);
    explicit_bzero(&made.identity, sizeof made.identity);
    if (!written) {
        ns_heirloom_undo();
        ns_dormant_exec_failed();
        return -1;
    }
    return made_file;
}

void ns_heirloom_pass_on(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    pass_on(0);
    ns_table_unhold(&hold);
}

void ns_heirloom_spoil(struct ns_sock *s)
{
    static const bool yes = true;
    if (s->heirloom && made_file >= 0)
        put(&yes, sizeof yes, s->heirloom + offsetof(struct item, spoilt));
    s->heirloom = 0;
}

void ns_heirloom_undo(void)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    pass_on(FD_CLOEXEC);
    for (struct ns_object *o = ns_objects; o; o = o->next)
        if (o->kind == NS_KIND_SOCK || o->kind == NS_KIND_DORMANT)
            ((struct ns_sock *)o)->heirloom = 0;
    ns_internal_close(made_file);
    made_file = -1;
    ns_table_unhold(&hold);
}

/* The file, and the numbers of the estates, are the parent's thread's. */
NS_EACH_FORK void ns_heirloom_fork_child(void)
{
    made_file = -1;
}

/* ---- in the new program ---- */

static bool get(int file, void *to, size_t bytes, uint64_t at)
{
    return ns_syscall6(SYS_pread64, file, (long)to, (long)bytes, (long)at, 0, 0) == (long)bytes;
}

static struct adopted {
    int file;
    struct ns_estate *estate;
} adopted[ESTATES_MAX] NS_LARGE; /* only while they are taken */
static unsigned adopted_count;

/* The estate whose file the program before had under `file`. */
static struct ns_estate *estate_of(int file, size_t shares)
{
    for (unsigned i = 0; i < adopted_count; i++)
        if (adopted[i].file == file)
            return adopted[i].estate;
    if (adopted_count == ESTATES_MAX)
        return NULL;
    struct ns_estate *e = ns_estate_adopt(file, shares);
    adopted[adopted_count++] = (struct adopted){ file, e };
    return e;
}

static void disown_estates(void)
{
    for (unsigned i = 0; i < adopted_count; i++)
        if (adopted[i].estate)
            ns_estate_unuse(adopted[i].estate);
    adopted_count = 0;
}

/* Nobody can say what comes next in the stream: whoever reads it is to get an error. */
static void cut(const struct item *i)
{
    for (uint32_t n = 0; n < i->numbers; n++)
        if (inode_of(i->number[n]) == i->inode)
            ns_swap_abort(i->number[n]);
    ns_error("no memory for a session of the program before: its connection is reset");
}

/* As it was when the state went to another process: not to be used without asking that one. */
static void hollow(struct ns_sock *s, const struct ns_share *x)
{
    static const enum ns_event way[] = { NS_EVENT_ESTABLISHED, NS_EVENT_ANSWER_YES, NS_EVENT_NEW };
    for (size_t i = 0; i < sizeof way / sizeof *way; i++)
        ns_session_event(&s->session, way[i]);
    if (x)
        s->laid = __atomic_load_n(&x->laid, __ATOMIC_SEQ_CST) - 1;
    s->hollow = true;
}

static void put_under(const struct item *i, struct ns_object *o)
{
    for (uint32_t n = 0; n < i->numbers; n++) {
        int fd = i->number[n];
        if ((unsigned)fd < NS_FD_MAX && inode_of(fd) == i->inode && !ns_object_at(fd))
            ns_table_put(fd, o);
    }
    ns_object_identify(o);
}

static void take_relayed(const struct item *i)
{
    struct ns_object *o = ns_object_new(NS_KIND_SOCK);
    if (!o)
        return; /* it is a connection like any other, but for its names */
    ns_relayed_found((struct ns_sock *)o, i->role == NS_CLIENT ? NS_CLIENT : NS_SERVER, &i->local, &i->peer);
    put_under(i, o);
    if (o->fds == 0)
        ns_object_free(o);
}

static void take_listener(const struct item *i)
{
    struct ns_backlog b = i->backlog;
    struct ns_object *o = NULL;
    if (!ns_backlog_adopt(&b))
        return;
    for (uint32_t n = 0; n < i->numbers && !o; n++) {
        int fd = i->number[n];
        if ((unsigned)fd < NS_FD_MAX && inode_of(fd) == i->inode && !ns_object_at(fd)) {
            ns_listener_new(fd, true);
            o = ns_object_at(fd);
        }
    }
    if (!o) {
        ns_backlog_close(&b);
        return;
    }
    ((struct ns_listener *)o)->backlog = b;
    ns_listener_accompany((struct ns_listener *)o, true);
    put_under(i, o);
}

static void take_item(int file, uint64_t at, const struct item *i)
{
    struct ns_object *o = ns_object_new(NS_KIND_SOCK);
    struct ns_sock *s = (struct ns_sock *)o;
    if (!o) {
        cut(i);
        return;
    }
    struct ns_estate *e = i->estate >= 0 ? estate_of(i->estate, i->shares) : NULL;
    struct ns_share *x = e ? ns_estate_use(e, i->share) : NULL;
    ns_session_init(&s->session, i->role == NS_CLIENT ? NS_CLIENT : NS_SERVER, 2);
    ns_ring_init(&s->inbox, 0);
    s->laid = i->laid;
    s->established_s = i->established_s;
    bool read = i->state_bytes > 0 && ns_laid_get(s, file, at + sizeof *i);
    if (!read && i->state_bytes > 0)
        cut(i);
    if (!read)
        hollow(s, x);
    bool kept = i->kept && read && !i->spoilt && (x || i->estate < 0);
    ns_dormant_found(s, x ? e : NULL, x, kept);
    put_under(i, o);
    if (o->fds == 0)
        ns_dormant_dispose(s);
    else if (!x && !kept)
        ns_sock_wake(o); /* whose it is cannot be known: plain TCP */
}

/* The program may never touch them: what the one before has written is delivered all the same. */
static void wake_undelivered(void)
{
    for (struct ns_object *o = ns_objects; o; o = o->next) {
        struct ns_sock *s = (struct ns_sock *)o;
        if (o->kind == NS_KIND_DORMANT && s->kept && o->fd >= 0 && ns_ring_used(&s->session.ring) > 0 &&
            ns_ledger_unacknowledged(o->fd) > 0 && ns_sock_wake(o))
            ns_helper_start();
    }
}

static void take_all(int file, const struct head *h)
{
    struct item i;
    struct ns_hold hold;
    ns_table_hold(&hold);
    uint64_t at = sizeof *h;
    for (uint32_t n = 0; n < h->items && get(file, &i, sizeof i, at); n++, at = i.next)
        if (i.numbers <= NUMBERS_MAX && i.listens)
            take_listener(&i);
        else if (i.numbers <= NUMBERS_MAX && i.relayed)
            take_relayed(&i);
        else if (i.numbers <= NUMBERS_MAX)
            take_item(file, at, &i);
    ns_debug("%u sessions and listeners of the program before", h->items);
    disown_estates();
    if (h->has_identity)
        ns_identity_adopt(&h->identity);
    if (h->has_parents)
        ns_mailbox_set_parents(h->parents);
    wake_undelivered();
    ns_table_unhold(&hold);
}

/* The file whose number the environment has, and its head; or -1. The variable goes, also from
 * what others read of it in /proc. */
static int found(struct head *h)
{
    char *text = getenv(NS_HEIRLOOM_VARIABLE);
    const char *number = text;
    int file = text ? (int)ns_number_at(&number) : -1;
    if (!text)
        return -1;
    unsetenv(NS_HEIRLOOM_VARIABLE);
    text -= sizeof NS_HEIRLOOM_VARIABLE;
    memset(text, 0, strlen(text));
    if (file <= 2 || ns_sys_fcntl(file, F_GET_SEALS, 0) < 0 || !get(file, h, sizeof *h, 0) ||
        h->magic != MAGIC || h->size != SIZE)
        return -1;
    return file;
}

bool ns_heirloom_take(void)
{
    struct head h;
    int file = found(&h);
    if (file < 0)
        return false;
    ns_engine.policy.ephemeral_low = h.ephemeral_low;
    ns_engine.policy.ephemeral_high = h.ephemeral_high;
    take_all(file, &h);
    ns_sys_close(file);
    explicit_bzero(&h, sizeof h);
    return true;
}

void ns_heirloom_refuse(void)
{
    struct head h;
    struct item i;
    int file = found(&h);
    if (file < 0)
        return;
    uint64_t at = sizeof h;
    for (uint32_t n = 0; n < h.items && get(file, &i, sizeof i, at); n++, at = i.next) {
        if (i.numbers <= NUMBERS_MAX && i.listens && ns_backlog_adopt(&i.backlog))
            ns_backlog_close(&i.backlog);
        else if (i.numbers <= NUMBERS_MAX && !i.relayed && !i.listens)
            cut(&i);
        if (i.estate > 2 && ns_sys_fcntl(i.estate, F_GET_SEALS, 0) >= 0)
            ns_sys_close(i.estate); /* again for another session of it: no file any more */
    }
    ns_sys_close(file);
    explicit_bzero(&h, sizeof h);
}
