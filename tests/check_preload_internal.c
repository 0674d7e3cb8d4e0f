/*
 * Run under the shim with preload_raw_engine.c, to which number 256 is the
 * engine's own: nothing an application does to its descriptors reaches it.
 * Exits 0 when all holds, or prints the line that does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INTERNAL 256

static int failures;

#define HOLDS(condition)                                                                                   \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);              \
            failures++;                                                                                    \
        }                                                                                                  \
    } while (0)

static int is_open(int fd)
{
    return fcntl(fd, F_GETFD) != -1;
}

int main(void)
{
    HOLDS(fcntl(0, F_DUPFD, INTERNAL - 1) == INTERNAL - 1);
    HOLDS(fcntl(0, F_DUPFD, INTERNAL) == INTERNAL);
    HOLDS(fcntl(0, F_DUPFD, INTERNAL + 1) == INTERNAL + 1);

    HOLDS(close(INTERNAL) == -1 && errno == EBADF);
    HOLDS(syscall(SYS_close, INTERNAL) == -1 && errno == EBADF);
    HOLDS(dup2(1, INTERNAL) == -1 && errno == EBUSY);
    HOLDS(dup3(1, INTERNAL, O_CLOEXEC) == -1 && errno == EBUSY);
    HOLDS(dup2(-1, INTERNAL) == -1 && errno == EBADF);
    HOLDS(is_open(INTERNAL));

    HOLDS(close_range(INTERNAL - 1, INTERNAL, 0) == 0);
    HOLDS(!is_open(INTERNAL - 1) && is_open(INTERNAL) && is_open(INTERNAL + 1));
    HOLDS(close_range(INTERNAL, INTERNAL, 0) == 0 && is_open(INTERNAL));
    HOLDS(syscall(SYS_close_range, 200, ~0u, 0) == 0);
    HOLDS(is_open(INTERNAL) && !is_open(INTERNAL + 1));

    HOLDS(fcntl(0, F_DUPFD, INTERNAL + 1) == INTERNAL + 1);
    closefrom(3);
    HOLDS(is_open(INTERNAL) && !is_open(INTERNAL + 1) && is_open(2));
    return failures != 0;
}
