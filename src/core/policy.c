#include "core/policy.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TIME_MS_MAX    (INT64_C(365) * 86400 * 1000)
#define RING_BYTES_MIN (UINT64_C(64) << 10)
#define RING_BYTES_MAX (UINT64_C(1) << 30)

void ns_policy_defaults(struct ns_policy *p)
{
    /* Of lists and texts no more than that they are empty: they are large, and the pages that
     * they lie on need not be touched for that in every process. */
    p->known.count = p->never.count = p->psk_bytes = 0;
    p->log_file[0] = p->broker[0] = '\0';
    p->log_microseconds = p->verbose = false;
    p->ask = NS_ASK_PROBE;
    p->version = 2;
    p->give_up_ms = 600000;
    p->park_ms = 600000;
    p->reset_grace_ms = 15000;
    p->hold_margin_ms = 50;
    p->near_ms = 2;
    p->keepalive_idle_ms = 5000;
    p->lease_ms = 300000;
    p->ephemeral_low = 32768; /* Linux: ip_local_port_range */
    p->ephemeral_high = 60999;
    p->log_level = NS_LOG_INFO;
    p->ring_bytes = (size_t)64 << 20;
}

/* ---- complaints ---- */

struct setting {
    struct ns_policy *policy;
    const char *key, *value;
    char *error;
    size_t error_bytes;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct setting *s, const char *format, ...)
{
    va_list args;

    if (s->error_bytes == 0)
        return -EINVAL;
    int n = snprintf(s->error, s->error_bytes, "NAMESOCKET_%s: ", s->key);
    if (n > 0 && (size_t)n < s->error_bytes) {
        va_start(args, format);
        vsnprintf(s->error + n, s->error_bytes - (size_t)n, format, args);
        va_end(args);
    }
    for (char *c = s->error; *c; c++) /* one line, whatever the value holds */
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return -EINVAL;
}

/* ---- words and numbers ---- */

/* Sets *out to the index of the value among `words`, which end in NULL. */
static bool parse_word(const char *value, const char *const words[], int *out)
{
    for (int i = 0; words[i]; i++) {
        if (strcmp(value, words[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads digits, one at least; sets *unit to what follows them. */
static bool parse_number(const char *text, size_t len, uint64_t *out, const char **unit)
{
    uint64_t n = 0;
    size_t i = 0;

    for (; i < len && digit(text[i]); i++) {
        if (n > (UINT64_MAX - 9) / 10)
            return false;
        n = n * 10 + (uint64_t)(text[i] - '0');
    }
    *out = n;
    *unit = text + i;
    return i > 0;
}

static int set_time(const struct setting *s, int64_t *out_ms)
{
    static const char *const units[] = { "", "s", "ms", "min", NULL };
    static const uint64_t unit_ms[] = { 1000, 1000, 1, 60000 };
    const char *unit;
    uint64_t n;
    int i;

    if (!parse_number(s->value, strlen(s->value), &n, &unit) || !parse_word(unit, units, &i))
        return refuse(s, "'%.80s' is not a time; write seconds, or a number with ms, s or min, such as 10min",
                      s->value);
    if (n > TIME_MS_MAX / unit_ms[i])
        return refuse(s, "'%.80s' is too long; write a year (525600min) at most", s->value);
    *out_ms = (int64_t)(n * unit_ms[i]);
    return 0;
}

/* ---- destinations ---- */

static bool name_byte(char c)
{
    return digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.' ||
           (unsigned char)c >= 0x80;
}

/* A name whose last label is a number was meant to be an address or a port. */
static bool parse_name(struct ns_destination *d, const char *text, size_t len)
{
    bool number = true;

    if (len > 0 && text[len - 1] == '.')
        len--;
    if (len == 0 || len >= sizeof d->name)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!name_byte(text[i]))
            return false;
        if (text[i] == '.')
            number = true;
        else if (!digit(text[i]))
            number = false;
    }
    if (number)
        return false;
    d->kind = NS_DESTINATION_NAME;
    memcpy(d->name, text, len);
    d->name[len] = '\0';
    return true;
}

static bool parse_address(struct ns_destination *d, const char *text, size_t len)
{
    char copy[NS_ADDRESS_TEXT_BYTES];

    if (len >= sizeof copy)
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    d->kind = NS_DESTINATION_ADDRESS;
    return ns_address_parse(&d->address, copy) == 0;
}

static bool parse_host(struct ns_destination *d, const char *text, size_t len)
{
    if (len == 1 && text[0] == '*') {
        d->kind = NS_DESTINATION_ANY;
        return true;
    }
    return parse_address(d, text, len) || parse_name(d, text, len);
}

/* What follows the colon. */
static bool parse_port(struct ns_destination *d, const char *text, size_t len)
{
    const char *end;
    uint64_t n;

    if (len == 1 && text[0] == '*')
        return true;
    if (!parse_number(text, len, &n, &end) || end != text + len || n < 1 || n > UINT16_MAX)
        return false;
    d->port = (uint16_t)n;
    return true;
}

static bool parse_destination(struct ns_destination *d, const char *text, size_t len)
{
    const char *end = text + len;

    memset(d, 0, sizeof *d);
    if (len > 0 && text[0] == '[') {
        const char *close = memchr(text, ']', len);
        if (!close || !parse_address(d, text + 1, (size_t)(close - text - 1)))
            return false;
        return close + 1 == end || (close[1] == ':' && parse_port(d, close + 2, (size_t)(end - close - 2)));
    }
    if (parse_address(d, text, len)) /* an IPv6 address alone is all colons */
        return true;
    const char *colon = memchr(text, ':', len);
    if (!colon)
        return parse_host(d, text, len);
    return parse_host(d, text, (size_t)(colon - text)) && parse_port(d, colon + 1, (size_t)(end - colon - 1));
}

/* The next entry of a comma list, without the blanks around it. False at the end. */
static bool next_entry(const char **rest, const char **entry, size_t *len)
{
    const char *p = *rest;

    p += strspn(p, ", \t\n");
    *entry = p;
    *len = strcspn(p, ",");
    *rest = p + *len;
    while (*len > 0 && strchr(" \t\n", p[*len - 1]))
        --*len;
    return *len > 0;
}

static int set_destinations(const struct setting *s, struct ns_destinations *list)
{
    const char *rest = s->value, *entry;
    struct ns_destination d;
    size_t count = 0, len;

    /* Once to see that all is well, once to keep it: an error leaves the old list. */
    for (; next_entry(&rest, &entry, &len); count++) {
        if (count == NS_POLICY_DESTINATIONS_MAX)
            return refuse(s, "more than %d destinations; shorten the list", NS_POLICY_DESTINATIONS_MAX);
        if (!parse_destination(&d, entry, len))
            return refuse(s,
                          "'%.*s' is not a destination; write host, host:port, 192.0.2.1:port, "
                          "[2001:db8::1]:port or *:port, with commas between them",
                          len < 80 ? (int)len : 80, entry);
    }
    rest = s->value;
    for (count = 0; next_entry(&rest, &entry, &len); count++)
        parse_destination(&list->entries[count], entry, len);
    list->count = count;
    return 0;
}

/* ---- one function a key ---- */

static int set_ask(const struct setting *s)
{
    static const char *const words[] = { [NS_ASK_PROBE] = "probe",
                                         [NS_ASK_ALWAYS] = "always",
                                         [NS_ASK_NEVER] = "never",
                                         [NS_ASK_KNOWN] = "known",
                                         NULL };
    int i;

    if (!parse_word(s->value, words, &i))
        return refuse(s, "'%.80s' is not a way to ask; write probe, always, never or known", s->value);
    s->policy->ask = (enum ns_ask)i;
    return 0;
}

static int set_version(const struct setting *s)
{
    static const char *const words[] = { "1", "2", NULL };
    int i;

    if (!parse_word(s->value, words, &i))
        return refuse(s, "'%.80s' is not a protocol version; write 1 or 2", s->value);
    s->policy->version = (uint8_t)(i + 1);
    return 0;
}

static int set_give_up(const struct setting *s)
{
    return set_time(s, &s->policy->give_up_ms);
}

static int set_park(const struct setting *s)
{
    return set_time(s, &s->policy->park_ms);
}

static int set_hold(const struct setting *s)
{
    return set_time(s, &s->policy->hold_margin_ms);
}

static int set_near(const struct setting *s)
{
    return set_time(s, &s->policy->near_ms);
}

static int set_known(const struct setting *s)
{
    return set_destinations(s, &s->policy->known);
}

static int set_never(const struct setting *s)
{
    return set_destinations(s, &s->policy->never);
}

static int set_log_level(const struct setting *s)
{
    static const char *const words[] = {
        [NS_LOG_ERROR] = "error", [NS_LOG_INFO] = "info", [NS_LOG_DEBUG] = "debug", NULL
    };
    int i;

    if (!parse_word(s->value, words, &i))
        return refuse(s, "'%.80s' is not a log level; write error, info or debug", s->value);
    s->policy->log_level = (enum ns_log_level)i;
    return 0;
}

static int set_log_time(const struct setting *s)
{
    static const char *const words[] = { "s", "us", NULL };
    int i;

    if (!parse_word(s->value, words, &i))
        return refuse(s, "'%.80s' is not a unit of the log's time; write s or us", s->value);
    s->policy->log_microseconds = i;
    return 0;
}

static int set_log_file(const struct setting *s)
{
    size_t len = strlen(s->value);

    if (len >= sizeof s->policy->log_file)
        return refuse(s, "the path has %zu bytes; write one of %zu at most", len,
                      sizeof s->policy->log_file - 1);
    memcpy(s->policy->log_file, s->value, len + 1);
    return 0;
}

static int set_broker(const struct setting *s)
{
    size_t len = strlen(s->value);

    if (strcmp(s->value, "none") != 0 &&
        (len < 2 || len >= sizeof s->policy->broker || (*s->value != '@' && *s->value != '/')))
        return refuse(s, "'%.80s' is not where a broker is; write @name, a path from /, or none", s->value);
    memcpy(s->policy->broker, s->value, len + 1);
    return 0;
}

static int set_verbose(const struct setting *s)
{
    static const char *const words[] = { "0", "1", NULL };
    int i;

    if (!parse_word(s->value, words, &i))
        return refuse(s, "'%.80s' is neither yes nor no; write 0 or 1", s->value);
    s->policy->verbose = i;
    return 0;
}

/* The value of a hexadecimal digit, or -1. */
static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) % 16 : -1;
}

static int set_psk(const struct setting *s)
{
    static const char mark[] = "hex:";
    bool hex = strncmp(s->value, mark, strlen(mark)) == 0;
    const char *text = s->value + (hex ? strlen(mark) : 0);
    size_t len = strlen(text), bytes = hex ? len / 2 : len;

    for (size_t i = 0; hex && i < len; i++)
        if (hex_digit(text[i]) < 0)
            return refuse(s, "character %zu after hex: is not a hexadecimal digit; write 0-9 and a-f only",
                          i + 1);
    if (hex && len % 2)
        return refuse(s, "an odd number of digits after hex:; write two for each byte");
    if (bytes < NS_POLICY_PSK_BYTES_MIN || bytes > NS_POLICY_PSK_BYTES_MAX)
        return refuse(s, "the key has %zu bytes; write %d to %d, as text or as hex: and digits", bytes,
                      NS_POLICY_PSK_BYTES_MIN, NS_POLICY_PSK_BYTES_MAX);
    explicit_bzero(s->policy->psk, sizeof s->policy->psk);
    for (size_t i = 0; i < bytes; i++)
        s->policy->psk[i] =
            hex ? (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1])) : (uint8_t)text[i];
    s->policy->psk_bytes = bytes;
    return 0;
}

static int set_ring(const struct setting *s)
{
    static const char *const units[] = { "", "k", "K", "M", "G", NULL };
    static const unsigned shifts[] = { 0, 10, 10, 20, 30 };
    const char *unit;
    uint64_t n;
    int i;

    if (!parse_number(s->value, strlen(s->value), &n, &unit) || !parse_word(unit, units, &i))
        return refuse(s, "'%.80s' is not a size; write bytes, or a number with k, M or G, such as 64M",
                      s->value);
    if (n > RING_BYTES_MAX >> shifts[i] || n << shifts[i] < RING_BYTES_MIN)
        return refuse(s, "'%.80s' is out of range; write a size from 64k to 1G", s->value);
    s->policy->ring_bytes = (size_t)(n << shifts[i]);
    return 0;
}

static const char *const keys[] = { "ASK",   "VERSION",   "GIVE_UP",  "PARK",     "KNOWN",
                                    "NEVER", "LOG_LEVEL", "LOG_FILE", "VERBOSE",  "PSK",
                                    "RING",  "HOLD",      "BROKER",   "LOG_TIME", "NEAR",
                                    NULL };
static int (*const setters[])(const struct setting *) = {
    set_ask,      set_version, set_give_up, set_park, set_known, set_never,  set_log_level,
    set_log_file, set_verbose, set_psk,     set_ring, set_hold,  set_broker, set_log_time,
    set_near
};
_Static_assert(sizeof keys / sizeof keys[0] == sizeof setters / sizeof setters[0] + 1,
               "a setter for each key");

const char *const *ns_policy_keys(void)
{
    return keys;
}

int ns_policy_set(struct ns_policy *p, const char *key, const char *value, char *error, size_t error_bytes)
{
    struct setting s = { p, key, value, error, error_bytes };
    int i;

    if (parse_word(key, keys, &i))
        return setters[i](&s);
    refuse(&s, "no such setting; the settings are ASK, VERSION, GIVE_UP, PARK, KNOWN, NEVER, LOG_LEVEL, "
               "LOG_FILE, VERBOSE, PSK, RING, HOLD, BROKER, LOG_TIME and NEAR");
    return -ENOENT;
}

/* ---- an environment ---- */

static const char prefix[] = "NAMESOCKET_";

/* What the project's programs tell each other is no setting: what an execve hands on
 * (engine/heirloom.h), and that a program is the broker's adopter (daemon/adopter.c). */
static bool is_own(const char *key)
{
    return strcmp(key, "HEIRLOOM") == 0 || strcmp(key, "ADOPTER") == 0;
}

/* The key of NAMESOCKET_<key>=<value>, up to the sign, and the value; false for any other entry. */
static bool parse_entry(const char *entry, char key[32], const char **value)
{
    if (strncmp(entry, prefix, strlen(prefix)) != 0)
        return false;
    entry += strlen(prefix);
    *value = strchr(entry, '=');
    if (!*value)
        return false;
    snprintf(key, 32, "%.*s", (int)(*value - entry), entry);
    ++*value;
    return true;
}

static bool seen_before(char *const environment[], size_t at, const char *key)
{
    const char *value;
    char other[32];

    for (size_t i = 0; i < at; i++)
        if (parse_entry(environment[i], other, &value) && strcmp(other, key) == 0)
            return true;
    return false;
}

void ns_policy_read(struct ns_policy *p, char *const environment[], ns_policy_complaint *complain, void *ctx)
{
    char key[32], line[256];
    const char *value;

    for (size_t i = 0; environment && environment[i]; i++) {
        if (!parse_entry(environment[i], key, &value) || is_own(key) ||
            seen_before(environment, i, key))
            continue;
        int error = ns_policy_set(p, key, value, line, sizeof line);
        if (error < 0)
            complain(ctx, key, error, line);
    }
}

/* ---- verdicts ---- */

/* Host names, without regard to the case of ASCII letters, whatever the locale (RFC 4343). */
static bool same_name(const char *entry, const char *name)
{
    for (;; entry++, name++) {
        char a = *entry, b = *name;
        if (a >= 'A' && a <= 'Z')
            a += 'a' - 'A';
        if (b >= 'A' && b <= 'Z')
            b += 'a' - 'A';
        if (a == '\0')
            return b == '\0' || (b == '.' && name[1] == '\0'); /* the root's dot is optional */
        if (a != b)
            return false;
    }
}

static bool matches(const struct ns_destination *d, const struct ns_address *a, uint16_t port,
                    const char *name)
{
    if (d->port && d->port != port)
        return false;
    switch (d->kind) {
    case NS_DESTINATION_ANY:
        return true;
    case NS_DESTINATION_NAME:
        return name && same_name(d->name, name);
    case NS_DESTINATION_ADDRESS:
        break;
    }
    struct ns_address address = *a;
    if (d->address.scope_id == 0)
        address.scope_id = 0;
    return ns_address_equal(&d->address, &address);
}

static bool listed(const struct ns_destinations *list, const struct ns_address *a, uint16_t port,
                   const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (matches(&list->entries[i], a, port, name))
            return true;
    return false;
}

enum ns_verdict ns_policy_for(const struct ns_policy *p, const struct ns_address *a, uint16_t port,
                              const char *name)
{
    if (p->ask == NS_ASK_NEVER || listed(&p->never, a, port, name))
        return NS_VERDICT_PLAIN;
    if (p->ask == NS_ASK_ALWAYS || listed(&p->known, a, port, name))
        return NS_VERDICT_TRUST;
    if (p->ask == NS_ASK_KNOWN || p->version == 1) /* version 1 has no HELLO */
        return NS_VERDICT_PLAIN;
    return port >= p->ephemeral_low && port <= p->ephemeral_high ? NS_VERDICT_PLAIN : NS_VERDICT_ASK;
}
