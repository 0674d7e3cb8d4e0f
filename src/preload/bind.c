/*
 * Binding to libc, and the shim's beginning and end.
 *
 * All lookups are made once, here. dlsym fails only for a function that libc
 * lacks, and only failing allocates (the text for dlerror), so that an
 * allocator that starts up underneath us finds ns_real usable as it is.
 *
 * Not linked with -z initfirst: that would run the constructor before libc's
 * own, when the environment is not there yet.
 */
#include <dlfcn.h>
#include <pthread.h>

#include "engine/libc.h"
#include "engine/signals.h"
#include "preload/interpose.h"
#include "preload/next.h"
#include "preload/stream.h"

/* The library has a table of its own (src/api/libc.c): one for each face of the engine. */
struct ns_libc ns_libc;

static void bind_one(void *slot, const char *name)
{
    void *found = ns_next_find(name);

    if (!found)
        found = dlsym(RTLD_NEXT, name);
    if (found)
        __atomic_store_n((void **)slot, found, __ATOMIC_RELEASE);
}

void ns_bind(void)
{
    int saved = errno;

#define X(result, name, args) bind_one(&ns_real.name, #name);
    NS_REAL_PLAIN(X)
#undef X
#define X(result, failure, name, params, args) bind_one(&ns_real.name, #name);
    NS_REAL_WHOLE(X)
#undef X
    bind_one(&ns_real.quick_exit, "quick_exit");
    errno = saved;
}

/* What the engine calls as the application would. */
static void fill_libc(void)
{
    ns_libc.recv = ns_real.recv;
    ns_libc.recvmsg = ns_real.recvmsg;
    ns_libc.read = ns_real.read;
    ns_libc.accept4 = ns_real.accept4;
    ns_libc.connect = ns_real.connect;
    ns_libc.ppoll = ns_real.ppoll;
    ns_libc.epoll_pwait = ns_real.epoll_pwait;
}

static void fork_prepare(void)
{
    if (ns_ready())
        ns_fork_prepare();
}

static void fork_parent(void)
{
    if (ns_ready())
        ns_fork_parent();
}

static void fork_child(void)
{
    if (ns_ready())
        ns_fork_child();
    else if (ns_table)
        ns_quiet_fork_child();
}

/*
 * fork is not interposed: these run in every fork that libc makes, daemon(3)
 * and forkpty(3) included, which call it inside libc. Where they cannot be
 * registered, a child could not be told from its parent: nothing is protected.
 */
static __attribute__((constructor)) void begin(void)
{
    int saved = errno;
    const char *own_path = ns_next_begin(&ns_libc);

    ns_bind();
    fill_libc();
    ns_signals_seen = true;
    ns_exec_learn(own_path); /* the next program must be able to load it, too */
    if (pthread_atfork(fork_prepare, fork_parent, fork_child) == 0)
        ns_engine_init();
    for (int fd = 0; fd <= 2; fd++)
        ns_std_check(fd);
    errno = saved;
}

/* exit(3) comes by here; the ways past it are in process.c. */
static __attribute__((destructor)) void end(void)
{
    if (!ns_ready())
        return;
    ns_streams_flush();
    ns_process_exiting();
}
