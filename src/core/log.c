#include "core/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const level_names[] = { "Error", "Info", "Debug" };
static const char *const day_names[] = { "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" };
static const char *const month_names[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                           "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };

struct date {
    int64_t year;
    int month, day; /* both from 1 */
};

/* How often `unit` days go into *days, at most `most` times; leaves the rest in *days. */
static int take(int *days, int unit, int most)
{
    int n = *days / unit;

    n = n < most ? n : most;
    *days -= n * unit;
    return n;
}

/*
 * The Gregorian date of a day number, 0 being 1970-01-01. Years begin in March
 * here, so that a leap day is the last day of its year, of its four years, of
 * its four centuries alike. localtime takes a lock and may read files, which is
 * why we count ourselves.
 */
static struct date date_of(int64_t day_number)
{
    static const int month_days[] = { 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29 };
    const int days_in_400_years = 146097;
    int64_t since_march_2000 = day_number - 11017; /* the day number of 2000-03-01 */
    int64_t cycles = since_march_2000 / days_in_400_years;
    int days = (int)(since_march_2000 % days_in_400_years);
    if (days < 0) {
        days += days_in_400_years;
        cycles--;
    }

    int64_t year = 2000 + 400 * cycles;
    year += 100 * take(&days, 36524, 3);
    year += 4 * take(&days, 1461, 24);
    year += take(&days, 365, 3);
    int month = 0;
    for (; days >= month_days[month]; month++)
        days -= month_days[month];
    bool next_year = month >= 10;
    return (
        struct date){ .year = year + next_year, .month = next_year ? month - 9 : month + 3, .day = days + 1 };
}

/* How often `unit` goes into `n`, rounded down; what is left goes to *rest. */
static int64_t divide(int64_t n, int64_t unit, int64_t *rest)
{
    *rest = (n % unit + unit) % unit;
    return (n - *rest) / unit;
}

/* asctime's form, without its newline. */
static int put_date(char *out, size_t room, int64_t local_us, bool microseconds)
{
    int64_t us, second, weekday;
    int64_t days = divide(divide(local_us, 1000000, &us), 86400, &second);
    struct date d = date_of(days);
    char fraction[16] = "";

    divide(days, 7, &weekday);
    if (microseconds)
        snprintf(fraction, sizeof fraction, ".%06d", (int)us);
    return snprintf(out, room, "%s %s %2d %02d:%02d:%02d%s %lld", day_names[weekday],
                    month_names[d.month - 1], d.day, (int)(second / 3600), (int)(second / 60 % 60),
                    (int)(second % 60), fraction, (long long)d.year);
}

static size_t put_prefix(const struct ns_log *log, enum ns_log_level level, char *out, size_t room)
{
    int64_t now_us = log->wall_us ? log->wall_us(log->ctx) : 0;
    size_t n = (size_t)snprintf(out, room, "%s: %d - ", ns_log_level_name(level), log->pid ? (int)*log->pid : 0);

    n += (size_t)put_date(out + n, room - n, now_us + log->utc_offset_s * INT64_C(1000000),
                          log->microseconds);
    n += (size_t)snprintf(out + n, room - n, " - ");
    return n;
}

/* Control characters could forge a line, or drive the terminal that shows it. */
static void defuse(char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f)
            text[i] = '?';
    }
}

static void write_line(const struct ns_log *log, enum ns_log_level level, const char *format, va_list args)
{
    char line[NS_LOG_LINE_BYTES];
    size_t start = put_prefix(log, level, line, sizeof line);
    size_t room = sizeof line - start - 1; /* for text and NUL; one byte is the newline's */
    int wanted = vsnprintf(line + start, room, format, args);

    if (wanted < 0) /* the format itself, then: better than silence */
        wanted = snprintf(line + start, room, "%s", format);
    size_t len = (size_t)wanted;
    if (len >= room) {
        len = room - 1;
        memcpy(line + start + len - 3, "...", 3);
    } else if (len > 0 && line[start + len - 1] == '\n') {
        len--;
    }
    defuse(line + start, len);
    line[start + len] = '\n';
    line[start + len + 1] = '\0';
    log->sink(log->ctx, level, line, start + len + 1);
}

void ns_log(const struct ns_log *log, enum ns_log_level level, const char *format, ...)
{
    if (!ns_log_wanted(log, level))
        return;
    int saved = errno;
    va_list args;

    va_start(args, format);
    write_line(log, level, format, args);
    va_end(args);
    errno = saved;
}

void ns_log_error(const struct ns_log *log, enum ns_log_level level, const char *what, int errnum)
{
    unsigned number = errnum < 0 ? 0u - (unsigned)errnum : (unsigned)errnum;
    /* strerror may allocate; this is a look into a table. */
    const char *description = strerrordesc_np((int)number);

    if (description)
        ns_log(log, level, "%s: %s", what, description);
    else
        ns_log(log, level, "%s: error %u", what, number);
}

const char *ns_log_level_name(enum ns_log_level level)
{
    return level_names[level];
}

bool ns_log_allowed(struct ns_log_limit *limit, struct ns_time now)
{
    struct ns_time interval = ns_time_ms(NS_LOG_INTERVAL_MS);
    struct ns_time full = ns_time_before(limit->full, now) ? now : limit->full;

    /* A token costs an interval; the bucket owes at most a burst of them. */
    full = ns_time_add(full, interval);
    if (full.ns - now.ns > NS_LOG_BURST * interval.ns) {
        if (limit->suppressed < UINT32_MAX)
            limit->suppressed++;
        return false;
    }
    limit->full = full;
    return true;
}
