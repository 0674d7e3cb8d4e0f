// traffic: both ends of a TCP conversation in plain sockets, every byte checked where it arrives.
//
// The forms are the ways in which programs use a socket (blocking, select, poll, epoll, threads); the modes
// are the patterns of data. A fault is put under a running pair by tests/faults.py; the pair says whether the
// stream survived it.
#ifndef NS_TESTS_TRAFFIC_H
#define NS_TESTS_TRAFFIC_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

enum traffic_mode {
    MODE_STREAM,        // both directions as fast as they go
    MODE_UP,            // client to server only
    MODE_DOWN,          // server to client only
    MODE_RECORDS,       // a small record every interval, each answered by as many bytes
    MODE_IDLE,          // connected and silent until told to go, then the client's bytes are answered
    MODE_HALFCLOSE,     // the client ends its direction, the server goes on
    MODE_URGENT,        // as MODE_STREAM, now and then a byte sent as urgent data (received in line)
    MODE_COUNT
};

enum traffic_form { FORM_BLOCKING, FORM_SELECT, FORM_POLL, FORM_EPOLL, FORM_EPOLL_ET, FORM_THREADS, FORM_COUNT };

// Which processes have a connection, one after the other.
enum traffic_shape {
    SHAPE_ONE,          // this one
    SHAPE_FORK,         // a server's child for each connection; a client's child, while its parent waits
    SHAPE_EXEC,         // the same child becomes another program; a client executes one itself
    SHAPE_VFORK,        // the same by vfork, and the parent waits
    SHAPE_SPAWN,        // by posix_spawn
    SHAPE_INETD,        // a program that has the connection as standard input, output and error
    SHAPE_PREFORK,      // a server: workers that all accept
    SHAPE_DAEMON,       // forked twice, in a session of its own, with nothing else open
    SHAPE_SETUID,       // who has the connection becomes another user
    SHAPE_PRIVSEP,      // a server: a child in a sandbox begins, another goes on when it has ended
    SHAPE_PASSED,       // another process gets it by SCM_RIGHTS
    SHAPE_PAIR,         // a child reads, and its parent writes
    SHAPE_COUNT
};

// NOBODY is for ourselves: a worker was shown a client that came and left.
enum { EXIT_WRONG = 1, EXIT_USAGE = 2, EXIT_CONNECTION = 3, EXIT_TIMEOUT = 4, EXIT_NOBODY = 5 };

#define UNTIL_TOLD UINT64_MAX
#define CHUNK_BYTES 16384
#define SLOTS_MAX 1000

struct traffic_options {
    bool server;
    const char *host;
    const char *port;
    enum traffic_form form;
    enum traffic_mode mode;
    uint64_t up_bytes;          // client to server, UNTIL_TOLD: until "stop"
    uint64_t down_bytes;        // server to client
    uint64_t rate_bytes_s;      // per connection and direction, 0: as fast as it goes
    uint64_t seed;
    unsigned connections;       // a server: end after so many, 0: never
    unsigned record_bytes;
    unsigned interval_ms;
    unsigned timeout_s;
    bool server_speaks_first;
    bool quiet;                 // a client: send nothing at all until told to go
    enum traffic_shape shape;
    char *given;                // another program: the descriptors, with commas between
    bool standard;              // it has the connection under 0, 1 and 2
    char **argv;                // its own
    bool check_so_error;
    bool json;
};

struct gaps {
    int64_t last_ns;            // of the last arrival, 0: none yet
    int64_t longest_ns;
    uint64_t sum_ns;
    uint64_t count;
    uint64_t late;              // longer than twice the interval
};

// One connection. Its two directions may be driven by two threads: `lock` covers what both look at.
struct conn {
    int fd;
    FILE *in, *out;             // it is read and written by stdio
    bool server;
    atomic_bool used;
    unsigned number;            // the client's number of it, told in the opening
    enum traffic_mode mode;
    uint64_t seed;

    uint8_t opening[32];        // client to server, before the stream: what the client asks for
    atomic_size_t opening_bytes;       // sent (client) or received (server) of it
    uint8_t banner[16];
    atomic_size_t banner_bytes;        // the same of the server's banner (server_speaks_first)

    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t out_bytes, out_total;      // total: UNTIL_TOLD until known
    uint64_t in_bytes, in_total;
    uint64_t out_hash, in_hash;
    uint64_t oob_bytes;
    bool out_ended, in_ended;
    bool can_read, can_write;   // edges not yet used up (FORM_EPOLL_ET)
    int64_t start_ns;
    struct gaps gaps;
    struct sockaddr_storage local, remote;
};

extern struct traffic_options opt;
extern atomic_bool told_go, told_stop;

int64_t now_ns(void);

// -- traffic_conn.c: the bytes of one connection ---------------------------------------------------------------

// Set up `c` for a connected socket. The client's connections are numbered by the caller.
void conn_init(struct conn *c, int fd, bool server, unsigned number);

// `opening` is there, read by somebody else.
void conn_opened(struct conn *c);

// Zeroed memory for connections; with SHAPE_PAIR their processes have it in common. NULL: there is none.
void *conn_memory(size_t bytes);

// How many bytes may be sent at this moment (opening and banner included), and, when none, after how many ms to
// ask again (-1: something must arrive first).
size_t conn_sendable(struct conn *c, int *ask_again_ms);

// One send, of at most CHUNK_BYTES. Returns bytes, or 0 when the socket would block or nothing may be sent.
size_t conn_send(struct conn *c);

// One receive, checked. Returns bytes, 0 at the end of the stream, or -1 when the socket would block.
ssize_t conn_receive(struct conn *c);

// End this side's direction if all is sent; true once both directions have ended.
bool conn_advance(struct conn *c);

// Check what must hold at the end (counts, names, SO_ERROR), print the connection's line, close it.
void conn_finish(struct conn *c);

// Addresses are what they were at first, or the program ends with EXIT_WRONG.
void conn_check_names(struct conn *c);

// Sums over all connections of this process, for the progress line.
void conn_totals(uint64_t *in_bytes, uint64_t *out_bytes, unsigned *in_ended);

// -- traffic_forms.c: how the sockets are waited for ------------------------------------------------------------

// What one process has: the slots, and how many connections came and went.
struct house {
    int listener;           // -1: a client, or a program that was given its connections
    struct conn *conns;
    unsigned n;             // slots
    unsigned started, finished;
    int epoll_fd;
    uint32_t interest[SLOTS_MAX];
};

// A client's: all of them.
void house_connect(struct house *h);

// More are to come.
bool house_accepting(const struct house *h);

// NULL when a non-blocking listener has nothing.
struct conn *house_accept(struct house *h);

// Serve or run until all connections have ended.
void house_run(struct house *h);

// What the threads of FORM_THREADS do with a connection, for who has processes in their place.
void read_all(struct conn *c);
void write_all(struct conn *c);

// -- traffic_shapes.c: which processes ---------------------------------------------------------------------------

// Before it listens or connects.
void shapes_begin(void);

// Everything after that. `listener` is -1 for a client, whose `n` connections are made, and for a program that was
// given them.
void shapes_run(int listener, struct conn *conns, unsigned n);

// -- traffic.c: control and report ------------------------------------------------------------------------------

extern int control_fds[2];      // to wait for with the sockets: stdin (-1 after its end) and the signals' pipe
extern int signal_pipe_write;
extern int report_fd;           // stdout, if no connection is there

// Read what control has to say; waits up to timeout_ms.
void control_poll(int timeout_ms);

// A progress line, at most one each 20 ms unless `now`.
void progress(bool now);

// One line on stdout, whole.
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Say why on stdout and stderr, and end with `status`.
void fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

int toy_echo(int argc, char **argv);

#endif
