/*
 * What a second thread costs a program, whatever it does: preloaded, this one makes a thread that
 * sleeps, as the shim's helper does, and nothing else. For processes.py.
 */
#include <pthread.h>
#include <unistd.h>

static void *sleeps(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static __attribute__((constructor)) void begin(void)
{
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    pthread_create(&thread, &attr, sleeps, NULL);
    pthread_attr_destroy(&attr);
}
