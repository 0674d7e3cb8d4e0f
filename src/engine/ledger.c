#include "engine/ledger.h"

#include "engine/sys.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>

/* include/net/tcp_states.h; netinet/tcp.h has these too, but clashes with
 * linux/tcp.h, which alone has all of struct tcp_info. */
enum {
    TIME_WAIT = 6,
    LAST_ACK = 9,
    CLOSING = 11,
};

int64_t ns_ledger_unacknowledged(int fd)
{
    int n = 0;
    int err = ns_sys_ioctl(fd, SIOCOUTQ, &n);
    return err < 0 ? err : n;
}

int ns_ledger_read(int fd, struct ns_ledger *out)
{
    struct tcp_info i = { 0 };
    socklen_t len = sizeof i;
    int err = ns_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len);
    if (err < 0)
        return err;
    if (len < offsetof(struct tcp_info, tcpi_min_rtt))
        return -EOPNOTSUPP;
    int64_t unacknowledged = ns_ledger_unacknowledged(fd);
    if (unacknowledged < 0)
        return (int)unacknowledged;
    *out = (struct ns_ledger){
        .state = i.tcpi_state,
        .fin_received = i.tcpi_state == NS_TCP_CLOSE_WAIT || i.tcpi_state == LAST_ACK ||
                        i.tcpi_state == CLOSING || i.tcpi_state == TIME_WAIT,
        .acknowledged = i.tcpi_bytes_acked,
        .unacknowledged = (uint64_t)unacknowledged,
        .received = i.tcpi_bytes_received,
        .segments = i.tcpi_data_segs_in,
        .in_flight = i.tcpi_unacked,
        .unsent_bytes = i.tcpi_notsent_bytes,
        .window_bytes = i.tcpi_snd_wnd,
        .rtt_us = i.tcpi_rtt,
        .rttvar_us = i.tcpi_rttvar,
        .last_ack_ms = i.tcpi_last_ack_recv,
        .probes = i.tcpi_probes,
    };
    return 0;
}

int ns_ledger_read_still(int fd, struct ns_ledger *out)
{
    struct ns_ledger again;
    int err = ns_ledger_read(fd, out);
    for (int i = 0; err == 0 && i < 16; i++) {
        err = ns_ledger_read(fd, &again);
        bool still = again.acknowledged == out->acknowledged && again.unacknowledged == out->unacknowledged;
        *out = again;
        if (still)
            break;
    }
    return err;
}
