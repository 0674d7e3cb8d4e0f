/* The engine's life inside a program that is linked with the library. */
#include "api/api.h"

#include "engine/socket.h"
#include "namesocket.h"

#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_bool started;

static int is_shim(struct dl_phdr_info *object, size_t size, void *unused)
{
    const char *slash = object->dlpi_name ? strrchr(object->dlpi_name, '/') : NULL;

    return slash && strncmp(slash, "/libnsshim.so", 13) == 0;
}

/*
 * Two engines must not look after one descriptor: each would take the other's
 * reconnecting for the application's. The shim was asked for by whoever runs
 * the program, so it is the one that stays.
 */
static void start(void)
{
    if (dl_iterate_phdr(is_shim, NULL))
        return;
    if (ns_engine_init() < 0)
        return;
    if (pthread_atfork(ns_fork_prepare, ns_fork_parent, ns_fork_child) != 0)
        return;
    atomic_store(&started, true);
}

bool ns_api_start(void)
{
    pthread_once(&once, start);
    return atomic_load_explicit(&started, memory_order_relaxed);
}

bool ns_api_started(void)
{
    return atomic_load_explicit(&started, memory_order_acquire);
}

/* Bytes that an application has sent are to arrive though it ends at once. */
__attribute__((destructor)) static void end(void)
{
    if (ns_api_started())
        ns_process_exiting();
}

ssize_t ns_api_result(ssize_t result)
{
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

const char *namesocket_version(void)
{
    return NAMESOCKET_VERSION;
}
