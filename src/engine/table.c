/* Which object a descriptor stands for, and which session an id. */
#include "engine/large.h"
#include "engine/memory.h"
#include "engine/sock.h"
#include "engine/sys.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Atomic(struct ns_object *) *ns_table;
struct ns_lock ns_table_lock;

static int table_top = -1; /* the highest descriptor ever put; table */

#define HASH_SIZE 1024
static struct ns_sock *by_id[HASH_SIZE] NS_LARGE; /* table */
static uint32_t indexed;                          /* how many are in it; table */
#define FEW 8
static struct ns_sock *few[FEW]; /* not in it: on a page that is written anyway (large.h); table */

/* A page that a child finds empty (MADV_WIPEONFORK, Linux 4.14), however it was made:
 * by a clone(2) that goes past libc nobody is told. */
static bool *own;
static uint32_t owner; /* its process; a child that shares this memory (CLONE_VM) is another */

bool ns_table_own(void)
{
    return *own;
}

bool ns_table_lent(void)
{
    return *own && owner != (uint32_t)ns_sys_getpid();
}

static int mark_own(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    madvise(p, page, MADV_WIPEONFORK);
    own = p;
    *own = true;
    owner = (uint32_t)ns_sys_getpid();
    return 0;
}

int ns_table_init(void)
{
    if (mark_own() < 0)
        return -ENOMEM;
    ns_table = ns_memory_begin(NS_FD_MAX * sizeof *ns_table);
    return ns_table ? 0 : -ENOMEM;
}

void ns_table_hold(struct ns_hold *h)
{
    ns_lock_quiet(&ns_table_lock, &h->saved);
}

void ns_table_unhold(struct ns_hold *h)
{
    ns_unlock_quiet(&ns_table_lock, &h->saved);
}

/* ---- descriptors ---- */

static ino_t inode_of(int fd)
{
    struct stat st;
    return ns_sys_fstat(fd, &st) == 0 ? st.st_ino : 0;
}

bool ns_object_verify(const struct ns_object *o, int fd)
{
    return o->inode == 0 || inode_of(fd) == o->inode;
}

void ns_object_identify(struct ns_object *o)
{
    if (o->inode == 0 && o->fd >= 0)
        o->inode = inode_of(o->fd);
}

void ns_table_put(int fd, struct ns_object *o)
{
    if (o->fds++ == 0)
        __atomic_store_n(&o->fd, fd, __ATOMIC_SEQ_CST);
    if (fd > table_top)
        table_top = fd;
    __atomic_store_n((struct ns_object **)&ns_table[fd], o, __ATOMIC_SEQ_CST);
}

void ns_object_each_fd(struct ns_object *o, void (*each)(void *ctx, int fd), void *ctx)
{
    if (o->fds == 1) {
        each(ctx, o->fd);
        return;
    }
    for (int fd = 0; fd <= table_top; fd++)
        if (ns_object_at(fd) == o)
            each(ctx, fd);
}

static void open_after_exec(void *ctx, int fd)
{
    int flags = ns_sys_fcntl(fd, F_GETFD, 0);
    if (flags >= 0 && !(flags & FD_CLOEXEC))
        *(int *)ctx = fd;
}

int ns_object_inherited(struct ns_object *o)
{
    int fd = -1;
    if (o->fd >= 0)
        ns_object_each_fd(o, open_after_exec, &fd);
    return fd;
}

static void take_first(void *ctx, int fd)
{
    struct ns_object *o = ctx;
    if (o->fd < 0)
        __atomic_store_n(&o->fd, fd, __ATOMIC_SEQ_CST);
}

struct ns_object *ns_table_remove(int fd)
{
    struct ns_object *o = ns_object_at(fd);
    if (!o)
        return NULL;
    __atomic_store_n((struct ns_object **)&ns_table[fd], NULL, __ATOMIC_SEQ_CST);
    o->fds--;
    if (o->fd == fd) {
        __atomic_store_n(&o->fd, -1, __ATOMIC_SEQ_CST);
        if (o->fds > 0) {
            uint32_t fds = o->fds;
            o->fds = 2; /* so that the table is searched */
            ns_object_each_fd(o, take_first, o);
            o->fds = fds;
        }
    }
    return o->fds == 0 ? o : NULL;
}

struct ns_sock *ns_sock_create(int fd, enum ns_role role, uint8_t version)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    struct ns_object *o = (unsigned)fd < NS_FD_MAX ? ns_object_new(NS_KIND_SOCK) : NULL;
    if (o) {
        struct ns_sock *s = (struct ns_sock *)o;
        ns_session_init(&s->session, role, version);
        ns_ring_init(&s->inbox, 0);
        s->linger_fd = -1;
        s->rx_open = role == NS_CLIENT;
        s->tx_open = true;
        if (role == NS_SERVER)
            __atomic_fetch_add(&ns_count_awaiting, 1, __ATOMIC_SEQ_CST);
        else
            __atomic_fetch_add(&ns_count_asking, 1, __ATOMIC_SEQ_CST);
        ns_table_put(fd, o);
    }
    ns_table_unhold(&hold);
    return (struct ns_sock *)o;
}

static struct ns_sock **bucket(const uint8_t id[16])
{
    return &by_id[id[0] | (id[1] & 3) << 8];
}

void ns_sock_index(struct ns_sock *s)
{
    for (int i = 0; i < FEW; i++)
        if (!few[i]) {
            few[i] = s;
            return;
        }
    struct ns_sock **b = bucket(s->session.id);
    s->hash_next = *b;
    *b = s;
    indexed++;
}

void ns_sock_unindex(struct ns_sock *s)
{
    for (int i = 0; i < FEW; i++)
        if (few[i] == s) {
            few[i] = NULL;
            return;
        }
    for (struct ns_sock **p = bucket(s->session.id); *p; p = &(*p)->hash_next)
        if (*p == s) {
            *p = s->hash_next;
            indexed--;
            return;
        }
}

NS_EACH_FORK void ns_table_fork_child(void)
{
    *own = true;
    owner = (uint32_t)ns_sys_getpid();
    ns_lock_reset(&ns_table_lock);
    if (indexed > 0)
        memset(by_id, 0, sizeof by_id);
    indexed = 0;
    memset(few, 0, sizeof few);
}

static bool has_id(const struct ns_sock *s, const uint8_t id[16])
{
    return memcmp(s->session.id, id, sizeof s->session.id) == 0;
}

struct ns_sock *ns_sock_find(const uint8_t id[16])
{
    for (int i = 0; i < FEW; i++)
        if (few[i] && has_id(few[i], id))
            return few[i];
    for (struct ns_sock *s = *bucket(id); s; s = s->hash_next)
        if (has_id(s, id))
            return s;
    return NULL;
}
