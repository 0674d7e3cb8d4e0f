#include "engine/engine.h"

#include "engine/ask.h"
#include "engine/detect.h"
#include "engine/heirloom.h"
#include "engine/internal.h"
#include "engine/large.h"
#include "engine/last.h"
#include "engine/listener.h"
#include "engine/lock.h"
#include "engine/serve.h"
#include "engine/slot.h"
#include "engine/sock.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

struct ns_engine ns_engine NS_LARGE;
int32_t ns_engine_pid;

static struct ns_lock identity_lock;
static struct ns_identity identity;
static bool identity_made;

#define MASTERS 64
static struct {
    uint8_t peer[32];
    bool peer_is_client, set;
    struct ns_master master;
} masters[MASTERS] NS_LARGE;
static unsigned next_master;

struct ns_time ns_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (struct ns_time){ ts.tv_sec * 1000000000LL + ts.tv_nsec };
}

int ns_random(void *out, size_t bytes)
{
    ssize_t n = ns_sys_getrandom(out, bytes, 0);
    return n == (ssize_t)bytes ? 0 : n < 0 ? (int)n : -EIO;
}

/* ---- identity and agreement ---- */

const struct ns_identity *ns_identity(void)
{
    sigset_t saved;
    uint8_t random[48];
    if (__atomic_load_n(&identity_made, __ATOMIC_ACQUIRE))
        return &identity;
    ns_lock_quiet(&identity_lock, &saved);
    if (!identity_made && ns_random(random, sizeof random) == 0 && ns_auth_identity(&identity, random) == 0)
        __atomic_store_n(&identity_made, true, __ATOMIC_RELEASE);
    explicit_bzero(random, sizeof random);
    bool made = identity_made;
    ns_unlock_quiet(&identity_lock, &saved);
    return made ? &identity : NULL;
}

void ns_identity_adopt(const struct ns_identity *from)
{
    sigset_t saved;
    ns_lock_quiet(&identity_lock, &saved);
    if (!identity_made) {
        identity = *from;
        __atomic_store_n(&identity_made, true, __ATOMIC_RELEASE);
    }
    ns_unlock_quiet(&identity_lock, &saved);
}

static bool find_master(struct ns_master *out, const uint8_t peer_key[32], bool peer_is_client)
{
    for (int i = 0; i < MASTERS; i++)
        if (masters[i].set && masters[i].peer_is_client == peer_is_client &&
            memcmp(masters[i].peer, peer_key, 32) == 0) {
            *out = masters[i].master;
            return true;
        }
    return false;
}

int ns_master_for(struct ns_master *out, const uint8_t peer_key[32], bool peer_is_client)
{
    sigset_t saved;
    const struct ns_identity *own = ns_identity();
    if (!own)
        return -EIO;
    ns_lock_quiet(&identity_lock, &saved);
    bool found = find_master(out, peer_key, peer_is_client);
    ns_unlock_quiet(&identity_lock, &saved);
    if (found)
        return 0;
    int err = ns_auth_master(out, own->secret_key, peer_key, peer_is_client ? peer_key : own->public_key,
                             peer_is_client ? own->public_key : peer_key, ns_engine.policy.psk,
                             ns_engine.policy.psk_bytes);
    if (err)
        return err;
    ns_lock_quiet(&identity_lock, &saved);
    unsigned i = next_master++ % MASTERS;
    memcpy(masters[i].peer, peer_key, 32);
    masters[i].peer_is_client = peer_is_client;
    masters[i].master = *out;
    masters[i].set = true;
    ns_unlock_quiet(&identity_lock, &saved);
    return 1;
}

/* Clients that children have met, once. */
#define MET_MAX 64
static uint8_t met[MET_MAX][32] NS_LARGE; /* identity_lock */
static unsigned next_met;

void ns_master_met(const uint8_t client_key[32])
{
    sigset_t saved;
    struct ns_master master;
    unsigned i = 0;
    ns_lock_quiet(&identity_lock, &saved);
    bool known = find_master(&master, client_key, true);
    while (i < MET_MAX && memcmp(met[i], client_key, 32) != 0)
        i++;
    if (!known && i == MET_MAX)
        memcpy(met[next_met++ % MET_MAX], client_key, 32);
    ns_unlock_quiet(&identity_lock, &saved);
    if (!known && i < MET_MAX && ns_master_for(&master, client_key, true) == 1)
        ns_debug("the key in common with a client that children meet again is kept");
    explicit_bzero(&master, sizeof master);
}

/* ---- log ---- */

static int64_t wall_us(void *ctx)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

/* A write beyond RLIMIT_FSIZE would raise SIGXFSZ, which kills (setrlimit(2)): sshd sets
 * it to 0 in its process without privileges. Nothing is worth that. */
static bool within_limit(int fd, size_t bytes)
{
    struct rlimit limit;
    struct stat file;
    if (ns_syscall6(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, (long)&limit, 0, 0) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return true;
    return fstat(fd, &file) == 0 &&
           (!S_ISREG(file.st_mode) || (uint64_t)file.st_size + bytes <= limit.rlim_cur);
}

static void to_file(void *ctx, enum ns_log_level level, const char *line, size_t bytes)
{
    if (within_limit(ns_engine.log_fd, bytes))
        ns_sys_write(ns_engine.log_fd, line, bytes);
}

void ns_tell(const char *format, ...)
{
    char line[512];
    if (!ns_engine.policy.verbose)
        return;
    int saved = errno;
    va_list ap;
    int n = snprintf(line, sizeof line, "namesocket: ");
    va_start(ap, format);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, ap);
    va_end(ap);
    if (n > (int)sizeof line - 2)
        n = sizeof line - 2;
    line[n++] = '\n';
    ns_sys_write(2, line, (size_t)n);
    errno = saved;
}

static void open_log(void)
{
    time_t now = time(NULL);
    struct tm tm;
    ns_engine.log_fd = -1;
    if (!ns_engine.policy.log_file[0])
        return;
    ns_engine.log_fd = ns_internal(ns_sys_openat(AT_FDCWD, ns_engine.policy.log_file,
                                                 O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (ns_engine.log_fd < 0) {
        ns_tell("no log: cannot write %s: %s", ns_engine.policy.log_file, strerror(-ns_engine.log_fd));
        return;
    }
    ns_internal_inherit(ns_engine.log_fd);
    ns_engine.log = (struct ns_log){ .level = ns_engine.policy.log_level,
                                     .sink = to_file,
                                     .wall_us = wall_us,
                                     .pid = &ns_engine_pid,
                                     .microseconds = ns_engine.policy.log_microseconds };
    if (localtime_r(&now, &tm))
        ns_engine.log.utc_offset_s = (int32_t)tm.tm_gmtoff;
}

/* ---- starting ---- */

/* Not sscanf nor strtoul: what those touch of libc no small program touches otherwise. */
unsigned ns_number_at(const char **text)
{
    unsigned n = 0;
    while (**text == ' ' || **text == '\t')
        ++*text;
    for (; **text >= '0' && **text <= '9' && n < 100000000; ++*text)
        n = 10 * n + (unsigned)(**text - '0');
    return n;
}

static void read_ephemeral_range(void)
{
    char text[64] = "";
    const char *at = text;
    int fd = ns_sys_openat(AT_FDCWD, "/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    ns_sys_read(fd, text, sizeof text - 1);
    ns_sys_close(fd);
    unsigned low = ns_number_at(&at), high = ns_number_at(&at);
    if (high > 0 && low <= high && high < 65536) {
        ns_engine.policy.ephemeral_low = (uint16_t)low;
        ns_engine.policy.ephemeral_high = (uint16_t)high;
    }
}

struct faults {
    bool any, key;
};

static void note(void *ctx, const char *key, int error, const char *line)
{
    struct faults *f = ctx;
    f->any = true;
    f->key |= strcmp(key, "PSK") == 0;
}

static void complain(void *ctx, const char *key, int error, const char *line)
{
    ns_error("ignored: %s", line);
    ns_tell("ignored: %s", line);
}

static void read_settings(struct faults *f)
{
    ns_policy_defaults(&ns_engine.policy);
    ns_policy_read(&ns_engine.policy, environ, note, f);
    open_log();
    if (f->any) /* once more, now that it is known where to say so */
        ns_policy_read(&ns_engine.policy, environ, complain, NULL);
}

int ns_engine_init(void)
{
    int saved = errno;
    struct faults faults = { 0 };
    ns_engine_pid = ns_sys_getpid();
    read_settings(&faults);
    /* Whoever sets a key wants no session without one. */
    int err = faults.key ? -EINVAL : ns_slots_init(ns_last_main_leaves);
    if (err == 0)
        err = ns_table_init();
    if (err) {
        const char *why = faults.key ? "the pre-shared key is bad" : strerror(-err);
        ns_error("nothing is protected: %s", why);
        ns_tell("nothing is protected: %s", why);
        ns_heirloom_refuse();
    } else if (!ns_heirloom_take()) {
        read_ephemeral_range();
    }
    errno = saved;
    return err;
}

/* Parent and child are one to their peers: a NEW for the one may be read by the other. */
void ns_engine_fork_prepare(void)
{
    if (ns_objects)
        ns_identity();
    ns_lock(&identity_lock);
}

void ns_engine_fork_parent(void)
{
    ns_unlock(&identity_lock);
}

NS_EACH_FORK void ns_engine_fork_child(void)
{
    ns_lock_reset(&identity_lock);
    ns_engine_pid = ns_sys_getpid();
}
