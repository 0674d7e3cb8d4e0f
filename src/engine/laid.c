#include "engine/laid.h"

#include "engine/estate.h"
#include "engine/internal.h"
#include "engine/large.h"
#include "engine/ledger.h"
#include "engine/sys.h"

#include <errno.h>
#include <linux/memfd.h>
#include <string.h>

#define HELD_MAX ((uint64_t)64 << 20) /* bytes of a ring, or of an inbox */

struct state {
    uint32_t size; /* of this: another version of the engine must not read it */
    struct ns_session session;
    uint64_t tx_urgent, received, replayed, inbox_bytes;
    uint32_t resumes;
    int rx_urgent, low_water, keepalive[4];
    bool rx_shut, rx_ended, fin_queued, resumed, keepalive_ours, retired;
    int error;
    uint64_t delivered;
    struct ns_name local, peer, last_local, last_peer, before_local, before_peer;
    struct ns_pair pair;
    uint16_t port;
    char name[256];
    struct ns_hello_address given[NS_HELLO_ADDRESSES];
    uint8_t given_count;
    uint8_t family_secret[32];
};

static void fill_state(struct state *st, const struct ns_sock *s)
{
    *st = (struct state){ .size = sizeof *st,
                          .session = s->session,
                          .tx_urgent = s->tx_urgent,
                          .received = s->received,
                          .replayed = s->replayed,
                          .inbox_bytes = ns_ring_used(&s->inbox),
                          .resumes = s->resumes,
                          .rx_urgent = s->rx_urgent,
                          .low_water = s->low_water,
                          .rx_shut = s->rx_shut,
                          .rx_ended = s->rx_ended,
                          .fin_queued = s->fin_queued,
                          .resumed = s->resumed,
                          .keepalive_ours = s->keepalive_ours,
                          .retired = s->retired,
                          .error = s->error,
                          .delivered = s->delivered,
                          .local = s->local,
                          .peer = s->peer,
                          .last_local = s->last_local,
                          .last_peer = s->last_peer,
                          .before_local = s->before_local,
                          .before_peer = s->before_peer,
                          .pair = s->pair,
                          .port = s->port,
                          .given_count = s->given_count };
    memcpy(st->keepalive, s->keepalive, sizeof st->keepalive);
    memcpy(st->name, s->name, sizeof st->name);
    memcpy(st->given, s->given, sizeof st->given);
    memcpy(st->family_secret, s->family_secret, sizeof st->family_secret);
    st->session.ring.data = NULL;
}

static bool sensible(const struct state *st)
{
    const struct ns_session *x = &st->session;
    const struct ns_ring *r = &x->ring;
    return st->size == sizeof *st && (x->role == NS_CLIENT || x->role == NS_SERVER) && x->pins == 0 &&
           r->head >= r->tail && r->head - r->tail <= HELD_MAX && st->inbox_bytes <= HELD_MAX &&
           x->carrier.tx_start <= x->carrier.tx_position && x->carrier.tx_position <= r->head &&
           st->given_count <= NS_HELLO_ADDRESSES && st->low_water >= 0 &&
           st->local.length <= sizeof st->local.address && st->peer.length <= sizeof st->peer.address &&
           st->last_local.length <= sizeof st->local.address &&
           st->last_peer.length <= sizeof st->peer.address &&
           st->before_local.length <= sizeof st->local.address &&
           st->before_peer.length <= sizeof st->peer.address;
}

/* Whoever calls next goes on at once, on the connection that all have. */
static bool usable(const struct state *st)
{
    const struct ns_session *x = &st->session;
    return x->version == 2 && (x->state == NS_AWAITING || x->state == NS_CONNECTED) &&
           x->carrier.tx_position == x->ring.head;
}

/* Whatever has become of its connection. */
static bool relayable(const struct state *st)
{
    const struct ns_session *x = &st->session;
    return x->version == 2 && (x->state == NS_CONNECTED || x->state == NS_SUSPENDED) &&
           x->carrier.tx_position >= x->ring.tail;
}

/* The same; nothing more is written or read. */
static bool deliverable(const struct state *st)
{
    const struct ns_session *x = &st->session;
    return (x->version == 1 || x->version == 2) && (x->state == NS_CONNECTED || x->state == NS_SUSPENDED) &&
           x->carrier.tx_position >= x->ring.tail && x->tx_ended && st->inbox_bytes == 0;
}

static void take_state(struct ns_sock *s, const struct state *st)
{
    s->session = st->session;
    s->tx_urgent = st->tx_urgent;
    s->received = st->received;
    s->replayed = st->replayed;
    s->resumes = st->resumes;
    s->rx_urgent = st->rx_urgent;
    s->low_water = st->low_water;
    s->rx_shut = st->rx_shut;
    s->rx_ended = st->rx_ended;
    s->fin_queued = st->fin_queued;
    s->resumed = st->resumed;
    s->keepalive_ours = st->keepalive_ours;
    s->local = st->local;
    s->peer = st->peer;
    s->last_local = st->last_local;
    s->last_peer = st->last_peer;
    s->before_local = st->before_local;
    s->before_peer = st->before_peer;
    s->pair = st->pair;
    s->port = st->port;
    s->given_count = st->given_count;
    memcpy(s->keepalive, st->keepalive, sizeof s->keepalive);
    memcpy(s->name, st->name, sizeof s->name);
    s->name[sizeof s->name - 1] = '\0';
    memcpy(s->given, st->given, sizeof s->given);
    memcpy(s->family_secret, st->family_secret, sizeof s->family_secret);
}

/* Where it lies: in the session's share, or in a file. */
struct place {
    const struct ns_sock *share_of; /* NULL: in `file` */
    int file;
    uint64_t at;
};

static bool read_from(const struct place *p, uint64_t from, void *out, size_t bytes)
{
    if (p->share_of)
        return ns_share_read(p->share_of->estate, p->share_of->share, from, out, bytes);
    return ns_syscall6(SYS_pread64, p->file, (long)out, (long)bytes, (long)(p->at + from), 0, 0) ==
           (long)bytes;
}

/* The ring that begins at offset `tail` and holds `bytes` bytes; table held. */
static bool read_ring(const struct place *p, struct ns_ring *r, uint64_t tail, uint64_t bytes, uint64_t from)
{
    static uint8_t piece[16384] NS_LARGE;
    ns_ring_init(r, tail);
    if (ns_ring_reserve(r, bytes, HELD_MAX) < 0)
        return false;
    for (uint64_t done = 0; done < bytes;) {
        size_t n = bytes - done < sizeof piece ? (size_t)(bytes - done) : sizeof piece;
        if (!read_from(p, from + done, piece, n))
            return false;
        ns_ring_put(r, piece, n);
        done += n;
    }
    return true;
}

static bool read_all(struct ns_sock *s, const struct place *p, bool (*fit)(const struct state *))
{
    struct state st;
    if (!read_from(p, 0, &st, sizeof st) || !sensible(&st) || !fit(&st))
        return false;
    uint64_t tail = st.session.ring.tail, held = st.session.ring.head - tail;
    ns_session_destroy(&s->session);
    ns_ring_destroy(&s->inbox);
    take_state(s, &st);
    s->retired = st.retired;
    s->error = st.error;
    s->delivered = st.delivered;
    ns_ring_init(&s->session.ring, tail);
    return read_ring(p, &s->session.ring, tail, held, sizeof st) &&
           read_ring(p, &s->inbox, 0, st.inbox_bytes, sizeof st + held);
}

bool ns_laid_read(struct ns_sock *s)
{
    return read_all(s, &(struct place){ .share_of = s }, usable);
}

bool ns_laid_get(struct ns_sock *s, int file, uint64_t at)
{
    return read_all(s, &(struct place){ .file = file, .at = at }, usable);
}

bool ns_laid_take(struct ns_sock *s, int file)
{
    return read_all(s, &(struct place){ .file = file }, deliverable);
}

bool ns_laid_take_whole(struct ns_sock *s, int file)
{
    return read_all(s, &(struct place){ .file = file }, relayable);
}

/* At most five pieces. Returns how many. */
static int pieces_of(const struct ns_sock *s, struct state *st, struct iovec *out)
{
    int n = 1;
    fill_state(st, s);
    out[0] = (struct iovec){ st, sizeof *st };
    n += ns_ring_get(&s->session.ring, s->session.ring.tail, out + n);
    n += ns_ring_get(&s->inbox, s->inbox.tail, out + n);
    return n;
}

static void forget_acknowledged(struct ns_sock *s, int fd)
{
    int64_t unacknowledged = ns_ledger_unacknowledged(fd);
    if (unacknowledged >= 0 && s->session.state != NS_SUSPENDED)
        ns_session_trim(&s->session, (uint64_t)unacknowledged);
}

bool ns_laid_write(struct ns_sock *s, int fd)
{
    struct state st;
    struct iovec pieces[5];
    forget_acknowledged(s, fd);
    int n = pieces_of(s, &st, pieces);
    return ns_share_write(s->estate, s->share, pieces, n);
}

/* Returns how many bytes that were, 0 when there was no room. */
static uint64_t put(int file, uint64_t at, const struct iovec *pieces, int n)
{
    uint64_t done = 0, bytes = 0;
    for (int i = 0; i < n; i++)
        bytes += pieces[i].iov_len;
    for (int i = 0; i < n; i++) {
        if (!ns_file_may_hold(at + bytes) ||
            ns_syscall6(SYS_pwrite64, file, (long)pieces[i].iov_base, (long)pieces[i].iov_len,
                        (long)(at + done), 0, 0) != (long)pieces[i].iov_len)
            return 0;
        done += pieces[i].iov_len;
    }
    return done;
}

uint64_t ns_laid_put(const struct ns_sock *s, int file, uint64_t at)
{
    struct state st;
    struct iovec pieces[5];
    int n = pieces_of(s, &st, pieces);
    return sensible(&st) && usable(&st) ? put(file, at, pieces, n) : 0;
}

/* In a file of its own. */
static int put_in_file(struct state *st, const struct iovec *pieces, int n)
{
    int file = ns_internal((int)ns_syscall6(SYS_memfd_create, (long)"namesocket", MFD_CLOEXEC, 0, 0, 0, 0));
    if (file >= 0 && put(file, 0, pieces, n) == 0) {
        ns_internal_close(file);
        file = -ENOSPC;
    }
    explicit_bzero(st, sizeof *st);
    return file;
}

int ns_laid_file(struct ns_sock *s, int fd)
{
    struct state st;
    struct iovec pieces[3] = { { &st, sizeof st } };
    forget_acknowledged(s, fd);
    fill_state(&st, s);
    st.inbox_bytes = 0;
    st.session.tx_ended = true;
    int n = 1 + ns_ring_get(&s->session.ring, s->session.ring.tail, pieces + 1);
    return put_in_file(&st, pieces, n);
}

int ns_laid_whole_file(struct ns_sock *s, int fd)
{
    struct state st;
    struct iovec pieces[5];
    forget_acknowledged(s, fd);
    int n = pieces_of(s, &st, pieces);
    return put_in_file(&st, pieces, n);
}
