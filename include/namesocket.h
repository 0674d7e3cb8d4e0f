/*
 * namesocket: TCP connections to names, which outlive their addresses.
 *
 * The nine functions of the thesis's table 4.1 (semantics in its 4.2.1, calling
 * convention in its 5.1.1), and what a program needs to know about a connection
 * that may change addresses. namesocket(3) has the same text with an example.
 *
 * A namesocket descriptor (`nsd`) is an ordinary file descriptor: it may be
 * given to fcntl(2), getsockopt(2), setsockopt(2), getsockname(2) and
 * getpeername(2), and it is a valid member of an fd_set. The thesis had a table
 * of its own with numbers of its own, because a BSD socket that has failed
 * cannot be connected again; Linux can put another connection under the same
 * number (dup3(2)), so nothing needs translating. Data, waiting, shutting down
 * and closing must go through the functions here all the same: read(2), poll(2)
 * or close(2) see the kernel's socket only, not the session that outlives it.
 *
 * Return values: a descriptor, a count or 0; -1 with `errno` set on failure.
 *
 * Threads: every function may be called from any thread. One thread may send
 * and another receive on one descriptor at the same time. As with close(2),
 * no thread may be using a descriptor that another one closes. None of the
 * functions is async-signal-safe. The library starts one thread of its own,
 * with all signals blocked, when the first connection is protected.
 *
 * Processes: a session belongs to the process that made it. After fork(2) only
 * one of the two processes may go on using it. After execve(2) it is plain TCP;
 * give nsocket() the flag SOCK_CLOEXEC.
 *
 * Signals: sending to a connection that is over raises SIGPIPE as send(2)
 * does; MSG_NOSIGNAL prevents it.
 *
 * A peer that is no namesocket is served as plain TCP. So is everything in a
 * process that runs under libnsshim.so: there the shim protects the connection
 * and the library stands back.
 */
#ifndef NAMESOCKET_H
#define NAMESOCKET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>

#define NAMESOCKET_VERSION_MAJOR 0
#define NAMESOCKET_VERSION_MINOR 1
#define NAMESOCKET_VERSION_PATCH 0
#define NAMESOCKET_VERSION       "0.1.0"

#ifndef NAMESOCKET_API
#define NAMESOCKET_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the thesis's nine functions ---- */

/*
 * Makes a namesocket that is neither connected nor listening. (4.2.1, 5.1.1)
 *
 * flags  0, or SOCK_CLOEXEC and SOCK_NONBLOCK or-ed together, meaning what they
 *        mean to socket(2). Namesockets from naccept() inherit both.
 *
 * The first call of a process reads the NAMESOCKET_* variables (nsrun(1)).
 * Returns the descriptor, to be given up with nclose().
 * Errors: EINVAL another flag; and socket(2)'s: EMFILE, ENFILE, ENOBUFS, ENOMEM.
 */
NAMESOCKET_API int nsocket(int flags);

/*
 * Makes `nsd` a server: it listens on `service` at every address of this host,
 * IPv6 and IPv4 alike (IPv4 alone where the kernel has no IPv6), with
 * SO_REUSEADDR set. (4.2.1, 5.1.1) The address cannot be chosen, since a client
 * may come back by any of them.
 *
 * service  a TCP service's name in services(5), or a port number in decimal;
 *          "0" lets the kernel choose one (getsockname(2) tells which). Copied.
 * backlog  as for listen(2): the number of connections that may be pending.
 *
 * Returns 0.
 * Errors: EINVAL the service is neither, or `nsd` is connected or listening;
 * EADDRINUSE, EACCES from bind(2); EBADF, ENOTSOCK; EPROTOTYPE not a TCP socket.
 */
NAMESOCKET_API int nlisten(int nsd, const char *service, int backlog);

/*
 * Takes the next connection from a listening namesocket, and waits for one if
 * none is pending. (4.2.1, 5.1.1) Clients that come back to a session they
 * have, and namesocket's own questions, are dealt with inside and never seen
 * here. With SOCK_NONBLOCK it does not wait.
 *
 * Returns a new, connected namesocket, to be given up with nclose().
 * Errors: EAGAIN nothing pending (SOCK_NONBLOCK only); EINTR; EINVAL not
 * listening; EBADF, ENOTSOCK, EMFILE, ENFILE, ENOBUFS, ENOMEM as accept(2).
 */
NAMESOCKET_API int naccept(int nsd);

/*
 * Waits until a namesocket (or any other descriptor) in the sets is ready, or
 * until `timeout` has passed; NULL waits for ever. (4.2.1, 5.1.1) The sets are
 * read and then overwritten, as select(2) does; each may be NULL. `timeout` is
 * left as it was.
 *
 * Readable also means: a connection is pending (listening), or the peer has
 * closed (nrecv() will return 0). A connection that is being resumed is
 * neither readable, unless bytes that came before are left, nor in error.
 *
 * nfds  one more than the highest descriptor in the sets, which must all be
 *       below FD_SETSIZE (1024).
 *
 * Returns the number of bits set, 0 after the timeout; on error the sets are
 * unchanged. Errors: EBADF, EINTR, EINVAL, ENOMEM as select(2).
 */
NAMESOCKET_API int nselect(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds,
                           struct timeval *timeout);

/*
 * Connects `nsd` to `service` at `host`; blocks until that has succeeded or
 * failed, SOCK_NONBLOCK or not. (4.2.1, 5.1.1) All addresses of the name are
 * tried, in the order of RFC 6724, staggered as in RFC 8305; the thesis's library
 * tried one after the other. When the connection is lost later, the name is
 * looked up again.
 *
 * host     a name, or an IPv6 or IPv4 address in text. Copied.
 * service  as for nlisten(), except "0". Copied.
 *
 * The connection is a new socket under the old number: SOCK_CLOEXEC and
 * SOCK_NONBLOCK are kept, options set with setsockopt(2) may not be, so set
 * them afterwards.
 *
 * Returns 0. After an error `nsd` is as it was and may be connected again.
 * Errors: ENOENT no such host; EINVAL the service is neither name nor number, or
 * `nsd` is listening; EISCONN; EBADF, ENOTSOCK; EPROTOTYPE not a TCP socket;
 * EAGAIN the name servers do not answer now; EINTR; ENOMEM; and connect(2)'s,
 * from the address that failed last: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH,
 * ENETUNREACH.
 */
NAMESOCKET_API int nconnect(int nsd, const char *host, const char *service);

/*
 * Sends up to `len` bytes. `flags` is send(2)'s. Blocks while there is no room,
 * and while the connection is being resumed, unless SOCK_NONBLOCK or
 * MSG_DONTWAIT forbids that. (4.2.1, 5.1.1)
 *
 * Returns the number of bytes taken, which may be less than `len`. As in TCP,
 * taken is not delivered; but they are delivered if the session is resumed.
 * Errors: those of send(2). A lost link is one only after the give-up time:
 * then the error that the kernel gave first (ETIMEDOUT, EHOSTUNREACH, ...).
 */
NAMESOCKET_API ssize_t nsend(int nsd, const void *msg, size_t len, int flags);

/*
 * Receives up to `len` bytes into `buf`. `flags` is recv(2)'s. Blocks while
 * there is nothing, a resumption included, unless SOCK_NONBLOCK or MSG_DONTWAIT
 * forbids that. (4.2.1, 5.1.1)
 *
 * Returns the number of bytes, 0 when the peer has closed its direction.
 * Errors: those of recv(2); a lost link as for nsend().
 */
NAMESOCKET_API ssize_t nrecv(int nsd, void *buf, size_t len, int flags);

/*
 * Gives the namesocket and its descriptor up, whatever its state. (4.2.1, 5.1.1)
 * Bytes that were sent and not yet acknowledged go on being delivered while
 * the process lives, across a lost link too.
 *
 * Returns 0. Errors: EBADF, EINTR, EIO as close(2); `nsd` is gone but for EBADF.
 */
NAMESOCKET_API int nclose(int nsd);

/*
 * Ends one direction or both. (4.2.1, 5.1.1) The end survives resumptions.
 *
 * how  SHUT_RD, SHUT_WR or SHUT_RDWR.
 *
 * Returns 0. Errors: EINVAL another `how`; ENOTCONN, EBADF, ENOTSOCK.
 */
NAMESOCKET_API int nshutdown(int nsd, int how);

/* ---- what the connection is doing ---- */

/* State of a namesocket. More values may be added at the end. */
enum namesocket_state {
    NAMESOCKET_PLAIN = 0,     /* plain TCP: not connected, listening, peer without namesocket, or demoted */
    NAMESOCKET_ASKING = 1,    /* connected; whether the peer speaks the protocol is not known yet */
    NAMESOCKET_CONNECTED = 2, /* protected, connection up */
    NAMESOCKET_SUSPENDED = 3, /* protected, connection lost, being resumed */
    NAMESOCKET_FAILED = 4     /* was protected; given up, calls return the error */
};

/* Grows at the end only; `size` says how much of it the caller knows. */
struct namesocket_status {
    size_t size;             /* set by the caller: sizeof(struct namesocket_status) */
    int state;               /* enum namesocket_state */
    int protocol_version;    /* spoken with this peer: 1 or 2; 0 when none is */
    uint64_t resumes;        /* how often the connection has been replaced */
    uint64_t bytes_sent;     /* stream bytes taken from this program; 0 when plain */
    uint64_t bytes_received; /* stream bytes acknowledged to the peer, read here or not; 0 when plain */
    uint64_t bytes_replayed; /* of bytes_sent, how many were sent again at resumptions */
    /* The addresses in use now; ss_family is AF_UNSPEC when there is none
     * (not connected, or suspended). getsockname(2) and getpeername(2) too give
     * the present addresses with this library. */
    struct sockaddr_storage local;
    struct sockaddr_storage peer;
    char name[256]; /* the host given to nconnect(), or ""; NUL-terminated, cut when longer */
};

/*
 * Fills in as much of `status` as status->size says. The answer is a moment's:
 * it may have changed on return.
 *
 * Returns 0. Errors: EINVAL status->size is smaller than the first version of the
 * structure; EBADF, ENOTSOCK.
 */
NAMESOCKET_API int nstatus(int nsd, struct namesocket_status *status);

/* The name of a state in English, a constant ("connected"); "unknown" for others. */
NAMESOCKET_API const char *namesocket_state_name(int state);

/* The version of the library in use, a constant such as NAMESOCKET_VERSION
 * (which is the version of this header). */
NAMESOCKET_API const char *namesocket_version(void);

/* ---- logging (5.1.4) ---- */

/* Levels of urgency, falling. A level includes those before it. */
enum namesocket_log_level {
    NAMESOCKET_LOG_NONE = -1, /* nothing at all */
    NAMESOCKET_LOG_ERROR = 0,
    NAMESOCKET_LOG_INFO = 1,
    NAMESOCKET_LOG_DEBUG = 2
};

/*
 * Receives one line: `line` has the thesis's form ("Info: 415 - Thu Dec  9
 * 01:47:29 1999 - ..."), ends in NUL without a newline, and is valid during the
 * call only. Called from whichever thread has something to say, the library's own
 * included, one call at a time. It must not call any function of this header.
 */
typedef void (*namesocket_log_sink)(void *ctx, int level, const char *line);

/*
 * Chooses which lines are logged, and where to; for the whole process, at once.
 * It overrides NAMESOCKET_LOG_LEVEL, and with a sink NAMESOCKET_LOG_FILE.
 *
 * level  enum namesocket_log_level.
 * sink   NULL: the file of NAMESOCKET_LOG_FILE, or standard error without it.
 * ctx    handed to `sink`, borrowed until another sink is set and that call has
 *        returned.
 *
 * Returns 0. Errors: EINVAL another level.
 */
NAMESOCKET_API int namesocket_set_log(int level, namesocket_log_sink sink, void *ctx);

#ifdef __cplusplus
}
#endif

#endif
