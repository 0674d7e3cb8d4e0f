// closes: a server whose signal handler closes the connection that is being written to, often on top of the write.
// The handler is installed past whoever stands in front of libc, as a language's runtime does. check_shim.py runs it.
//
//     closes CONNECTIONS     says its port
#include <arpa/inet.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { RECORD = 3000, FIRST_US = 20, SPREAD_US = 60 };

static volatile sig_atomic_t fd = -1, signals;

static void close_it(int sig)
{
    int open = fd;
    (void)sig;
    if (open < 0 || ++signals <= 3)
        return;
    fd = -1;
    close(open);
}

static int install(void)
{
    struct sigaction sa = { .sa_handler = close_it, .sa_flags = SA_RESTART };
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    int (*own)(int, const struct sigaction *, struct sigaction *) = NULL;
    if (libc)
        *(void **)&own = dlsym(libc, "sigaction");
    return own ? own(SIGALRM, &sa, NULL) : -1;
}

static int listen_somewhere(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof at;
    int l = socket(AF_INET, SOCK_STREAM, 0);
    if (l < 0 || bind(l, (struct sockaddr *)&at, len) < 0 || listen(l, 64) < 0 ||
        getsockname(l, (struct sockaddr *)&at, &len) < 0)
        return -1;
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return l;
}

static void serve(int connection, int spread)
{
    static const char record[RECORD];
    struct itimerval soon = { { 0, FIRST_US + spread }, { 0, FIRST_US + spread } }, off = { { 0, 0 }, { 0, 0 } };
    char first;
    if (recv(connection, &first, 1, 0) == 1) {
        signals = 0;
        fd = connection;
        setitimer(ITIMER_REAL, &soon, NULL);
        while (fd >= 0)
            if (send(connection, record, sizeof record, MSG_NOSIGNAL) < 0)
                break;
        setitimer(ITIMER_REAL, &off, NULL);
    }
    if (fd >= 0 || signals == 0)
        close(connection);
    fd = -1;
}

int main(int argc, char **argv)
{
    int l = listen_somewhere();
    if (argc != 2 || l < 0 || install() < 0)
        return 2;
    for (int i = 0; i < atoi(argv[1]); i++) {
        int connection = accept(l, NULL, NULL);
        if (connection < 0)
            return 3;
        serve(connection, i * 7 % SPREAD_US);
    }
    return 0;
}
