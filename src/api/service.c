/* Service names and numbers (thesis 5.1.1, nlisten and nconnect). */
#include "api/api.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stddef.h>

/* Room for one line of services(5) with its aliases, taken apart. */
#define SERVICE_BYTES 8192

static int number(const char *text, uint16_t *port)
{
    unsigned value = 0;
    const char *p;

    for (p = text; *p >= '0' && *p <= '9'; p++) {
        value = value * 10 + (unsigned)(*p - '0');
        if (value > UINT16_MAX)
            return -EINVAL;
    }
    if (p == text || *p)
        return -EINVAL;
    *port = (uint16_t)value;
    return 0;
}

int ns_api_port(const char *service, uint16_t *port)
{
    char buf[SERVICE_BYTES];
    struct servent entry, *found = NULL;

    if (!service)
        return -EINVAL;
    if (number(service, port) == 0)
        return 0;
    if (getservbyname_r(service, "tcp", &entry, buf, sizeof(buf), &found) != 0 || !found)
        return -EINVAL;
    *port = ntohs((uint16_t)found->s_port);
    return 0;
}
