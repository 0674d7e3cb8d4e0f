// signals: a program that its signal handlers interrupt in the middle of socket calls. tests/rig/signal_cases.py
// runs it; it means the same with and without the shim.
//
//     signals serve PORT sink|still|speak      accepts one connection
//     signals jump|nested|poll|restart|first HOST PORT...
//
// What is sent are records of 64 bytes, each written by one call and checked by the sink. SO_SNDBUF has room for
// all that is under way, so that a write is never cut short and the kernel takes each record as a whole.
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { RECORD = 64, IN_FLIGHT = 256, STORM_US = 1000 };

struct record {
    char kind; // 'm' by the main program, 'h' by a handler
    char filling[RECORD - 1 - sizeof(uint64_t)];
    uint64_t number;
};

static int fd;
static atomic_ulong handled[65];
static uint64_t numbers[128]; // of the next record, by kind

// One write(2), since handlers say something too.
static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(line, sizeof line - 1, format, ap);
    va_end(ap);
    line[n++] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)n) != n)
        _exit(3);
}

static void fail(const char *what)
{
    say("WRONG: %s (%s)", what, strerror(errno));
    _exit(1);
}

static void on(int sig, void (*handler)(int), int flags)
{
    struct sigaction a = { .sa_handler = handler, .sa_flags = flags }, told;
    if (sigaction(sig, &a, NULL) != 0 || sigaction(sig, NULL, &told) != 0)
        fail("sigaction");
    // 0x04000000 is SA_RESTORER, libc's own.
    if (told.sa_handler != handler || ((unsigned)told.sa_flags & ~0x04000000u) != (unsigned)flags)
        fail("sigaction tells of another handler");
}

static int dial(const char *host, const char *port, int type)
{
    struct addrinfo want = { .ai_socktype = SOCK_STREAM }, *list;
    if (getaddrinfo(host, port, &want, &list) != 0)
        fail("getaddrinfo");
    int s = socket(list->ai_family, SOCK_STREAM | type, 0), room = 1 << 20;
    setsockopt(s, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (connect(s, list->ai_addr, list->ai_addrlen) != 0 && errno != EINPROGRESS)
        fail("connect");
    freeaddrinfo(list);
    return s;
}

static void fill(struct record *r, char kind, uint64_t number)
{
    r->kind = kind;
    r->number = number;
    for (size_t i = 0; i < sizeof r->filling; i++)
        r->filling[i] = (char)(number * 31 + i + (unsigned char)kind);
}

// -- the peer ---------------------------------------------------------------------------------------------------

static void check(const struct record *r)
{
    struct record want;
    uint64_t *next = &numbers[r->kind & 127];
    fill(&want, r->kind, r->number);
    if (memcmp(&want, r, sizeof want) != 0)
        fail("a record is not as it was sent");
    // A handler that jumped out of a write leaves the program not knowing whether the record went.
    if (r->number != *next && r->number + 1 != *next)
        fail("a record is missing");
    if (r->number == *next)
        ++*next;
}

static void sink(void)
{
    struct record r[IN_FLIGHT];
    size_t have = 0, whole = 0;
    uint64_t told = 0;
    for (ssize_t n; (n = read(fd, (char *)r + have, sizeof r - have)) != 0;) {
        if (n < 0)
            fail("read");
        have += (size_t)n;
        for (; (whole + 1) * RECORD <= have; whole++) {
            check(&r[whole]);
            if (write(fd, "a", 1) != 1)
                fail("write");
        }
        if (have == sizeof r)
            have = whole = 0;
        if (numbers['m'] >= told + 1024)
            say("records m=%lu", (unsigned long)(told = numbers['m']));
    }
    say("end m=%lu h=%lu", (unsigned long)numbers['m'], (unsigned long)numbers['h']);
}

static void speak(void)
{
    char line[64];
    struct record r;
    if (recv(fd, &r, sizeof r, MSG_WAITALL) != RECORD || !fgets(line, sizeof line, stdin) ||
        write(fd, line, 1) != 1 || !fgets(line, sizeof line, stdin))
        fail("speak");
}

// Reads as many bytes as it is told to, and no more.
static void still(void)
{
    static char block[65536];
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        for (size_t left = strtoul(line, NULL, 10), n; left > 0; left -= n) {
            n = left < sizeof block ? left : sizeof block;
            if (recv(fd, block, n, MSG_WAITALL) != (ssize_t)n)
                fail("recv");
        }
        say("read %s", line);
    }
}

static int serve(const char *port, const char *how)
{
    int listener = socket(AF_INET6, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port)) };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) != 0 || listen(listener, 8) != 0)
        fail("listen");
    say("listening");
    if ((fd = accept(listener, NULL, NULL)) < 0)
        fail("accept");
    if (strcmp(how, "sink") == 0)
        sink();
    else if (strcmp(how, "speak") == 0)
        speak();
    else
        still();
    return 0;
}

// -- a storm of signals over writes -----------------------------------------------------------------------------

static sigjmp_buf back;
static volatile sig_atomic_t may_jump, jumps;

static void jump(int sig)
{
    // Not each time: a slow machine has to get on.
    if (handled[sig]++ % 4 != 0 || !may_jump)
        return;
    may_jump = 0;
    jumps++;
    siglongjmp(back, sig);
}

static void write_too(int sig)
{
    struct record r;
    if (handled[sig]++ % 4 == 0 && numbers['m'] > 0) {
        fill(&r, 'h', numbers['h']);
        if (write(fd, &r, sizeof r) != sizeof r)
            fail("a handler's write");
        numbers['h']++;
    }
}

// One answer for each record; the storm stays outside, so that the count is sure.
static void take_answers(uint64_t *answers)
{
    sigset_t storm, saved;
    char got[IN_FLIGHT];
    sigemptyset(&storm);
    sigaddset(&storm, SIGALRM);
    sigprocmask(SIG_BLOCK, &storm, &saved);
    uint64_t sent = numbers['m'] + numbers['h'];
    if (*answers + IN_FLIGHT / 2 < sent) {
        ssize_t n = recv(fd, got, sizeof got, 0);
        if (n <= 0)
            fail("recv");
        *answers += (uint64_t)n;
    }
    sigprocmask(SIG_SETMASK, &saved, NULL);
}

static bool told_to_stop(void)
{
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
    return poll(&p, 1, 0) == 1;
}

static int storm(void (*handler)(int))
{
    struct itimerval every = { { 0, STORM_US }, { 0, STORM_US } }, never = { { 0, 0 }, { 0, 0 } };
    static struct record r;
    static uint64_t answers;
    fill(&r, 'm', 0);
    if (write(fd, &r, sizeof r) != sizeof r)
        fail("write");
    numbers['m'] = 1;
    on(SIGALRM, handler, SA_RESTART);
    setitimer(ITIMER_REAL, &every, NULL);
    while (numbers['m'] % 64 != 0 || !told_to_stop()) {
        take_answers(&answers);
        fill(&r, 'm', numbers['m']);
        if (sigsetjmp(back, 1) != 0)
            continue;
        may_jump = 1;
        ssize_t n = write(fd, &r, sizeof r);
        may_jump = 0;
        if (n == RECORD)
            numbers['m']++;
        else if (n >= 0 || errno != EINTR)
            fail("write");
    }
    setitimer(ITIMER_REAL, &never, NULL);
    shutdown(fd, SHUT_WR);
    say("sent m=%lu h=%lu jumps=%d", (unsigned long)numbers['m'], (unsigned long)numbers['h'], (int)jumps);
    while (recv(fd, &r, sizeof r, 0) > 0)
        ;
    return 0;
}

// -- a wait on top of a wait ------------------------------------------------------------------------------------

static void look(int sig)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    poll(&p, 1, 0);
    say("looked %lu", ++handled[sig]);
}

static int wait_on_wait(void)
{
    struct record r;
    char byte;
    on(SIGUSR1, look, SA_RESTART);
    fill(&r, 'm', 0);
    if (write(fd, &r, sizeof r) != sizeof r)
        fail("write");
    say("reading");
    if (read(fd, &byte, 1) != 1)
        fail("read");
    say("got %c", byte);
    return 0;
}

// -- which handler ends a call ----------------------------------------------------------------------------------

static void count(int sig)
{
    say("handled %s %lu", sig == SIGUSR1 ? "USR1" : "USR2", ++handled[sig]);
}

// Until nothing more goes anywhere. Returns how much went.
static size_t fill_up(const char *block, size_t size)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    size_t sum = 0, before;
    do {
        before = sum;
        for (ssize_t n; (n = send(fd, block, size, MSG_DONTWAIT)) > 0;)
            sum += (size_t)n;
        // Not writable is less than full: poll(2) wants a third of the buffer free.
    } while (poll(&p, 1, 200) > 0 || sum != before);
    return sum;
}

static int restart(void)
{
    static char block[1 << 25];
    on(SIGUSR1, count, SA_RESTART);
    on(SIGUSR2, count, 0);
    say("filled %zu", fill_up(block, 1 << 20));
    ssize_t n = write(fd, block, sizeof block);
    if (n <= 0 || n == sizeof block)
        fail("a write that had got something off did not end early");
    fill_up(block, 1 << 20);
    say("writing a byte");
    // What is on its way takes more memory at the sender than at the receiver: there may be room for some yet.
    while ((n = write(fd, block, 1)) == 1)
        ;
    if (n != -1 || errno != EINTR)
        fail("not interrupted");
    say("interrupted, USR1=%lu USR2=%lu", handled[SIGUSR1], handled[SIGUSR2]);
    return 0;
}

// -- the first write, while the peer is being asked -------------------------------------------------------------

static bool by_select(int s, bool wait)
{
    fd_set w;
    struct timeval zero = { 0, 0 };
    FD_ZERO(&w);
    FD_SET(s, &w);
    return select(s + 1, NULL, &w, NULL, wait ? NULL : &zero) == 1;
}

static bool by_poll(int s, bool wait)
{
    struct pollfd p = { .fd = s, .events = POLLOUT };
    return poll(&p, 1, wait ? -1 : 0) == 1;
}

static bool by_epoll(int s, bool wait, uint32_t how)
{
    static int ep;
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | how, .data.fd = s };
    if (!wait) {
        ep = epoll_create1(0);
        epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
    }
    return epoll_wait(ep, &e, 1, wait ? -1 : 0) == 1 && (e.events & EPOLLOUT);
}

static bool by_level(int s, bool wait)
{
    return by_epoll(s, wait, 0);
}

static bool by_edge(int s, bool wait)
{
    return by_epoll(s, wait, EPOLLET);
}

static bool by_one_shot(int s, bool wait)
{
    return by_epoll(s, wait, EPOLLONESHOT);
}

// The peer is near: such a write may wait a moment for its answer, until one has waited in vain.
static ssize_t send_at_once(int s)
{
    return send(s, "x", 1, MSG_DONTWAIT);
}

// Turned away, and not writable, or neither: the answer may have come in between.
static bool refused(int s, bool (*writable)(int, bool))
{
    if (send_at_once(s) == 1)
        return false;
    if (errno != EAGAIN)
        fail("send");
    bool said = writable(s, false);
    ssize_t n = send_at_once(s);
    if (said && n != 1)
        fail("not writable though it was said to be");
    if (n != 1 && (!writable(s, true) || send_at_once(s) != 1))
        fail("not writable in the end");
    return true;
}

// Writable means that the connection stands and takes something.
static void told_writable(int s, bool (*writable)(int, bool))
{
    int error = 0;
    socklen_t length = sizeof error;
    if (!writable(s, false) && !writable(s, true))
        fail("never writable");
    if (getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error || send_at_once(s) != 1)
        fail("not writable though it was said to be");
}

static int first_write(char **argv)
{
    static bool (*const ways[])(int, bool) = { by_poll, by_select, by_level, by_edge, by_one_shot };
    int count = 0;
    for (int i = 0; i < 5; i++) {
        count += refused(dial(argv[2], argv[3 + i], 0), ways[i]);
        told_writable(dial(argv[2], argv[8 + i], SOCK_NONBLOCK), ways[i]);
    }
    say("refused %d", count);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2], argv[3]);
    if (argc == 13 && strcmp(argv[1], "first") == 0)
        return first_write(argv);
    if (argc != 4)
        return 2;
    fd = dial(argv[2], argv[3], 0);
    say("connected");
    if (strcmp(argv[1], "jump") == 0)
        return storm(jump);
    if (strcmp(argv[1], "nested") == 0)
        return storm(write_too);
    if (strcmp(argv[1], "poll") == 0)
        return wait_on_wait();
    if (strcmp(argv[1], "restart") == 0)
        return restart();
    return 2;
}
