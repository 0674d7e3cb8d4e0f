#include "engine/watch.h"

#include "engine/connect.h"
#include "engine/door.h"
#include "engine/engine.h"
#include "engine/inbox.h"
#include "engine/internal.h"
#include "engine/large.h"
#include "engine/listener.h"
#include "engine/ready.h"
#include "engine/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define READING (EPOLLIN | EPOLLRDNORM)

#define HASH_SIZE 1024
static struct ns_watch *by_data[HASH_SIZE] NS_LARGE;
static struct ns_watch *free_watches;

static struct ns_watch **bucket(const struct ns_object *epoll, uint64_t data)
{
    uint64_t h = (data ^ (uintptr_t)epoll) * 0x9E3779B97F4A7C15u;
    return &by_data[h >> 54];
}

static void hash_in(struct ns_watch *w)
{
    struct ns_watch **b = bucket(w->epoll, w->event.data.u64);
    w->hash_next = *b;
    *b = w;
}

static void hash_out(struct ns_watch *w)
{
    struct ns_watch **p = bucket(w->epoll, w->event.data.u64);
    while (*p && *p != w)
        p = &(*p)->hash_next;
    if (*p)
        *p = w->hash_next;
}

static struct ns_watch *watch_new(void)
{
    if (!free_watches) {
        size_t bytes = 16384;
        struct ns_watch *w = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (w == MAP_FAILED)
            return NULL;
        for (size_t i = 0; i < bytes / sizeof *w; i++) {
            w[i].next = free_watches;
            free_watches = &w[i];
        }
    }
    struct ns_watch *w = free_watches;
    free_watches = w->next;
    *w = (struct ns_watch){ .stand_in = -1, .companion = -1 };
    return w;
}

static struct ns_watch *matching(struct ns_watch *w, const struct ns_object *epoll, uint64_t data)
{
    while (w && (w->epoll != epoll || w->event.data.u64 != data || ns_object_at(w->fd) != w->object))
        w = w->hash_next;
    return w;
}

struct ns_watch *ns_watch_with(const struct ns_object *epoll, uint64_t data)
{
    return matching(*bucket(epoll, data), epoll, data);
}

struct ns_watch *ns_watch_also(const struct ns_watch *w)
{
    return matching(w->hash_next, w->epoll, w->event.data.u64);
}

/* What the kernel has now for a one-shot registration: whether it still is
 * armed. (proc(5), /proc/pid/fdinfo of an epoll descriptor.) */
static uint32_t armed_as(const struct ns_watch *w, int registered)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", w->epoll->fd);
    int fd = ns_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return w->event.events;
    uint32_t found = w->event.events;
    char want[32];
    int len = snprintf(want, sizeof want, "tfd: %8d ", registered);
    size_t kept = 0;
    ssize_t n;
    while ((n = ns_sys_read(fd, text + kept, sizeof text - 1 - kept)) > 0) {
        kept += (size_t)n;
        text[kept] = '\0';
        char *line = text, *end;
        while ((end = strchr(line, '\n'))) {
            char *events = strstr(line, "events:");
            if (strncmp(line, want, (size_t)len) == 0 && events && events < end)
                found = (uint32_t)strtoul(events + 7, NULL, 16);
            line = end + 1;
        }
        kept = (size_t)(text + kept - line);
        memmove(text, line, kept);
    }
    ns_sys_close(fd);
    return found;
}

static uint32_t armed_events(const struct ns_watch *w)
{
    return armed_as(w, w->fd);
}

/* ---- stand-ins ---- */

static uint32_t stand_in_events(uint32_t events)
{
    return events & (EPOLLIN | EPOLLRDNORM | EPOLLET | EPOLLONESHOT);
}

static void stand_in_off(struct ns_watch *w)
{
    if (w->stand_in < 0)
        return;
    /* A copy in a child that libc did not make would keep it registered (epoll(7), Q6). */
    ns_sys_epoll_ctl(w->epoll->fd, EPOLL_CTL_DEL, w->stand_in, NULL);
    ns_internal_close(w->stand_in);
    w->stand_in = -1;
}

static void stand_in_on(struct ns_watch *w)
{
    struct epoll_event e = { .events = stand_in_events(w->event.events), .data = w->event.data };
    if (!(w->event.events & (EPOLLIN | EPOLLRDNORM)))
        return;
    if (w->stand_in >= 0) {
        ns_sys_epoll_ctl(w->epoll->fd, EPOLL_CTL_MOD, w->stand_in, &e);
        return;
    }
    w->stand_in = ns_internal(ns_sys_eventfd2(1, EFD_CLOEXEC));
    if (w->stand_in >= 0)
        ns_sys_epoll_ctl(w->epoll->fd, EPOLL_CTL_ADD, w->stand_in, &e);
}

void ns_watch_stand_in(struct ns_object *o, bool on)
{
    for (struct ns_watch *w = o->watches; w; w = w->next) {
        if (on)
            stand_in_on(w);
        else
            stand_in_off(w);
    }
}

/* ---- companions ---- */

/* The application has been told, and has not asked to be told again. */
static bool told(const struct ns_watch *w)
{
    return (w->event.events & EPOLLONESHOT) &&
           (!(armed_as(w, w->fd) & READING) || (w->stand_in >= 0 && !(armed_as(w, w->stand_in) & READING)));
}

static void companion_on(struct ns_watch *w, bool armed)
{
    const struct ns_listener *l = (const struct ns_listener *)w->object;
    struct epoll_event e = { .events = stand_in_events(w->event.events), .data = w->event.data };
    if (w->object->kind != NS_KIND_LISTENER || !l->accompanied || !(w->event.events & READING))
        return;
    if (!armed)
        e.events &= ~(uint32_t)READING;
    /* A parent, or a child, may have taken it out. */
    if (w->companion >= 0 && ns_sys_epoll_ctl(w->epoll->fd, EPOLL_CTL_MOD, w->companion, &e) != -ENOENT)
        return;
    if (w->companion < 0)
        w->companion = ns_internal(ns_sys_fcntl(l->backlog.out, F_DUPFD_CLOEXEC, 0));
    if (w->companion < 0)
        return;
    ns_internal_inherit(w->companion);
    ns_sys_epoll_ctl(w->epoll->fd, EPOLL_CTL_ADD, w->companion, &e);
}

/* What is only closed stays in the epoll descriptor for as long as another process has it open, as the listener itself does:
 * the descriptor may be another's, too. */
static void companion_off(struct ns_watch *w, bool asked)
{
    if (w->companion < 0)
        return;
    if (asked)
        ns_sys_epoll_ctl(w->epoll->fd, EPOLL_CTL_DEL, w->companion, NULL);
    ns_internal_close(w->companion);
    w->companion = -1;
}

void ns_watch_accompany(struct ns_object *o, bool on)
{
    for (struct ns_watch *w = o->watches; w; w = w->next) {
        if (on)
            companion_on(w, !told(w));
        else
            companion_off(w, false);
    }
}

/* ---- in and out of the kernel ---- */

/* A registration is the socket's, and stays when its number is closed, which may be another's
 * by now (epoll(7), Q6). */
static int ctl(const struct ns_watch *w, int op, struct epoll_event *event)
{
    return ns_object_at(w->fd) == w->object ? ns_sys_epoll_ctl(w->epoll->fd, op, w->fd, event) : -EBADF;
}

/* A one-shot registration that has fired is left to the application: the kernel
 * has taken even EPOLLERR off it. */
static bool fired(const struct ns_watch *w)
{
    return (w->event.events & EPOLLONESHOT) && !(armed_events(w) & EPOLLERR);
}

void ns_watch_suspend(struct ns_object *o)
{
    for (struct ns_watch *w = o->watches; w; w = w->next) {
        if (w->removed)
            continue;
        if ((w->event.events & EPOLLONESHOT) && (!w->muted || fired(w)))
            w->event.events = armed_events(w);
        w->muted = false;
        ctl(w, EPOLL_CTL_DEL, NULL);
        w->removed = true;
    }
}

void ns_watch_resume(struct ns_object *o)
{
    for (struct ns_watch *w = o->watches; w; w = w->next) {
        if (!w->removed)
            continue;
        if (ns_object_at(w->fd) != o) {
            w->fd = o->fd;
            w->strayed = true;
        }
        ctl(w, EPOLL_CTL_ADD, &w->event);
        w->removed = false;
    }
}

void ns_watch_renew(struct ns_object *o)
{
    for (struct ns_watch *w = o->watches; w; w = w->next) {
        struct epoll_event e = w->event;
        if (w->removed || w->muted)
            continue;
        if (e.events & EPOLLONESHOT)
            e.events = armed_events(w);
        ctl(w, EPOLL_CTL_MOD, &e);
    }
}

static bool held(const struct ns_object *o)
{
    return o->kind == NS_KIND_SOCK && ns_sock_held((const struct ns_sock *)o);
}

static int put_muted(struct ns_watch *w, int op, bool muted)
{
    struct epoll_event e = w->event;
    if (muted)
        e.events &= ~(uint32_t)NS_WRITING;
    w->muted = muted && (w->event.events & NS_WRITING);
    return ctl(w, op, &e);
}

void ns_watch_mute(struct ns_object *o)
{
    /* Who ends it does so before he takes the table and unmutes. */
    if (!held(o))
        return;
    for (struct ns_watch *w = o->watches; w; w = w->next)
        if (!w->removed && !w->muted && (w->event.events & NS_WRITING) && !fired(w))
            put_muted(w, EPOLL_CTL_MOD, true);
}

void ns_watch_mute_now(struct ns_sock *s)
{
    struct ns_hold hold;
    ns_table_hold(&hold);
    ns_watch_mute(&s->o);
    ns_table_unhold(&hold);
}

void ns_watch_unmute(struct ns_object *o)
{
    for (struct ns_watch *w = o->watches; w; w = w->next) {
        bool again = w->muted && !w->removed && !fired(w);
        w->muted = false;
        if (again)
            put_muted(w, EPOLL_CTL_MOD, false);
    }
}

void ns_watch_rearm(struct ns_watch *w)
{
    companion_on(w, true);
    put_muted(w, EPOLL_CTL_MOD, held(w->object));
}

void ns_watch_take_out(struct ns_watch *w)
{
    ctl(w, EPOLL_CTL_DEL, NULL);
    w->removed = true;
}

/* ---- bookkeeping ---- */

static struct ns_watch *find(struct ns_object *o, struct ns_object *epoll, int fd)
{
    for (struct ns_watch *w = o->watches; w; w = w->next)
        if (w->epoll == epoll && w->fd == fd && !w->strayed)
            return w;
    return NULL;
}

/* One that the application knows under another number; the kernel has one place for both. */
static struct ns_watch *find_strayed(struct ns_object *o, struct ns_object *epoll, int fd)
{
    for (struct ns_watch *w = o->watches; w; w = w->next)
        if (w->epoll == epoll && w->fd == fd && w->strayed)
            return w;
    return NULL;
}

NS_EACH_FORK void ns_watch_fork_child(void)
{
    for (struct ns_object *o = ns_objects; o; o = o->next)
        for (struct ns_watch *w = o->kind == NS_KIND_EPOLL ? NULL : o->watches; w; w = w->next)
            w->stand_in = -1;
}

static void unlink_from(struct ns_watch **list, struct ns_watch *w, bool in)
{
    while (*list && *list != w)
        list = in ? &(*list)->next_in : &(*list)->next;
    if (*list)
        *list = in ? w->next_in : w->next;
}

static void drop(struct ns_watch *w)
{
    stand_in_off(w);
    companion_off(w, false);
    hash_out(w);
    unlink_from(&w->object->watches, w, false);
    unlink_from(&w->epoll->watches, w, true);
    w->next = free_watches;
    free_watches = w;
}

void ns_watch_drop_all(struct ns_object *o)
{
    while (o->watches)
        drop(o->watches);
}

void ns_watch_drop_in(struct ns_object *epoll)
{
    drop(epoll->watches);
}

static struct ns_object *epoll_object(int epfd)
{
    struct ns_object *o = ns_object_at(epfd);
    if (o)
        return o->kind == NS_KIND_EPOLL ? o : NULL;
    if ((unsigned)epfd >= NS_FD_MAX || !(o = ns_object_new(NS_KIND_EPOLL)))
        return NULL;
    ns_table_put(epfd, o);
    return o;
}

static bool readable_anyway(struct ns_object *o)
{
    if (o->kind == NS_KIND_LISTENER)
        return ns_listener_hidden((struct ns_listener *)o);
    return o->kind == NS_KIND_SOCK && ns_inbox_readable((struct ns_sock *)o);
}

static void link_in(struct ns_watch *w, struct ns_object *o, struct ns_object *epoll, int fd,
                    const struct epoll_event *event)
{
    w->object = o;
    w->epoll = epoll;
    w->fd = fd;
    w->event = *event;
    w->next = o->watches;
    o->watches = w;
    w->next_in = epoll->watches;
    epoll->watches = w;
    hash_in(w);
}

/* What the kernel would not take, which is not asked while there is no connection
 * (fs/eventpoll.c, EPOLLEXCLUSIVE_OK_BITS). */
static bool refused(uint32_t events, bool modify)
{
    const uint32_t beside = EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
    return events & EPOLLEXCLUSIVE && (modify || events & ~beside);
}

static int add(struct ns_object *o, struct ns_object *epoll, int epfd, int fd,
               const struct epoll_event *event)
{
    if (refused(event->events, false))
        return -EINVAL;
    if (find(o, epoll, fd))
        return -EEXIST;
    if (o->kind == NS_KIND_LISTENER)
        ns_door_attend((struct ns_listener *)o);
    struct ns_watch *strayed = find_strayed(o, epoll, fd);
    if (strayed) {
        if (!strayed->removed)
            ctl(strayed, EPOLL_CTL_DEL, NULL);
        drop(strayed);
    }
    bool later = ns_object_suspended(o);
    int err = later ? 0 : ns_sys_epoll_ctl(epfd, EPOLL_CTL_ADD, fd, (struct epoll_event *)event);
    if (err < 0)
        return err;
    struct ns_watch *w = watch_new();
    if (!w)
        return 0;
    link_in(w, o, epoll, fd, event);
    w->removed = later;
    if (held(o))
        put_muted(w, EPOLL_CTL_MOD, true);
    if (readable_anyway(o))
        stand_in_on(w);
    companion_on(w, true);
    return 0;
}

static int modify(struct ns_watch *w, int epfd, int fd, const struct epoll_event *event)
{
    struct epoll_event kernels = *event;
    if (refused(event->events, true) || w->event.events & EPOLLEXCLUSIVE)
        return -EINVAL;
    bool muted = held(w->object) && (event->events & NS_WRITING);
    if (muted)
        kernels.events &= ~(uint32_t)NS_WRITING;
    int err = w->removed ? 0 : ns_sys_epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &kernels);
    if (err < 0)
        return err;
    hash_out(w);
    w->event = *event;
    w->told_writable = false;
    w->muted = muted;
    hash_in(w);
    if (readable_anyway(w->object)) {
        stand_in_off(w);
        stand_in_on(w);
    }
    if (event->events & READING)
        companion_on(w, true);
    else
        companion_off(w, true);
    return 0;
}

/* The last registration of descriptors that are nothing to us yet: many a program
 * registers a socket and connects it after that. */
static struct early {
    int epfd; /* plus one; 0 for none */
    struct epoll_event event;
} * early;

static void note_early(int epfd, int op, int fd, const struct epoll_event *event)
{
    if (!early && ns_table) {
        void *p = mmap(NULL, NS_FD_MAX * sizeof *early, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        struct early *none = NULL;
        if (p == MAP_FAILED)
            return;
        if (!__atomic_compare_exchange_n(&early, &none, p, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            munmap(p, NS_FD_MAX * sizeof *early);
    }
    if (!early || (unsigned)fd >= NS_FD_MAX)
        return;
    early[fd].epfd = op == EPOLL_CTL_DEL ? 0 : epfd + 1;
    if (event)
        early[fd].event = *event;
}

void ns_watch_adopt(struct ns_object *o, int fd)
{
    if (!early || early[fd].epfd == 0)
        return;
    int epfd = early[fd].epfd - 1;
    struct epoll_event event = early[fd].event;
    early[fd].epfd = 0;
    /* The kernel knows whether it stands still. */
    if (ns_sys_epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event) < 0)
        return;
    struct ns_object *epoll = epoll_object(epfd);
    struct ns_watch *w = epoll ? watch_new() : NULL;
    if (w)
        link_in(w, o, epoll, fd, &event);
}

int ns_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    struct ns_hold hold;
    if (!ns_object_at(fd))
        note_early(epfd, op, fd, op == EPOLL_CTL_DEL ? NULL : event);
    if (!ns_object_at(fd) || (op != EPOLL_CTL_DEL && !event))
        return NS_NOT_OURS;
    if (op != EPOLL_CTL_DEL)
        ns_object_awake(fd); /* which takes a while where another process has it: table not held */
    ns_table_hold(&hold);
    struct ns_object *o = op == EPOLL_CTL_DEL ? ns_object_at(fd) : ns_object_awake(fd);
    struct ns_object *epoll = o ? epoll_object(epfd) : NULL;
    int r = NS_NOT_OURS;
    if (o && o->kind != NS_KIND_EPOLL && o->kind != NS_KIND_RELAYED && epoll) {
        struct ns_watch *w = find(o, epoll, fd);
        if (op == EPOLL_CTL_ADD) {
            r = add(o, epoll, epfd, fd, event);
        } else if (w && op == EPOLL_CTL_MOD) {
            r = modify(w, epfd, fd, event);
        } else if (w && op == EPOLL_CTL_DEL) {
            r = w->removed ? 0 : ns_sys_epoll_ctl(epfd, op, fd, event);
            companion_off(w, true);
            drop(w);
        } else if (ns_object_suspended(o) || find_strayed(o, epoll, fd)) {
            r = -ENOENT;
        }
    }
    ns_table_unhold(&hold);
    return r;
}
