/*
 * Resolving names: what comes back tells the engine which name an address
 * belongs to, so that it can ask again at a resume (thesis 5.1.1).
 */
#include "preload/interpose.h"

NS_EXPORT int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                          struct addrinfo **list)
{
    int r = ns_real.getaddrinfo(name, service, hints, list);

    if (r == 0 && ns_ready())
        ns_names_learn(name, *list);
    return r;
}

static void learn(const char *name, const struct hostent *h)
{
    if (h && ns_ready())
        ns_names_learn_hostent(name, h);
}

NS_EXPORT struct hostent *gethostbyname(const char *name)
{
    struct hostent *h = ns_real.gethostbyname(name);

    learn(name, h);
    return h;
}

NS_EXPORT struct hostent *gethostbyname2(const char *name, int family)
{
    struct hostent *h = ns_real.gethostbyname2(name, family);

    learn(name, h);
    return h;
}

NS_EXPORT int gethostbyname_r(const char *name, struct hostent *entry, char *buf, size_t bytes,
                              struct hostent **result, int *error)
{
    int r = ns_real.gethostbyname_r(name, entry, buf, bytes, result, error);

    if (r == 0)
        learn(name, *result);
    return r;
}

NS_EXPORT int gethostbyname2_r(const char *name, int family, struct hostent *entry, char *buf, size_t bytes,
                               struct hostent **result, int *error)
{
    int r = ns_real.gethostbyname2_r(name, family, entry, buf, bytes, result, error);

    if (r == 0)
        learn(name, *result);
    return r;
}
