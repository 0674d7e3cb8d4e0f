// sandbox CASE: both ends of a connection in one process that puts itself into a sandbox, where any call but the
// expected ones is its death; then it reads, writes, polls and closes. For surface.py.
#include <arpa/inet.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ALLOW(name) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    ALLOW(read), ALLOW(write), ALLOW(close), ALLOW(poll), ALLOW(rt_sigreturn), ALLOW(tgkill), ALLOW(gettid),
    ALLOW(getpid), ALLOW(exit_group),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
};
static struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
static int handled;

static void say(const char *text)
{
    if (write(1, text, strlen(text)) < 0)
        _exit(3);
}

static void on_signal(int sig)
{
    handled++;
}

// Both ends are protected, if they are to be.
static void await_sessions(void)
{
    const char *way = getenv("SURFACE_WAY"), *path = getenv("NAMESOCKET_LOG_FILE");
    int found = 0;
    if (!way || strcmp(way, "protected") != 0)
        return;
    while (found < 2) {
        char line[500];
        FILE *log = fopen(path, "r");
        found = 0;
        while (log && fgets(line, sizeof line, log))
            found += strstr(line, "session established") != NULL;
        if (log)
            fclose(log);
        nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
    }
}

static void enter(const char *how)
{
    int r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (strcmp(how, "sandbox-strict") == 0)
        r |= prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    else if (strcmp(how, "sandbox-all-threads") == 0)
        r |= (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    else
        r |= prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    say(r == 0 ? "entered\n" : "not entered\n");
}

int main(int argc, char **argv)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0), s, ep = epoll_create1(0);
    char got[10] = "";
    if (argc != 2 || bind(l, (struct sockaddr *)&a, len) != 0 || listen(l, 5) != 0 ||
        getsockname(l, (struct sockaddr *)&a, &len) != 0 || connect(c, (struct sockaddr *)&a, len) != 0 ||
        (s = accept(l, NULL, NULL)) < 0)
        return 2;
    signal(SIGUSR1, on_signal);
    if (write(c, "?", 1) != 1 || read(s, got, 1) != 1 || write(s, "!", 1) != 1 || read(c, got, 1) != 1)
        return 2;
    await_sessions();
    epoll_ctl(ep, EPOLL_CTL_ADD, s, &(struct epoll_event){ .events = EPOLLIN });
    if (write(c, "before", 6) != 6)
        return 2;
    enter(argv[1]);
    bool strict = strcmp(argv[1], "sandbox-strict") == 0;
    say(read(s, got, 6) == 6 && memcmp(got, "before", 6) == 0 ? "what was written before\n" : "WRONG\n");
    say(write(s, "answer", 6) == 6 && read(c, got, 6) == 6 && memcmp(got, "answer", 6) == 0 ? "answer\n" : "WRONG\n");
    if (!strict) {
        struct pollfd p = { .fd = s, .events = POLLIN | POLLOUT };
        say(poll(&p, 1, 0) == 1 && p.revents == POLLOUT ? "polled\n" : "WRONG\n");
        say(raise(SIGUSR1) == 0 && handled == 1 ? "handled\n" : "WRONG\n");
        say(close(c) == 0 && read(s, got, 1) == 0 ? "ended\n" : "WRONG\n");
        say(close(s) == 0 && close(ep) == 0 && close(l) == 0 ? "closed\n" : "WRONG\n");
        _exit(0);
    }
    syscall(SYS_exit, 0);
}
