/* The library calls libc under its own names; only the shim has to look them up. */
#include "engine/libc.h"

#include <unistd.h>

struct ns_libc ns_libc = {
    .recv = recv,
    .recvmsg = recvmsg,
    .read = read,
    .accept4 = accept4,
    .connect = connect,
    .ppoll = ppoll,
    .epoll_pwait = epoll_pwait,
};
