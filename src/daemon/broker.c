#include "daemon/broker.h"

#include "daemon/adopter.h"
#include "daemon/errand.h"
#include "daemon/member.h"
#include "daemon/roll.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 511

/* A process that has lost its broker tries again within two seconds. Until then one
 * that is not here may yet come, and have the session. */
#define YOUNG_MS 5000

#define RESUME_MS 1500
#define TELL_MS   2000
#define LIST_MS   500
#define LOOK_MS   100

struct ns_broker {
    uv_loop_t *loop;
    int fd, reserve; /* `reserve` lets one in, to be sent away, when there are no more descriptors */
    uid_t only;
    uv_poll_t poll;
    uv_timer_t look;
    void (*idle)(void *arg);
    void *arg;
    struct ns_member *members;
    size_t member_count;
    uint32_t next_number;
    struct ns_roll roll;
    struct ns_errands errands;
    struct ns_adopters adopters;
    uint64_t begun_ms;
    bool closing;
    int open; /* handles */
};

static struct ns_member *member_of(struct ns_broker *b, uint32_t number)
{
    struct ns_member *m = b->members;

    while (m && m->number != number)
        m = m->next;
    return m;
}

static bool young(const struct ns_broker *b)
{
    return uv_now(b->loop) - b->begun_ms < YOUNG_MS;
}

/* ---- errands ---- */

static void on_look(uv_timer_t *timer);

static struct ns_errand *begin(struct ns_member *m, const struct ns_message *message, int fd,
                               uint64_t patience_ms)
{
    struct ns_broker *b = m->arg;
    struct ns_errand *e = ns_errand_new(&b->errands, message, m->number, fd);

    if (!e)
        return NULL;
    e->deadline_ms = uv_now(b->loop) + patience_ms;
    uv_timer_start(&b->look, on_look, LOOK_MS, LOOK_MS);
    return e;
}

/* Asks or tells `m` for the errand; whether an answer can be expected. */
static bool send_for(struct ns_errand *e, struct ns_member *m, enum ns_message_type type, int fd)
{
    struct ns_message message = e->message;

    message.type = type;
    message.serial = e->serial;
    if (!ns_errand_await(e, m->number))
        return false;
    if (ns_member_send(m, &message, fd))
        return true;
    ns_errand_heard(e, m->number);
    return false;
}

static void reply(struct ns_member *m, uint32_t question, int32_t status, uint32_t count)
{
    struct ns_message answer = {
        .type = NS_MESSAGE_ANSWER, .serial = question, .status = status, .count = count
    };

    ns_member_send(m, &answer, -1);
}

static void finish(struct ns_broker *b, struct ns_errand *e, int32_t status)
{
    struct ns_member *asker = member_of(b, e->asker);

    if (asker)
        reply(asker, e->question, status, e->answers);
    ns_errand_free(&b->errands, e);
}

/* ---- RESUME: to whom it belongs ---- */

static void finish_search(struct ns_broker *b, struct ns_errand *e)
{
    int32_t nobody = young(b) ? NS_MESSAGE_LATER : NS_MESSAGE_UNKNOWN;

    finish(b, e, e->status ? e->status : nobody);
}

/* Nobody has told of the session: everybody, but one who has said already that he does not
 * have it, is asked before it is unknown. */
static void search(struct ns_broker *b, struct ns_errand *e, const struct ns_member *but)
{
    struct ns_member *asker = member_of(b, e->asker);

    e->searching = true;
    for (struct ns_member *m = b->members; asker && m; m = m->next)
        if (m->joined && m != asker && m != but && (asker->uid == 0 || asker->uid == m->uid))
            send_for(e, m, NS_MESSAGE_FIND, -1);
    if (e->awaited_count == 0)
        finish_search(b, e);
}

static void begin_resume(struct ns_member *m, const struct ns_message *message, int fd)
{
    struct ns_broker *b = m->arg;
    struct ns_errand *e = fd >= 0 ? begin(m, message, fd, RESUME_MS) : NULL;
    struct ns_entry *entry;

    if (!e) {
        if (fd >= 0)
            close(fd);
        reply(m, message->serial, NS_MESSAGE_LATER, 0);
        return;
    }
    /* Who passes it on does not have it, whatever he has told. */
    ns_roll_release(&b->roll, m, message->id, NS_MESSAGE_SERVER);
    entry = ns_roll_find(&b->roll, message->id, NS_MESSAGE_SERVER);
    for (struct ns_held *h = entry && ns_roll_allows(entry, m->uid) ? entry->held : NULL; h;
         h = h->next_of_session)
        if (send_for(e, h->member, NS_MESSAGE_RESUME, fd))
            return;
    search(b, e, NULL);
}

static void heard_resume(struct ns_broker *b, struct ns_errand *e, struct ns_member *m, int32_t status)
{
    if (!e->searching) {
        if (status != NS_MESSAGE_UNKNOWN) {
            finish(b, e, status);
            return;
        }
        ns_roll_release(&b->roll, m, e->message.id, NS_MESSAGE_SERVER);
        if (e->found)
            finish(b, e, status);
        else
            search(b, e, m);
        return;
    }
    if (status == NS_MESSAGE_TAKEN) {
        e->searching = false;
        e->found = true;
        e->awaited_count = 0; /* what the others say is of no interest any more */
        if (!send_for(e, m, NS_MESSAGE_RESUME, e->fd))
            finish(b, e, NS_MESSAGE_LATER);
        return;
    }
    if (status != NS_MESSAGE_UNKNOWN)
        e->status = NS_MESSAGE_LATER;
    if (e->awaited_count == 0)
        finish_search(b, e);
}

/* ---- TELL: to the other holders ---- */

static void begin_tell(struct ns_member *m, const struct ns_message *message, int fd)
{
    struct ns_broker *b = m->arg;
    struct ns_entry *entry = ns_roll_find(&b->roll, message->id, message->role);
    struct ns_errand *e = begin(m, message, fd, TELL_MS);
    bool allowed = entry && ns_roll_allows(entry, m->uid);

    if (!e) {
        if (fd >= 0)
            close(fd);
        reply(m, message->serial, -ENOBUFS, 0);
        return;
    }
    for (struct ns_held *h = allowed ? entry->held : NULL; h; h = h->next_of_session)
        if (h->member != m)
            send_for(e, h->member, NS_MESSAGE_TELL, fd);
    if (e->awaited_count == 0)
        finish(b, e, 0);
}

/* ---- LIST ---- */

static void list_one(struct ns_member *m, const struct ns_entry *entry)
{
    struct ns_message message = { .type = NS_MESSAGE_SESSION, .role = entry->role };

    memcpy(message.id, entry->id, sizeof(message.id));
    message.session = entry->about;
    memset(message.session.proof, 0, sizeof(message.session.proof));
    ns_member_send(m, &message, -1);
    message.type = NS_MESSAGE_HOLDER;
    for (const struct ns_held *h = entry->held; h && ns_member_roomy(m); h = h->next_of_session) {
        message.holder = (struct ns_message_holder){ (uint32_t)h->member->pid, h->member->uid, "" };
        memcpy(message.holder.program, h->member->program, sizeof(message.holder.program));
        ns_member_send(m, &message, -1);
    }
}

static void list_more(struct ns_member *m)
{
    struct ns_broker *b = m->arg;
    struct ns_entry *entry = ns_roll_from(&b->roll, m->cursor);

    for (; entry && ns_member_roomy(m); entry = entry->next) {
        m->cursor = entry->number + 1;
        if (ns_roll_allows(entry, m->uid))
            list_one(m, entry);
    }
    if (entry)
        return;
    m->cursor = 0;
    reply(m, m->list_serial, 0, 0);
}

static void finish_list(struct ns_broker *b, struct ns_errand *e)
{
    struct ns_member *asker = member_of(b, e->asker);

    if (asker) {
        asker->cursor = 1;
        asker->list_serial = e->question;
        list_more(asker);
    }
    ns_errand_free(&b->errands, e);
}

/* Nobody tells of every byte: who is asked what there is asks the holders first. */
static void begin_list(struct ns_member *m, const struct ns_message *message)
{
    struct ns_broker *b = m->arg;
    struct ns_errand *e = m->cursor ? NULL : begin(m, message, -1, LIST_MS);

    if (!e) {
        reply(m, message->serial, -EBUSY, 0);
        return;
    }
    for (struct ns_member *other = b->members; other; other = other->next) {
        if (!other->joined || (m->uid != 0 && m->uid != other->uid))
            continue;
        other->report++;
        send_for(e, other, NS_MESSAGE_REPORT, -1);
    }
    if (e->awaited_count == 0)
        finish_list(b, e);
}

/* ---- ADOPT: to whoever sees to what is left ---- */

/* Where nobody takes it, the other end sees that this one is closed. */
static void begin_adoption(struct ns_member *m, int fd)
{
    struct ns_broker *b = m->arg;

    if (fd < 0)
        return;
    ns_adopters_give(&b->adopters, m->uid, m->gid, fd);
    close(fd);
}

/* ---- answers, and none ---- */

static void heard(struct ns_broker *b, struct ns_errand *e, struct ns_member *m, int32_t status, bool gone)
{
    if (e->message.type == NS_MESSAGE_RESUME) {
        heard_resume(b, e, m, !gone ? status : e->searching ? NS_MESSAGE_UNKNOWN : NS_MESSAGE_PERHAPS);
        return;
    }
    e->answers += !gone;
    if (!gone && e->status == 0)
        e->status = status;
    if (e->message.type == NS_MESSAGE_LIST && !gone)
        ns_roll_release_untold(&b->roll, m);
    if (e->awaited_count > 0)
        return;
    if (e->message.type == NS_MESSAGE_LIST)
        finish_list(b, e);
    else
        finish(b, e, e->status);
}

static void on_look(uv_timer_t *timer)
{
    struct ns_broker *b = timer->data;

    for (struct ns_errand *e = b->errands.first, *next; e; e = next) {
        next = e->next;
        if (uv_now(b->loop) < e->deadline_ms)
            continue;
        if (e->message.type == NS_MESSAGE_LIST)
            finish_list(b, e);
        else if (e->message.type == NS_MESSAGE_RESUME)
            finish(b, e, e->searching ? NS_MESSAGE_LATER : NS_MESSAGE_PERHAPS);
        else
            finish(b, e, -ETIMEDOUT);
    }
    if (!b->errands.first)
        uv_timer_stop(timer);
}

/* ---- members ---- */

static void told_of(struct ns_member *m, const struct ns_message *message)
{
    struct ns_broker *b = m->arg;
    struct ns_message answer = { .type = NS_MESSAGE_DUPLICATE, .role = message->role };

    if (!m->joined || ns_roll_tell(&b->roll, m, message) != -EEXIST)
        return;
    memcpy(answer.id, message->id, sizeof(answer.id));
    ns_member_send(m, &answer, -1);
}

static void on_message(struct ns_member *m, const struct ns_message *message, int fd)
{
    struct ns_broker *b = m->arg;
    struct ns_errand *e;

    switch (message->type) {
    case NS_MESSAGE_JOIN:
        m->joined = true;
        memcpy(m->program, message->program, sizeof(m->program));
        return;
    case NS_MESSAGE_SESSION:
        told_of(m, message);
        return;
    case NS_MESSAGE_GONE:
        ns_roll_release(&b->roll, m, message->id, message->role);
        return;
    case NS_MESSAGE_RESUME:
        begin_resume(m, message, fd);
        return;
    case NS_MESSAGE_TELL:
        begin_tell(m, message, fd);
        return;
    case NS_MESSAGE_LIST:
        begin_list(m, message);
        return;
    case NS_MESSAGE_ADOPT:
        begin_adoption(m, fd);
        return;
    case NS_MESSAGE_ANSWER:
        e = ns_errand_find(&b->errands, message->serial);
        if (e && ns_errand_heard(e, m->number))
            heard(b, e, m, message->status, false);
        return;
    default:
        ns_member_drop(m);
    }
}

static void on_drained(struct ns_member *m)
{
    if (m->cursor)
        list_more(m);
}

static void maybe_free(struct ns_broker *b)
{
    if (b->closing && b->open == 0 && !b->members)
        free(b);
}

static void on_gone(struct ns_member *m)
{
    struct ns_broker *b = m->arg;

    *(m->previous ? &m->previous->next : &b->members) = m->next;
    if (m->next)
        m->next->previous = m->previous;
    b->member_count--;
    ns_roll_release_all(&b->roll, m);
    for (struct ns_errand *e = b->errands.first, *next; e; e = next) {
        next = e->next;
        if (ns_errand_heard(e, m->number))
            heard(b, e, m, 0, true);
    }
    if (b->member_count == 0 && b->idle && !b->closing)
        b->idle(b->arg);
    maybe_free(b);
}

static const struct ns_member_calls calls = { on_message, on_drained, on_gone };

/* ---- new ones ---- */

static void take(struct ns_broker *b, int fd)
{
    struct ucred who;
    socklen_t bytes = sizeof(who);
    struct ns_member *m;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes) < 0 ||
        (b->only != (uid_t)-1 && who.uid != b->only && who.uid != 0)) {
        close(fd);
        return;
    }
    m = ns_member_new(b->loop, fd, &calls, b);
    if (!m)
        return;
    m->number = ++b->next_number;
    m->uid = who.uid;
    m->gid = who.gid;
    m->pid = who.pid;
    m->next = b->members;
    if (m->next)
        m->next->previous = m;
    b->members = m;
    b->member_count++;
}

/* Or the one that waits would wake us for ever. */
static void send_away(struct ns_broker *b)
{
    close(b->reserve);
    close(accept4(b->fd, NULL, NULL, SOCK_CLOEXEC));
    b->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    struct ns_broker *b = poll->data;
    int fd = accept4(b->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0)
        take(b, fd);
    else if (errno == EMFILE || errno == ENFILE)
        send_away(b);
}

/* ---- from first to last ---- */

/* Whether somebody answers there. */
static bool answered(const struct sockaddr_un *a, socklen_t bytes)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && connect(fd, (const struct sockaddr *)a, bytes) == 0;

    close(fd);
    return yes;
}

int ns_broker_listen(const char *address)
{
    struct sockaddr_un a;
    struct stat st;
    socklen_t bytes = ns_message_address(&a, address);
    int fd, error;

    if (!bytes)
        return -EINVAL;
    if (*address == '/' && lstat(address, &st) == 0 && S_ISSOCK(st.st_mode) && !answered(&a, bytes))
        unlink(address);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, bytes) == 0 &&
        (*address == '@' || chmod(address, 0666) == 0) && listen(fd, BACKLOG) == 0)
        return fd;
    error = -errno;
    close(fd);
    return error;
}

struct ns_broker *ns_broker_new(uv_loop_t *loop, int fd, uid_t only, void (*idle)(void *arg), void *arg)
{
    struct ns_broker *b = calloc(1, sizeof(*b));
    int on = 1;

    /* Inherited by what is accepted: what came between that and a setting of its own would come without its
     * sender's credentials, and pass for nobody's. */
    if (!b || setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 || uv_poll_init(loop, &b->poll, fd) < 0) {
        close(fd);
        free(b);
        return NULL;
    }
    b->loop = loop;
    b->fd = fd;
    b->only = only;
    b->idle = idle;
    b->arg = arg;
    b->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
    b->adopters = (struct ns_adopters){ .loop = loop, .listening = fd };
    b->begun_ms = uv_now(loop);
    /* An answer to the broker before must not be taken for one to this. */
    b->errands.next_serial = (uint32_t)(uv_hrtime() >> 10);
    uv_timer_init(loop, &b->look);
    b->poll.data = b->look.data = b;
    b->open = 2;
    uv_poll_start(&b->poll, UV_READABLE, on_connection);
    return b;
}

bool ns_broker_idle(const struct ns_broker *b)
{
    return b->member_count == 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct ns_broker *b = handle->data;

    if (handle == (uv_handle_t *)&b->poll) {
        close(b->fd);
        close(b->reserve);
    }
    b->open--;
    maybe_free(b);
}

void ns_broker_close(struct ns_broker *b)
{
    b->closing = true;
    while (b->errands.first)
        ns_errand_free(&b->errands, b->errands.first);
    for (struct ns_member *m = b->members; m; m = m->next)
        ns_member_drop(m);
    ns_adopters_close(&b->adopters);
    uv_close((uv_handle_t *)&b->poll, on_closed);
    uv_close((uv_handle_t *)&b->look, on_closed);
}
