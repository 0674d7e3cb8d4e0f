/* Preloaded behind the shim: there is never another thread to be had (pthread_create(3)). */
#include <errno.h>
#include <pthread.h>

__attribute__((visibility("default"))) int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                                                          void *(*start)(void *), void *argument)
{
    return EAGAIN;
}
