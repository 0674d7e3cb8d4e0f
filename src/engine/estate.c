#include "engine/estate.h"

#include "engine/internal.h"
#include "engine/large.h"
#include "engine/socket.h"
#include "engine/sys.h"

#include <errno.h>
#include <linux/memfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>

#define ESTATES_MAX 8192 /* as many a process maps */
#define FILE_MAX    ((uint64_t)1 << 36)

struct ns_estate {
    int fd;
    uint32_t users;    /* sessions and witnesses here; table */
    uint32_t sessions; /* of them, those that may read or write a state; table */
    size_t count;
    struct header {
        uint64_t end; /* of what is written; atomic */
        uint64_t share_bytes; /* another version of the engine must not read them */
        uint64_t unused[14];
        struct ns_share shares[];
    } * map;
};

/* A server that forks for each connection has a few at a time: on a page that is written anyway. */
#define FEW 4
static struct ns_estate few[FEW], more[ESTATES_MAX - FEW] NS_LARGE; /* table */
static unsigned next; /* the place to look for a free one at first; table */

static struct ns_estate *place(unsigned i)
{
    return i < FEW ? &few[i] : &more[i - FEW];
}

static unsigned place_of(const struct ns_estate *e)
{
    return e >= few && e < few + FEW ? (unsigned)(e - few) : FEW + (unsigned)(e - more);
}

static size_t map_bytes(size_t count)
{
    return (sizeof(struct header) + count * sizeof(struct ns_share) + 4095) & ~(size_t)4095;
}

/* A write or a size beyond RLIMIT_FSIZE would raise SIGXFSZ, which kills (setrlimit(2)). */
bool ns_file_may_hold(uint64_t bytes)
{
    struct rlimit limit;
    return ns_syscall6(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, (long)&limit, 0, 0) < 0 || bytes <= limit.rlim_cur;
}

/* Sealed, so that no other process can take the pages away from under us. */
static int new_file(size_t bytes)
{
    int fd = ns_file_may_hold(bytes) ? (int)ns_syscall6(SYS_memfd_create, (long)"namesocket",
                                                        MFD_CLOEXEC | MFD_ALLOW_SEALING, 0, 0, 0, 0)
                                     : -EFBIG;
    fd = ns_internal(fd);
    if (fd >= 0 && (ns_syscall6(SYS_ftruncate, fd, (long)bytes, 0, 0, 0, 0) < 0 ||
                    ns_sys_fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)) {
        ns_internal_close(fd);
        return -ENOMEM;
    }
    if (fd >= 0)
        ns_internal_inherit(fd);
    return fd;
}

static struct ns_estate *unused(void)
{
    for (unsigned i = 0; i < FEW; i++)
        if (!few[i].map)
            return &few[i];
    for (unsigned tries = 0; tries < ESTATES_MAX; tries++, next++)
        if (!place(next % ESTATES_MAX)->map)
            return place(next++ % ESTATES_MAX);
    return NULL;
}

/* Takes `fd`. */
static struct ns_estate *map_file(int fd, size_t count, uint32_t users)
{
    struct ns_estate *e = unused();
    void *p = e ? mmap(NULL, map_bytes(count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0) : MAP_FAILED;
    if (p == MAP_FAILED) {
        ns_internal_close(fd);
        return NULL;
    }
    *e = (struct ns_estate){ .fd = fd, .users = users, .sessions = users, .count = count, .map = p };
    return e;
}

struct ns_estate *ns_estate_new(size_t count)
{
    int fd = count > 0 ? new_file(map_bytes(count)) : -1;
    struct ns_estate *e = fd >= 0 ? map_file(fd, count, (uint32_t)count) : NULL;
    if (e) {
        e->map->end = map_bytes(count);
        e->map->share_bytes = sizeof(struct ns_share);
    }
    return e;
}

bool ns_estate_sound(int fd, size_t count)
{
    struct stat st;
    int seals = ns_sys_fcntl(fd, F_GET_SEALS, 0);
    return seals >= 0 && (seals & F_SEAL_SHRINK) && count > 0 && count <= NS_FD_MAX &&
           ns_sys_fstat(fd, &st) == 0 && (uint64_t)st.st_size >= map_bytes(count);
}

struct ns_estate *ns_estate_adopt(int fd, size_t count)
{
    if (!ns_estate_sound(fd, count))
        return NULL;
    fd = ns_internal(fd);
    if (fd < 0)
        return NULL;
    ns_sys_fcntl(fd, F_SETFD, FD_CLOEXEC);
    ns_internal_inherit(fd);
    struct ns_estate *e = map_file(fd, count, 1);
    if (e && e->map->share_bytes != sizeof(struct ns_share)) {
        ns_estate_unuse(e);
        return NULL;
    }
    return e;
}

struct ns_share *ns_estate_use(struct ns_estate *e, size_t i)
{
    if (i >= e->count)
        return NULL;
    e->users++;
    e->sessions++;
    return &e->map->shares[i];
}

int ns_estate_file(const struct ns_estate *e, size_t *count)
{
    *count = e->count;
    return e->fd;
}

size_t ns_estate_index(const struct ns_estate *e, const struct ns_share *x)
{
    return (size_t)(x - e->map->shares);
}

struct ns_share *ns_estate_share(struct ns_estate *e, size_t i)
{
    return &e->map->shares[i];
}

void ns_estate_watch(struct ns_estate *e)
{
    if (--e->sessions > 0)
        return;
    ns_internal_close(e->fd);
    e->fd = -1;
}

void ns_estate_unwatch(struct ns_estate *e)
{
    if (--e->users > 0)
        return;
    munmap(e->map, map_bytes(e->count));
    e->map = NULL;
    next = place_of(e);
}

void ns_estate_unuse(struct ns_estate *e)
{
    ns_estate_watch(e);
    ns_estate_unwatch(e);
}

/* ---- holders ---- */

int ns_share_hold(struct ns_share *x, uint32_t pid)
{
    for (int i = 0; i < NS_HOLDERS_MAX; i++) {
        uint32_t none = 0;
        if (__atomic_compare_exchange_n(&x->holders[i], &none, pid, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
            return i;
    }
    /* Who it is cannot be noted, so it is there for ever. */
    __atomic_store_n(&x->holders[NS_HOLDERS_MAX - 1], NS_HOLDER_MANY, __ATOMIC_SEQ_CST);
    return -1;
}

void ns_share_hold_at(struct ns_share *x, int place, uint32_t pid)
{
    if (place >= 0 && place < NS_HOLDERS_MAX)
        __atomic_store_n(&x->holders[place], pid, __ATOMIC_SEQ_CST);
}

void ns_share_unhold(struct ns_share *x, uint32_t pid)
{
    for (int i = 0; i < NS_HOLDERS_MAX; i++) {
        uint32_t found = pid;
        __atomic_compare_exchange_n(&x->holders[i], &found, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
}

/* A number that was given to another process since counts as there: then the
 * session is less protected, never wrong. */
bool ns_holder_alive(uint32_t pid)
{
    if (pid == NS_HOLDER_UNBORN || pid == NS_HOLDER_MANY)
        return true;
    return ns_syscall6(SYS_kill, (long)pid, 0, 0, 0, 0, 0) != -ESRCH;
}

bool ns_share_held(struct ns_share *x, uint32_t pid)
{
    bool held = false;
    for (int i = 0; i < NS_HOLDERS_MAX; i++) {
        uint32_t other = __atomic_load_n(&x->holders[i], __ATOMIC_SEQ_CST);
        if (other == 0 || other == pid)
            continue;
        if (ns_holder_alive(other))
            held = true;
        else
            ns_share_unhold(x, other);
    }
    return held;
}

static bool runs(uint32_t pid)
{
    int fd = (int)ns_syscall6(SYS_pidfd_open, (long)pid, 0, 0, 0, 0, 0);
    struct pollfd p = { .fd = fd, .events = POLLIN };
    if (fd < 0)
        return false;
    bool is = ns_sys_ppoll(&p, 1, &(struct timespec){ 0 }, NULL) == 0;
    ns_sys_close(fd);
    return is;
}

bool ns_share_in_use(struct ns_share *x, uint32_t pid)
{
    for (int i = 0; i < NS_HOLDERS_MAX; i++) {
        uint32_t other = __atomic_load_n(&x->holders[i], __ATOMIC_SEQ_CST);
        if (other != 0 && other != pid && other != NS_HOLDER_UNBORN && other != NS_HOLDER_MANY && runs(other))
            return true;
    }
    return false;
}

/* ---- the state ---- */

/* Where there is room for as much: where it was before, or at the end of the file,
 * twice as much as before. */
static bool make_room(struct ns_estate *e, struct ns_share *x, uint64_t bytes)
{
    if (bytes > x->room) {
        uint64_t room = x->room <= FILE_MAX / 2 && bytes < 2 * x->room ? 2 * x->room : bytes;
        x->at = __atomic_fetch_add(&e->map->end, room, __ATOMIC_SEQ_CST);
        x->room = room;
    }
    return x->at >= map_bytes(e->count) && x->at <= FILE_MAX;
}

bool ns_share_write(struct ns_estate *e, struct ns_share *x, const struct iovec *pieces, int count)
{
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += pieces[i].iov_len;
    if (!make_room(e, x, bytes) || !ns_file_may_hold(x->at + bytes))
        return false;
    uint64_t to = x->at;
    for (int i = 0; i < count; i++) {
        if (ns_syscall6(SYS_pwrite64, e->fd, (long)pieces[i].iov_base, (long)pieces[i].iov_len, (long)to, 0,
                        0) != (long)pieces[i].iov_len)
            return false;
        to += pieces[i].iov_len;
    }
    x->bytes = bytes;
    __atomic_fetch_add(&x->laid, 1, __ATOMIC_SEQ_CST);
    return true;
}

bool ns_share_read(struct ns_estate *e, const struct ns_share *x, uint64_t from, void *out, size_t bytes)
{
    uint64_t at = __atomic_load_n(&x->at, __ATOMIC_RELAXED),
             all = __atomic_load_n(&x->bytes, __ATOMIC_RELAXED);
    if (at > FILE_MAX || all > FILE_MAX || from > all || bytes > all - from)
        return false;
    return ns_syscall6(SYS_pread64, e->fd, (long)out, (long)bytes, (long)(at + from), 0, 0) == (long)bytes;
}
