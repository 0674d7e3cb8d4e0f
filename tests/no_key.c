/* Preloaded behind the shim: there is no thread key to be had (pthread_key_create(3)), so the engine cannot begin. */
#include <errno.h>
#include <pthread.h>

__attribute__((visibility("default"))) int pthread_key_create(pthread_key_t *key, void (*end)(void *))
{
    return EAGAIN;
}
