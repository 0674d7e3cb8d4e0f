#include "daemon/settings.h"

#include "core/policy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct check {
    char *error;
    size_t error_bytes;
    void (*warn)(const char *line);
    bool bad;
};

static void complain(void *ctx, const char *key, int error, const char *line)
{
    struct check *c = ctx;

    if (error == -ENOENT)
        c->warn(line);
    else if (!c->bad)
        snprintf(c->error, c->error_bytes, "%s", line);
    c->bad |= error != -ENOENT;
}

static int check_log(const char *file, struct check *c)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

    if (fd < 0) {
        snprintf(c->error, c->error_bytes, "NAMESOCKET_LOG_FILE: cannot write %s: %s", file, strerror(errno));
        return -EINVAL;
    }
    close(fd);
    return 0;
}

int ns_settings_check(char *error, size_t error_bytes, void (*warn)(const char *line))
{
    struct check check = { .error = error, .error_bytes = error_bytes, .warn = warn };
    struct ns_policy policy;

    ns_policy_defaults(&policy);
    ns_policy_read(&policy, environ, complain, &check);
    if (check.bad)
        return -EINVAL;
    return *policy.log_file ? check_log(policy.log_file, &check) : 0;
}
