// sendfile HOST PORT: the end of a file must not wait for what will not come. The peer echoes.
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/sockios.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FILE_BYTES = 1000, ASKED = 1 << 20 };

static bool echoed(int s, const char *bytes, size_t n)
{
    char got[FILE_BYTES];
    return recv(s, got, n, MSG_WAITALL) == (ssize_t)n && memcmp(got, bytes, n) == 0;
}

static int wrong(const char *what)
{
    printf("WRONG: %s\n", what);
    return 1;
}

int main(int argc, char **argv)
{
    struct addrinfo want = { .ai_socktype = SOCK_STREAM }, *list;
    char bytes[FILE_BYTES];
    if (argc != 3 || getaddrinfo(argv[1], argv[2], &want, &list) != 0)
        return 2;
    int s = socket(list->ai_family, SOCK_STREAM, 0), file = memfd_create("file", 0), unsent = -1;
    // Without Nagle's algorithm only MSG_MORE keeps a short segment back.
    if (connect(s, list->ai_addr, list->ai_addrlen) != 0 ||
        setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) != 0)
        return wrong("connect");
    freeaddrinfo(list);
    for (int i = 0; i < FILE_BYTES; i++)
        bytes[i] = (char)(i * 7);
    if (write(file, bytes, sizeof bytes) != sizeof bytes || write(s, bytes, 1) != 1 || !echoed(s, bytes, 1))
        return wrong("beginning");

    off_t at = 10;
    if (sendfile(s, file, &at, ASKED) != FILE_BYTES - 10 || at != FILE_BYTES)
        return wrong("sendfile from an offset");
    if (ioctl(s, SIOCOUTQNSD, &unsent) != 0 || unsent != 0)
        return wrong("the end of the file is kept back");
    if (!echoed(s, bytes + 10, FILE_BYTES - 10))
        return wrong("other bytes");

    if (lseek(file, 0, SEEK_SET) != 0 || sendfile(s, file, NULL, ASKED) != FILE_BYTES ||
        lseek(file, 0, SEEK_CUR) != FILE_BYTES)
        return wrong("sendfile from the position");
    if (ioctl(s, SIOCOUTQNSD, &unsent) != 0 || unsent != 0)
        return wrong("the end of the file is kept back");
    if (!echoed(s, bytes, FILE_BYTES) || sendfile(s, file, NULL, ASKED) != 0)
        return wrong("the end of the file");
    return 0;
}
