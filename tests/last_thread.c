// last_thread CASE: both ends of a connection in one process whose main thread leaves by pthread_exit(3) before
// another does. The process ends with its last thread, as if by exit(0). For surface.py.
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_t main_thread;
static int c, s;

static void bye(void)
{
    puts("bye");
}

static void *last(void *forks)
{
    char got[10] = "";
    pthread_join(main_thread, NULL);
    if (write(c, "after", 5) != 5 || read(s, got, 5) != 5)
        exit(3);
    printf("the last thread has read %s\n", got);
    return NULL;
}

// A child's main thread is the one that forked.
static void *forking(void *unused)
{
    int status;
    // A fork in the midst of a thread's unwinding would leave the child an unwinder that is in use for ever.
    pthread_join(main_thread, NULL);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        main_thread = pthread_self();
        pthread_create(&thread, NULL, last, NULL);
        pthread_exit(NULL);
    }
    if (waitpid(child, &status, 0) != child)
        exit(4);
    printf("the child's status is %d\n", status);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM, 0);
    pthread_t thread;
    c = socket(AF_INET, SOCK_STREAM, 0);
    char got[10] = "";
    if (argc != 2 || bind(l, (struct sockaddr *)&a, len) != 0 || listen(l, 5) != 0 ||
        getsockname(l, (struct sockaddr *)&a, &len) != 0 || connect(c, (struct sockaddr *)&a, len) != 0 ||
        (s = accept(l, NULL, NULL)) < 0)
        return 2;
    if (write(c, "?", 1) != 1 || read(s, got, 1) != 1 || write(s, "!", 1) != 1 || read(c, got, 1) != 1)
        return 2;
    atexit(bye);
    main_thread = pthread_self();
    pthread_create(&thread, NULL, strcmp(argv[1], "last-thread-forks") == 0 ? forking : last, NULL);
    pthread_exit(NULL);
}
