/* What a namesocket is doing, as a structure that may grow without breaking old programs. */
#include "namesocket.h"

#include "api/api.h"
#include "engine/engine.h"
#include "engine/socket.h"
#include "engine/status.h"

#include <errno.h>
#include <string.h>

/* The structure of version 0.1.0 ended here. */
#define FIRST_SIZE (offsetof(struct namesocket_status, name) + sizeof(((struct namesocket_status *)0)->name))

static const struct {
    enum ns_status_state engine;
    const char *name;
} states[] = {
    [NAMESOCKET_PLAIN] = { NS_STATUS_PLAIN, "plain" },
    [NAMESOCKET_ASKING] = { NS_STATUS_ASKING, "asking" },
    [NAMESOCKET_CONNECTED] = { NS_STATUS_CONNECTED, "connected" },
    [NAMESOCKET_SUSPENDED] = { NS_STATUS_SUSPENDED, "suspended" },
    [NAMESOCKET_FAILED] = { NS_STATUS_FAILED, "failed" },
};

#define STATES (sizeof(states) / sizeof(states[0]))

const char *namesocket_state_name(int state)
{
    return state >= 0 && (size_t)state < STATES ? states[state].name : "unknown";
}

static int public_state(enum ns_status_state state)
{
    size_t i;

    for (i = 0; i < STATES; i++)
        if (states[i].engine == state)
            return (int)i;
    return NAMESOCKET_PLAIN;
}

/* The kernel's view of a descriptor without a session. Returns 0 or a negative errno. */
static int plain_status(int fd, struct namesocket_status *out)
{
    socklen_t local_len = sizeof(out->local), peer_len = sizeof(out->peer);

    if (getsockname(fd, (struct sockaddr *)&out->local, &local_len) < 0)
        return -errno;
    if (getpeername(fd, (struct sockaddr *)&out->peer, &peer_len) < 0)
        memset(&out->peer, 0, sizeof(out->peer));
    return 0;
}

static void session_status(const struct ns_status *in, struct namesocket_status *out)
{
    out->state = public_state(in->state);
    out->protocol_version = in->version;
    out->resumes = in->resumes;
    out->bytes_sent = in->sent_bytes;
    out->bytes_received = in->received_bytes;
    out->bytes_replayed = in->replayed_bytes;
    out->local = in->local;
    out->peer = in->peer;
    memcpy(out->name, in->name, sizeof(out->name));
}

int nstatus(int nsd, struct namesocket_status *status)
{
    struct namesocket_status now = { .state = NAMESOCKET_PLAIN };
    struct ns_status session;
    int saved = errno;
    size_t size;

    if (!status || status->size < FIRST_SIZE)
        return (int)ns_api_result(-EINVAL);
    size = status->size;
    if (ns_ours(nsd) && ns_status(nsd, &session) == 0) {
        session_status(&session, &now);
    } else {
        int r = plain_status(nsd, &now);

        if (r < 0)
            return (int)ns_api_result(r);
        errno = saved;
    }
    now.size = size;
    /* A program built against a newer header: what this library does not know is zero. */
    memset(status, 0, size);
    memcpy(status, &now, size < sizeof(now) ? size : sizeof(now));
    return 0;
}
