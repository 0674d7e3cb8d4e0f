#include "daemon/shim.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEPARATORS ": " /* ld.so(8) */

/* `path` becomes DIR/tail with links and dots resolved, when that file is there. */
static bool try_path(const char *dir, const char *tail, char *path, size_t path_bytes)
{
    char resolved[PATH_MAX];

    if (snprintf(path, path_bytes, "%s/%s", dir, tail) >= (int)path_bytes)
        return false;
    if (!realpath(path, resolved) || strlen(resolved) >= path_bytes || access(resolved, R_OK) < 0)
        return false;
    strcpy(path, resolved);
    return true;
}

int ns_shim_find(char *path, size_t path_bytes)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n > 0) {
        self[n] = '\0';
        slash = strrchr(self, '/');
        if (slash)
            *slash = '\0';
        if (try_path(self, "../preload/libnsshim.so", path, path_bytes))
            return 0;
#ifdef NS_SHIM_FROM_BIN
        if (try_path(self, NS_SHIM_FROM_BIN "/libnsshim.so", path, path_bytes))
            return 0;
#endif
    }
    return try_path(NS_SHIM_DIR, "libnsshim.so", path, path_bytes) ? 0 : -ENOENT;
}

static bool listed(const char *list, const char *path)
{
    size_t len = strlen(path);

    while (*list) {
        size_t entry = strcspn(list, SEPARATORS);

        if (entry == len && memcmp(list, path, len) == 0)
            return true;
        list += entry;
        list += strspn(list, SEPARATORS);
    }
    return false;
}

int ns_shim_preload(const char *path)
{
    const char *old = getenv("LD_PRELOAD");
    char *list;
    int r;

    if (strpbrk(path, SEPARATORS))
        return -EINVAL;
    if (!old || !*old)
        return setenv("LD_PRELOAD", path, 1) < 0 ? -ENOMEM : 0;
    if (listed(old, path))
        return 0;
    if (asprintf(&list, "%s:%s", path, old) < 0)
        return -ENOMEM;
    r = setenv("LD_PRELOAD", list, 1) < 0 ? -ENOMEM : 0;
    free(list);
    return r;
}
