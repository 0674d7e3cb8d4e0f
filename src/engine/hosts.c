#include "engine/hosts.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <net/if.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>

#include "engine/sys.h"

/* The longest name of the DNS is 253 characters (RFC 1035, 2.3.4); what is longer cannot match. */
#define FIELD_BYTES 256

#define CHUNK_BYTES 4096

/* A line is an address and names, separated by blanks; # starts a comment. */
struct hosts_reader {
    const char *name;
    size_t name_len;
    void (*found)(void *ctx, const struct ns_address *address);
    void *ctx;
    ssize_t count;

    char field[FIELD_BYTES];
    size_t field_len; /* counts on where the field is full, so that a long one is known */
    bool in_comment;
    bool have_address;
    bool skip_line; /* reported already, or its first field is no address */
    struct ns_address address;
};

static void end_field(struct hosts_reader *h)
{
    size_t len = h->field_len;

    h->field_len = 0;
    if (!len || h->skip_line)
        return;
    if (!h->have_address) {
        if (len >= sizeof(h->field)) {
            h->skip_line = true;
            return;
        }
        h->field[len] = '\0';
        h->have_address = true;
        h->skip_line = ns_hosts_literal(&h->address, h->field) < 0;
        return;
    }
    if (len != h->name_len || len >= sizeof(h->field) || strncasecmp(h->field, h->name, len) != 0)
        return;
    h->found(h->ctx, &h->address);
    h->count++;
    h->skip_line = true;
}

static void end_line(struct hosts_reader *h)
{
    end_field(h);
    h->in_comment = false;
    h->have_address = false;
    h->skip_line = false;
}

static void read_character(struct hosts_reader *h, char c)
{
    if (c == '\n') {
        end_line(h);
    } else if (c == '#') {
        end_field(h);
        h->in_comment = true;
    } else if (h->in_comment) {
        return;
    } else if (isspace((unsigned char)c)) {
        end_field(h);
    } else {
        if (h->field_len < sizeof(h->field))
            h->field[h->field_len] = c;
        h->field_len++;
    }
}

ssize_t ns_hosts_lookup(const char *path, const char *name,
                        void (*found)(void *ctx, const struct ns_address *address), void *ctx)
{
    struct hosts_reader h = { .name = name, .name_len = strlen(name), .found = found, .ctx = ctx };
    char chunk[CHUNK_BYTES];
    ssize_t len;
    int fd;

    if (h.name_len && name[h.name_len - 1] == '.')
        h.name_len--;
    fd = ns_sys_high(ns_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
    if (fd < 0)
        return fd;
    while ((len = ns_sys_read(fd, chunk, sizeof(chunk))) != 0) {
        if (len == -EINTR)
            continue;
        if (len < 0)
            break;
        for (ssize_t i = 0; i < len; i++)
            read_character(&h, chunk[i]);
    }
    end_line(&h);
    ns_sys_close(fd);
    return len < 0 ? len : h.count;
}

/* if_nametoindex(3) with nothing that could be interposed. */
static int index_of_interface(const char *name)
{
    struct ifreq request = { 0 };
    int fd, error;

    if (!*name || strlen(name) >= sizeof(request.ifr_name))
        return -ENODEV;
    memcpy(request.ifr_name, name, strlen(name));
    fd = ns_sys_high(ns_sys_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (fd < 0)
        return fd;
    error = ns_sys_ioctl(fd, SIOCGIFINDEX, &request);
    ns_sys_close(fd);
    return error < 0 ? -ENODEV : request.ifr_ifindex;
}

int ns_hosts_literal(struct ns_address *a, const char *text)
{
    char bare[INET6_ADDRSTRLEN];
    const char *scope = strchr(text, '%');
    struct in_addr v4;
    int error, index;

    if (ns_address_parse(a, text) == 0)
        return 0;
    if (!scope) {
        /* inet_aton lets anything follow after a blank. */
        if (!*text || strpbrk(text, " \t\n\v\f\r") || !inet_aton(text, &v4))
            return -EINVAL;
        memset(a, 0, sizeof(*a));
        a->family = AF_INET;
        memcpy(a->bytes, &v4, sizeof(v4));
        return 0;
    }
    if ((size_t)(scope - text) >= sizeof(bare))
        return -EINVAL;
    memcpy(bare, text, (size_t)(scope - text));
    bare[scope - text] = '\0';
    error = ns_address_parse(a, bare);
    if (error < 0)
        return error;
    if (a->family != AF_INET6)
        return -EINVAL;
    index = index_of_interface(scope + 1);
    if (index < 0)
        return index;
    a->scope_id = (uint32_t)index;
    return 0;
}
