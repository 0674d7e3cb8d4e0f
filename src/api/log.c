/* The program's own say over logging (thesis 5.1.4). */
#include "namesocket.h"

#include "api/api.h"
#include "engine/engine.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * Lines come from any thread, the program's sink is called by one at a time.
 * The lock is taken across fork, so that a child never inherits it held.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static namesocket_log_sink sink;
static void *sink_ctx;
static int sink_level = NAMESOCKET_LOG_NONE;

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&lock);
}

static void to_standard_error(const char *line, size_t bytes)
{
    ssize_t n;

    do
        n = write(STDERR_FILENO, line, bytes);
    while (n < 0 && errno == EINTR);
}

/* An engine sink; leaves errno alone, as ns_log promises. */
static void pass_on(void *unused, enum ns_log_level level, const char *line, size_t bytes)
{
    char text[NS_LOG_LINE_BYTES];
    int saved = errno;

    if (bytes > sizeof(text))
        bytes = sizeof(text);
    pthread_mutex_lock(&lock);
    if ((int)level <= sink_level && !sink) {
        to_standard_error(line, bytes);
    } else if ((int)level <= sink_level && bytes) {
        memcpy(text, line, bytes - 1);
        text[bytes - 1] = '\0';
        sink(sink_ctx, (int)level, text);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
}

/* What the engine had set up before any call here: NAMESOCKET_LOG_FILE, or NULL. */
static void (*engine_sink)(void *ctx, enum ns_log_level level, const char *line, size_t bytes);

static int64_t wall_us(void *unused)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

/* Without NAMESOCKET_LOG_FILE the engine has not looked at clock and process. It keeps its
 * process's number true across fork. */
static void take_over(void)
{
    time_t now = time(NULL);
    struct tm local;

    engine_sink = ns_engine.log.sink;
    if (!engine_sink) {
        ns_engine.log.wall_us = wall_us;
        ns_engine.log.microseconds = ns_engine.policy.log_microseconds;
        ns_engine.log.pid = &ns_engine_pid;
        ns_engine.log.utc_offset_s = localtime_r(&now, &local) ? (int32_t)local.tm_gmtoff : 0;
    }
    pthread_atfork(before_fork, after_fork, after_fork);
}

int namesocket_set_log(int level, namesocket_log_sink new_sink, void *ctx)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    bool to_file;

    if (level < NAMESOCKET_LOG_NONE || level > NAMESOCKET_LOG_DEBUG)
        return (int)ns_api_result(-EINVAL);
    if (!ns_api_start())
        return 0; /* there is no engine that would log */
    pthread_once(&once, take_over);

    pthread_mutex_lock(&lock);
    sink = new_sink;
    sink_ctx = ctx;
    sink_level = level;
    to_file = !new_sink && level != NAMESOCKET_LOG_NONE && ns_engine.log_fd >= 0 && engine_sink;
    /* Threads read both without a lock, and either order is harmless: pass_on looks at the level again. */
    __atomic_store_n(&ns_engine.log.sink, to_file ? engine_sink : pass_on, __ATOMIC_RELEASE);
    __atomic_store_n(&ns_engine.log.level, (enum ns_log_level)(level < 0 ? 0 : level), __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    return 0;
}
