#include "dnsmasq.h"

#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* It answers once it accepts connections; it opens its TCP and UDP sockets together. */
static bool is_up(pid_t server)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(53) };

    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int result = connect(fd, (struct sockaddr *)&addr, sizeof(addr));

        close(fd);
        if (result == 0)
            return true;
        if (waitpid(server, NULL, WNOHANG) != 0)
            return false;
        sched_yield();
    }
}

pid_t ns_test_start_dnsmasq(const char *zone)
{
    char addresses[256];
    pid_t server;

    snprintf(addresses, sizeof(addresses), "--addn-hosts=%s", zone);
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* --no-daemon also keeps it from changing users, which a user namespace does not let it do. */
        execlp("dnsmasq", "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
               addresses, "--local=/#/", "--listen-address=127.0.0.1", "--bind-interfaces",
               "--pid-file=", "--user=root", "--group=root", "--log-facility=/etc/dnsmasq.log", NULL);
        _exit(127);
    }
    return server > 0 && is_up(server) ? server : -1;
}

void ns_test_stop_dnsmasq(pid_t server)
{
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
}
