/* Shared by the two directions of data (send.c, recv.c). */
#ifndef NS_ENGINE_DATA_H
#define NS_ENGINE_DATA_H

#include <errno.h>
#include <stdbool.h>

/*
 * For what lies between an application's call and the kernel's in steady state: one
 * function, however many it is written as. Where the kernel guards against speculated
 * returns (Linux, Documentation/admin-guide/hw-vuln/srso.rst) the processor has forgotten
 * its callers after a system call, and guesses each return on the way back wrong.
 */
#define NS_FLAT inline __attribute__((always_inline))

/* Whether an error says that the connection is dead, as opposed to the call
 * being wrong or early. Thesis 5.1.2 has ETIMEDOUT and EHOSTUNREACH; a reset or
 * an unreachable network is a lost path just as well. */
static inline bool ns_error_is_loss(int err)
{
    switch (-err) {
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case ENETRESET:
    case ECONNABORTED:
    case ECONNRESET:
    case EHOSTDOWN:
    case ENONET:
    case EPROTO:
    case EPIPE:
    case ENOTCONN:
        return true;
    default:
        return false;
    }
}

#endif
