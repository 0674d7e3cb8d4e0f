/*
 * POSIX asynchronous I/O. Threads of libc's read and write for the application, now or
 * later, where nothing stands in front of them. So a session becomes plain TCP first.
 */
#include "preload/interpose.h"

/* 0, or the error with which the session has ended. Neither call may say EINTR. */
static int leave(const struct aiocb *cb)
{
    int r = 0;

    if (ns_ready() && ns_plausible(cb) && ns_ours(cb->aio_fildes)) {
        do {
            r = ns_fd_leave(cb->aio_fildes, "asynchronous I/O");
        } while (r == -EINTR);
    }
    return r;
}

NS_EXPORT int aio_read(struct aiocb *cb)
{
    int r = leave(cb);

    return r < 0 ? (int)ns_result(r) : ns_real.aio_read(cb);
}

NS_EXPORT int aio_write(struct aiocb *cb)
{
    int r = leave(cb);

    return r < 0 ? (int)ns_result(r) : ns_real.aio_write(cb);
}

/* One whose session has ended keeps all from being begun. */
NS_EXPORT int lio_listio(int mode, struct aiocb *const list[], int n, struct sigevent *event)
{
    int r = 0;

    for (int i = 0; ns_ready() && ns_plausible(list) && i < n && r == 0; i++)
        if (list[i] && list[i]->aio_lio_opcode != LIO_NOP)
            r = leave(list[i]);
    return r < 0 ? (int)ns_result(r) : ns_real.lio_listio(mode, list, n, event);
}

/* Where off_t has 64 bits the LFS structure is the same; only its name is another. */

NS_EXPORT int aio_read64(struct aiocb64 *cb)
{
    return aio_read((struct aiocb *)cb);
}

NS_EXPORT int aio_write64(struct aiocb64 *cb)
{
    return aio_write((struct aiocb *)cb);
}

NS_EXPORT int lio_listio64(int mode, struct aiocb64 *const list[], int n, struct sigevent *event)
{
    return lio_listio(mode, (struct aiocb *const *)list, n, event);
}
