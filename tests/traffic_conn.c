#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define FNV_BASIS UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)
#define URGENT_EVERY_BYTES 65536
#define SEARCH_BYTES (8 << 20)

static const char BANNER[16] = "traffic: hello.\n";
static const uint8_t OPENING_MAGIC[4] = { 'T', 'R', 'A', 'F' };

static struct totals {
    _Atomic uint64_t in, out;
    atomic_uint in_ended;
} own_totals, *totals = &own_totals;

// SplitMix64's output function: any position of a stream can be made without the ones before it.
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void stream_bytes(const struct conn *c, bool from_server, uint64_t position, uint8_t *p, size_t n)
{
    uint64_t key = mix(c->seed ^ mix(c->number * 2 + from_server));
    while (n > 0) {
        uint64_t word = mix(key + position / 8);
        size_t at = position % 8, part = 8 - at < n ? 8 - at : n;
        memcpy(p, (uint8_t *)&word + at, part);
        p += part, position += part, n -= part;
    }
}

static uint64_t hash_bytes(uint64_t hash, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * FNV_PRIME;
    return hash;
}

static void put64(uint8_t *p, uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        p[i] = (uint8_t)v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

static void write_opening(struct conn *c)
{
    memcpy(c->opening, OPENING_MAGIC, 4);
    c->opening[4] = (uint8_t)c->mode;
    c->opening[6] = (uint8_t)(c->number >> 8), c->opening[7] = (uint8_t)c->number;
    put64(c->opening + 8, c->seed);
    put64(c->opening + 16, opt.up_bytes);
    put64(c->opening + 24, opt.down_bytes);
}

static void read_opening(struct conn *c)
{
    if (memcmp(c->opening, OPENING_MAGIC, 4) != 0 || c->opening[4] >= MODE_COUNT)
        fail(EXIT_WRONG, "wrong opening: %02x%02x%02x%02x%02x", c->opening[0], c->opening[1], c->opening[2],
             c->opening[3], c->opening[4]);
    c->mode = c->opening[4];
    c->number = (unsigned)c->opening[6] << 8 | c->opening[7];
    c->seed = get64(c->opening + 8);
    c->in_total = get64(c->opening + 16);
    c->out_total = get64(c->opening + 24);
    say("opened conn=%u", c->number);
}

void conn_opened(struct conn *c)
{
    c->opening_bytes = sizeof c->opening;
    read_opening(c);
}

void *conn_memory(size_t bytes)
{
    if (opt.shape != SHAPE_PAIR)
        return calloc(1, bytes);
    char *p = mmap(NULL, sizeof *totals + bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    totals = (struct totals *)(p + bytes);
    return p;
}

static void init_lock(struct conn *c)
{
    pthread_mutexattr_t of_mutex;
    pthread_condattr_t of_cond;
    pthread_mutexattr_init(&of_mutex);
    pthread_condattr_init(&of_cond);
    pthread_mutexattr_setpshared(&of_mutex, PTHREAD_PROCESS_SHARED);
    pthread_condattr_setpshared(&of_cond, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&c->lock, &of_mutex);
    pthread_cond_init(&c->changed, &of_cond);
}

void conn_init(struct conn *c, int fd, bool server, unsigned number)
{
    *c = (struct conn){ .fd = fd, .server = server, .used = true, .number = number, .mode = opt.mode,
                        .seed = opt.seed, .out_hash = FNV_BASIS, .in_hash = FNV_BASIS,
                        .can_read = true, .can_write = true, .start_ns = now_ns() };
    init_lock(c);
    memcpy(c->banner, BANNER, sizeof BANNER);
    c->banner_bytes = opt.server_speaks_first ? 0 : sizeof BANNER;
    c->out_total = server ? UNTIL_TOLD : opt.up_bytes;
    c->in_total = server ? UNTIL_TOLD : opt.down_bytes;
    if (!server)
        write_opening(c);
    if (setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &(int){ 1 }, sizeof(int)) != 0)
        fail(EXIT_CONNECTION, "SO_OOBINLINE: %s", strerror(errno));
    socklen_t n = sizeof c->local;
    getsockname(fd, (struct sockaddr *)&c->local, &n);
    n = sizeof c->remote;
    getpeername(fd, (struct sockaddr *)&c->remote, &n);
}

static void name_text(const struct sockaddr_storage *a, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in6 *six = (const void *)a;
    const struct sockaddr_in *four = (const void *)a;
    if (a->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
    else
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
    snprintf(text, size, "[%s]:%u", host, ntohs(six->sin6_port));
}

static void check_name(const struct conn *c, const struct sockaddr_storage *first, const char *call, int ret,
                       const struct sockaddr_storage *now)
{
    char was[64], is[64];
    name_text(first, was, sizeof was);
    name_text(now, is, sizeof is);
    if (ret != 0)
        fail(EXIT_WRONG, "conn %u: %s: %s, was %s", c->number, call, strerror(errno), was);
    if (strcmp(was, is) != 0)
        fail(EXIT_WRONG, "conn %u: %s was %s, is %s", c->number, call, was, is);
}

// The own name stays, however the connection ended.
static void check_own_name(const struct conn *c)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    int ret = getsockname(c->fd, (struct sockaddr *)&a, &n);
    check_name(c, &c->local, "getsockname", ret, &a);
}

static void failed(const struct conn *c, const char *call)
{
    int error = errno;
    check_own_name(c);
    fail(EXIT_CONNECTION, "conn %u: %s: %s (out=%" PRIu64 " in=%" PRIu64 ")", c->number, call, strerror(error),
         c->out_bytes, c->in_bytes);
}

void conn_check_names(struct conn *c)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    int ret;
    check_own_name(c);
    // A socket whose peer has closed both directions has no peer's name any more, in TCP itself.
    if (c->in_ended && c->out_ended)
        return;
    n = sizeof a;
    ret = getpeername(c->fd, (struct sockaddr *)&a, &n);
    check_name(c, &c->remote, "getpeername", ret, &a);
}

// Does this side only answer what it gets?
static bool answers(const struct conn *c)
{
    return c->server && (c->mode == MODE_RECORDS || (c->mode == MODE_IDLE && !told_go));
}

// The position that this side may send up to, now, by what it waits for.
static uint64_t allowed(const struct conn *c)
{
    if (c->mode == (c->server ? MODE_UP : MODE_DOWN))
        return 0;
    if (answers(c))
        return c->in_bytes < c->out_total ? c->in_bytes : c->out_total;
    if (c->mode == MODE_IDLE && !told_go && c->in_bytes == 0)
        return 0;
    return c->out_total;
}

// The same by the clock, and when there will be more.
static uint64_t due(const struct conn *c, int *ask_again_ms)
{
    int64_t past_ns = now_ns() - c->start_ns;
    if (!c->server && c->mode == MODE_RECORDS) {
        int64_t period_ns = opt.interval_ms * INT64_C(1000000);
        *ask_again_ms = (int)((period_ns - past_ns % period_ns) / 1000000) + 1;
        return (uint64_t)(past_ns / period_ns + 1) * opt.record_bytes;
    }
    if (opt.rate_bytes_s) {
        *ask_again_ms = 2;
        return (uint64_t)((double)past_ns / 1e9 * (double)opt.rate_bytes_s);
    }
    return UNTIL_TOLD;
}

// Where the stream ends, once that is known: told to stop, or the peer has ended and there is nothing to add.
static void settle_end(struct conn *c)
{
    bool peer_decides = c->server && c->in_ended && c->mode != MODE_HALFCLOSE;
    if (answers(c)) {
        if (c->in_ended && c->out_total > c->in_bytes)
            c->out_total = c->in_bytes;
    } else if (c->out_total == UNTIL_TOLD && (told_stop || peer_decides)) {
        c->out_total = c->out_bytes;
    }
}

size_t conn_sendable(struct conn *c, int *ask_again_ms)
{
    *ask_again_ms = -1;
    if (c->server) {
        if (c->banner_bytes < sizeof c->banner)
            return sizeof c->banner - c->banner_bytes;
        if (c->opening_bytes < sizeof c->opening)
            return 0;
    } else {
        if (c->banner_bytes < sizeof c->banner || (opt.quiet && !told_go))
            return 0;
        if (c->opening_bytes < sizeof c->opening)
            return sizeof c->opening - c->opening_bytes;
    }
    if (c->out_ended)
        return 0;
    pthread_mutex_lock(&c->lock);
    settle_end(c);
    uint64_t limit = allowed(c), by_now = due(c, ask_again_ms);
    limit = by_now < limit ? by_now : limit;
    uint64_t left = limit > c->out_bytes ? limit - c->out_bytes : 0;
    pthread_mutex_unlock(&c->lock);
    return left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
}

static ssize_t send_some(struct conn *c, const uint8_t *p, size_t n, int flags)
{
    ssize_t sent;
    if (c->out) {
        if (fwrite(p, 1, n, c->out) != n || fflush(c->out) != 0)
            failed(c, "fwrite");
        return (ssize_t)n;
    }
    do
        sent = send(c->fd, p, n, flags | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN)
        failed(c, "send");
    if (sent < 0 || (size_t)sent < n)
        c->can_write = false;
    return sent < 0 ? 0 : sent;
}

size_t conn_send(struct conn *c)
{
    int ignored;
    uint8_t buffer[CHUNK_BYTES];
    size_t n = conn_sendable(c, &ignored);
    if (n == 0)
        return 0;
    if (c->server && c->banner_bytes < sizeof c->banner) {
        n = (size_t)send_some(c, c->banner + c->banner_bytes, n, 0);
        c->banner_bytes += n;
        return n;
    }
    if (!c->server && c->opening_bytes < sizeof c->opening) {
        n = (size_t)send_some(c, c->opening + c->opening_bytes, n, 0);
        c->opening_bytes += n;
        return n;
    }
    bool urgent = c->mode == MODE_URGENT && c->out_bytes / URGENT_EVERY_BYTES > c->oob_bytes;
    if (urgent)
        n = 1;
    stream_bytes(c, c->server, c->out_bytes, buffer, n);
    n = (size_t)send_some(c, buffer, n, urgent ? MSG_OOB : 0);
    pthread_mutex_lock(&c->lock);
    c->out_hash = hash_bytes(c->out_hash, buffer, n);
    c->out_bytes += n;
    c->oob_bytes += urgent && n;
    pthread_mutex_unlock(&c->lock);
    totals->out += n;
    progress(false);
    return n;
}

// Where in the stream do the wrong bytes come from? The distance tells loss from doubling.
static void explain(const struct conn *c, uint64_t position, const uint8_t *got, size_t n)
{
    if (n < 8)
        return;
    uint64_t from = position > SEARCH_BYTES ? position - SEARCH_BYTES : 0;
    size_t size = (size_t)(position - from) + SEARCH_BYTES;
    uint8_t *window = malloc(size);
    if (!window)
        return;
    stream_bytes(c, !c->server, from, window, size);
    const uint8_t *at = memmem(window, size, got, n < 16 ? n : 16);
    if (at) {
        uint64_t true_position = from + (uint64_t)(at - window);
        bool lost = true_position > position;
        say("these bytes belong at %" PRIu64 ": %" PRIu64 " bytes %s", true_position,
            lost ? true_position - position : position - true_position, lost ? "lost" : "doubled");
    } else {
        say("these bytes are nowhere within 8 MiB of the stream");
    }
    free(window);
}

static void verify(struct conn *c, const uint8_t *got, size_t n)
{
    static _Thread_local uint8_t expected[CHUNK_BYTES * 4];
    stream_bytes(c, !c->server, c->in_bytes, expected, n);
    if (memcmp(expected, got, n) == 0)
        return;
    size_t i = 0;
    while (expected[i] == got[i])
        i++;
    explain(c, c->in_bytes + i, got + i, n - i);
    fail(EXIT_WRONG, "conn %u: wrong byte at %" PRIu64 ": expected %02x, got %02x (a read of %zu at %" PRIu64 ")",
         c->number, c->in_bytes + i, expected[i], got[i], n, c->in_bytes);
}

static void note_arrival(struct conn *c)
{
    int64_t now = now_ns(), gap = now - c->gaps.last_ns;
    if (c->gaps.last_ns) {
        c->gaps.sum_ns += (uint64_t)gap;
        c->gaps.count++;
        c->gaps.late += gap > 2 * INT64_C(1000000) * opt.interval_ms;
        if (gap > c->gaps.longest_ns)
            c->gaps.longest_ns = gap;
    }
    c->gaps.last_ns = now;
}

// What comes before the stream proper. Returns how many of the n bytes it took.
static size_t take_preface(struct conn *c, const uint8_t *p, size_t n)
{
    size_t taken = 0;
    pthread_mutex_lock(&c->lock);
    if (!c->server && c->banner_bytes < sizeof c->banner) {
        while (taken < n && c->banner_bytes < sizeof c->banner)
            if (p[taken++] != (uint8_t)BANNER[c->banner_bytes++])
                fail(EXIT_WRONG, "wrong banner byte %zu", c->banner_bytes - 1);
    } else if (c->server && c->opening_bytes < sizeof c->opening) {
        while (taken < n && c->opening_bytes < sizeof c->opening)
            c->opening[c->opening_bytes++] = p[taken++];
        if (c->opening_bytes == sizeof c->opening)
            read_opening(c);
    }
    pthread_mutex_unlock(&c->lock);
    return taken;
}

// As programs read that think in lines, whatever a line may be here.
static ssize_t receive_line(struct conn *c, uint8_t *buffer, size_t size)
{
    size_t n = 0;
    for (int byte = 0; n < size && byte != '\n' && (byte = getc(c->in)) != EOF;)
        buffer[n++] = (uint8_t)byte;
    return n == 0 && ferror(c->in) ? -1 : (ssize_t)n;
}

static ssize_t receive_some(struct conn *c, uint8_t *buffer, size_t size)
{
    ssize_t got;
    if (c->in)
        return receive_line(c, buffer, size);
    do
        got = recv(c->fd, buffer, size, 0);
    while (got < 0 && errno == EINTR);
    return got;
}

ssize_t conn_receive(struct conn *c)
{
    static _Thread_local uint8_t buffer[CHUNK_BYTES * 4];
    ssize_t got = receive_some(c, buffer, sizeof buffer);
    if (got < 0) {
        if (errno != EAGAIN)
            failed(c, "recv");
        c->can_read = false;
        return -1;
    }
    size_t preface = take_preface(c, buffer, (size_t)got), n = (size_t)got - preface;
    verify(c, buffer + preface, n);
    pthread_mutex_lock(&c->lock);
    c->in_hash = hash_bytes(c->in_hash, buffer + preface, n);
    c->in_bytes += n;
    if (n)
        note_arrival(c);
    if (got == 0) {
        c->in_ended = true;
        totals->in_ended++;
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    totals->in += n;
    progress(got == 0);
    return got;
}

// Has this side sent all that it will ever send?
static bool all_sent(struct conn *c)
{
    if (c->opening_bytes < sizeof c->opening || c->banner_bytes < sizeof c->banner)
        return false;
    settle_end(c);
    if (c->mode == MODE_UP && c->server)
        return c->in_ended;
    if (c->mode == MODE_DOWN && !c->server)
        return c->in_ended || told_stop;
    return c->out_bytes == c->out_total;
}

bool conn_advance(struct conn *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->server && c->in_ended && c->opening_bytes == 0 && opt.shape == SHAPE_PREFORK)
        _exit(EXIT_NOBODY);
    if (c->server && c->in_ended && c->opening_bytes < sizeof c->opening)
        fail(EXIT_WRONG, "a connection ended after %zu bytes of its opening", c->opening_bytes);
    if (!c->out_ended && all_sent(c)) {
        c->out_ended = true;
        if (shutdown(c->fd, SHUT_WR) != 0)
            failed(c, "shutdown");
        say("ended conn=%u out=%" PRIu64, c->number, c->out_bytes);
    }
    bool both = c->out_ended && c->in_ended;
    pthread_mutex_unlock(&c->lock);
    return both;
}

void conn_finish(struct conn *c)
{
    // MODE_UP and MODE_DOWN leave one direction empty, whatever number was asked for it.
    bool none = c->mode == (c->server ? MODE_DOWN : MODE_UP);
    uint64_t expected = none ? 0 : c->in_total;
    if (expected != UNTIL_TOLD && c->in_bytes != expected)
        fail(EXIT_WRONG, "conn %u: the stream ended at %" PRIu64 ", expected %" PRIu64, c->number, c->in_bytes,
             expected);
    bool answered = !c->server && (c->mode == MODE_RECORDS || (c->mode == MODE_IDLE && told_go));
    if (answered && c->in_total == UNTIL_TOLD && c->in_bytes != c->out_bytes)
        fail(EXIT_WRONG, "conn %u: sent %" PRIu64 ", answered %" PRIu64, c->number, c->out_bytes, c->in_bytes);
    conn_check_names(c);
    if (opt.check_so_error) {
        int error = 0;
        socklen_t n = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
        if (error)
            fail(EXIT_WRONG, "conn %u: SO_ERROR is %s at the end", c->number, strerror(error));
    }
    close(c->fd);
    c->used = false;
    double mean_ms = c->gaps.count ? (double)c->gaps.sum_ns / (double)c->gaps.count / 1e6 : 0;
    const char *format = opt.json ? "{\"conn\": %u, \"in\": %" PRIu64 ", \"out\": %" PRIu64
                                    ", \"in_hash\": \"%016" PRIx64 "\", \"out_hash\": \"%016" PRIx64
                                    "\", \"longest_gap_ms\": %.3f, \"mean_gap_ms\": %.3f, \"gaps\": %" PRIu64
                                    ", \"late\": %" PRIu64 "}"
                                  : "conn %u in=%" PRIu64 " out=%" PRIu64 " in_hash=%016" PRIx64
                                    " out_hash=%016" PRIx64 " longest_gap_ms=%.3f mean_gap_ms=%.3f gaps=%" PRIu64
                                    " late=%" PRIu64;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    say(format, c->number, c->in_bytes, c->out_bytes, c->in_hash, c->out_hash, (double)c->gaps.longest_ns / 1e6,
        mean_ms, c->gaps.count, c->gaps.late);
#pragma GCC diagnostic pop
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
}

void conn_totals(uint64_t *in_bytes, uint64_t *out_bytes, unsigned *in_ended)
{
    *in_bytes = totals->in;
    *out_bytes = totals->out;
    *in_ended = totals->in_ended;
}
