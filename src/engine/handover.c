#include "engine/handover.h"

#include "engine/broker.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "engine/record.h"
#include "engine/sys.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* Returns 1, 0 at its end, or -EAGAIN when there was none in time. */
static int receive(int fd, uint8_t *byte)
{
    struct ns_time end = ns_time_add(ns_now(), ns_time_ms(NS_HANDOVER_MS));
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int64_t left = ns_time_sub(end, ns_now()).ns;
        if (left < 0) /* whoever was stopped that long looks all the same */
            left = 0;
        int r = ns_sys_ppoll(&p, 1, &(struct timespec){ left / 1000000000, left % 1000000000 }, NULL);
        if (r == 1)
            return ns_sys_recv(fd, byte, 1, MSG_DONTWAIT) == 1;
        if (r != -EINTR)
            return -EAGAIN;
    }
}

int ns_handover_open(void)
{
    struct ns_message m = { .type = NS_MESSAGE_ADOPT };
    int pair[2];
    uint8_t byte = 0;
    int broker = ns_broker_open();
    if (broker < 0)
        return broker;
    int err = ns_sys_socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
    if (err == 0) {
        pair[0] = ns_internal(pair[0]);
        err = ns_broker_send_on(broker, &m, pair[1]);
        ns_sys_close(pair[1]);
        if (err == 0 && !(receive(pair[0], &byte) == 1 && byte == NS_HANDOVER_READY))
            err = -EAGAIN;
        if (err < 0)
            ns_internal_close(pair[0]);
    }
    ns_internal_close(broker);
    return err < 0 ? err : pair[0];
}

bool ns_handover_send(int to, const struct ns_handover *h, const int *fds, size_t count)
{
    if (ns_record_send(to, h, sizeof *h, fds, count) != (ssize_t)sizeof *h)
        return false;
    uint8_t answer = 0;
    int r = receive(to, &answer);
    if (r == -EAGAIN)
        ns_sys_shutdown(to, SHUT_RDWR); /* its answer must not be taken for the next one's */
    return r == -EAGAIN || (r == 1 && answer == NS_HANDOVER_TAKEN);
}
