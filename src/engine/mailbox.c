#include "engine/mailbox.h"

#include "engine/engine.h"
#include "engine/hello.h"
#include "engine/internal.h"
#include "engine/joint.h"
#include "engine/large.h"
#include "engine/lock.h"
#include "engine/record.h"
#include "engine/ready.h"
#include "engine/serve.h"
#include "engine/sys.h"
#include "engine/thread.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

enum { PASSED = 1, MUTE = 2, JOINT = 3 };

struct letter {
    uint8_t kind;
    union {
        uint8_t packet[NS_PACKET_BYTES_RESUME];
        struct ns_joint_question question;
    };
};

static struct ns_lock lock;
static uint8_t own[NS_MAILBOX_BYTES], parents[NS_MAILBOX_BYTES];
static bool have_parent;

static void arrived(struct ns_source *source, uint32_t events, struct ns_time now);
static struct ns_source source = { .fd = -1, .ready = arrived };
static bool opened; /* atomic */

/* ---- names: in the abstract namespace, so that nothing is left behind (unix(7)) ---- */

static socklen_t address_of(const uint8_t name[NS_MAILBOX_BYTES], struct sockaddr_un *out)
{
    static const char prefix[] = "namesocket/";
    *out = (struct sockaddr_un){ .sun_family = AF_UNIX };
    char *at = out->sun_path + 1;
    memcpy(at, prefix, sizeof prefix - 1);
    at += sizeof prefix - 1;
    for (int i = 0; i < NS_MAILBOX_BYTES; i++, at += 2)
        snprintf(at, 3, "%02x", name[i]);
    return (socklen_t)(at - (char *)out);
}

static int open_locked(void)
{
    struct sockaddr_un name;
    int err = ns_random(own, sizeof own);
    if (err < 0)
        return err;
    int fd = ns_internal(ns_sys_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0)
        return fd;
    ns_sys_set_int(fd, SOL_SOCKET, SO_PASSCRED, 1);
    err = ns_sys_bind(fd, (struct sockaddr *)&name, address_of(own, &name));
    source.fd = fd;
    if (err == 0)
        err = ns_loop_add(&source, EPOLLIN);
    if (err < 0) {
        ns_internal_close(fd);
        source.fd = -1;
    }
    return err;
}

const uint8_t *ns_mailbox(void)
{
    sigset_t saved;
    if (__atomic_load_n(&opened, __ATOMIC_ACQUIRE))
        return own;
    if (!ns_helper_running())
        return NULL;
    ns_lock_quiet(&lock, &saved);
    if (!opened && open_locked() == 0)
        __atomic_store_n(&opened, true, __ATOMIC_RELEASE);
    bool open = opened;
    ns_unlock_quiet(&lock, &saved);
    return open ? own : NULL;
}

/* ---- sending ---- */

static bool send_letter(const uint8_t to[NS_MAILBOX_BYTES], const struct letter *l, int passed)
{
    struct sockaddr_un name;
    socklen_t len = address_of(to, &name);
    int fd = ns_sys_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool sent = ns_sys_connect(fd, (struct sockaddr *)&name, len) == 0 &&
                ns_record_send(fd, l, sizeof *l, &passed, 1) == sizeof *l;
    ns_sys_close(fd);
    return sent;
}

bool ns_mailbox_pass(const uint8_t to[NS_MAILBOX_BYTES], int fd, const uint8_t *packet, size_t bytes)
{
    struct letter l = { .kind = PASSED };
    if (bytes != sizeof l.packet)
        return false;
    memcpy(l.packet, packet, bytes);
    return send_letter(to, &l, fd);
}

bool ns_mailbox_ask(const uint8_t to[NS_MAILBOX_BYTES], int fd, const struct ns_joint_question *q)
{
    struct letter l = { .kind = JOINT };
    l.question = *q;
    return send_letter(to, &l, fd);
}

bool ns_mailbox_mute_parent(void)
{
    struct letter l = { .kind = MUTE };
    return have_parent && send_letter(parents, &l, -1);
}

bool ns_mailbox_parents(uint8_t out[NS_MAILBOX_BYTES])
{
    memcpy(out, parents, sizeof parents);
    return have_parent;
}

void ns_mailbox_set_parents(const uint8_t name[NS_MAILBOX_BYTES])
{
    memcpy(parents, name, sizeof parents);
    have_parent = true;
}

/* ---- receiving ---- */

/* The name can be read in /proc/net/unix: a letter counts only from the own user, or root. */
static bool trusted(uid_t from)
{
    return from == 0 || from == (uid_t)ns_syscall6(SYS_geteuid, 0, 0, 0, 0, 0, 0) ||
           from == (uid_t)ns_syscall6(SYS_getuid, 0, 0, 0, 0, 0, 0);
}

ssize_t ns_mailbox_receive(int fd, void *data, size_t bytes, int *passed, uid_t *from)
{
    size_t count;
    *from = (uid_t)-1;
    *passed = -1;
    ssize_t n = ns_record_receive(fd, data, bytes, passed, 1, &count, from);
    *passed = ns_internal(*passed);
    return n <= 0 || trusted(*from) ? n : -EPERM;
}

static void arrived(struct ns_source *s, uint32_t events, struct ns_time now)
{
    struct letter l;
    uid_t from;
    int fd;
    bool good = ns_mailbox_receive(s->fd, &l, sizeof l, &fd, &from) == sizeof l;
    if (good && l.kind == MUTE)
        ns_hello_mute();
    if (good && l.kind == PASSED && fd >= 0)
        ns_serve_take_passed(fd, l.packet, sizeof l.packet, true, now);
    else if (good && l.kind == JOINT && fd >= 0)
        ns_joint_asked(&l.question, from, fd, now);
    else
        ns_internal_close(fd);
}

/* ---- fork ---- */

void ns_mailbox_fork_prepare(void)
{
    if (__atomic_load_n(&ns_count_listeners, __ATOMIC_RELAXED))
        ns_mailbox();
}

NS_EACH_FORK void ns_mailbox_fork_child(void)
{
    ns_lock_reset(&lock);
    if (opened) {
        memcpy(parents, own, sizeof own);
        have_parent = true;
    }
    opened = false;
    source.fd = -1;
}
