#include "engine/internal.h"

#include "engine/large.h"
#include "engine/socket.h"
#include "engine/sys.h"

static struct word {
    uint64_t noted;     /* one bit each */
    uint64_t inherited; /* of them, those that a forked child keeps */
} words[NS_FD_MAX / 64] NS_LARGE;

/* Instead of those, for where nearly all are (ns_sys_high): on the page of what is written often. */
#define NEAR_FIRST (NS_SYS_HIGH_MAX / 64)
#define NEAR_WORDS 4
static struct word near[NEAR_WORDS];

static struct word *word_at(int i)
{
    return (unsigned)(i - NEAR_FIRST) < NEAR_WORDS ? &near[i - NEAR_FIRST] : &words[i];
}

static int first_word = NS_FD_MAX, last_word = -1; /* between these something was noted, ever; atomic */

static void widen(int word)
{
    int seen = __atomic_load_n(&first_word, __ATOMIC_RELAXED);
    while (word < seen &&
           !__atomic_compare_exchange_n(&first_word, &seen, word, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
    seen = __atomic_load_n(&last_word, __ATOMIC_RELAXED);
    while (word > seen &&
           !__atomic_compare_exchange_n(&last_word, &seen, word, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
}

static void set(uint64_t *word, int fd, bool on)
{
    uint64_t bit = (uint64_t)1 << (fd % 64);
    if (on)
        __atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
    else
        __atomic_fetch_and(word, ~bit, __ATOMIC_RELAXED);
}

static void note(int fd, bool on)
{
    if ((unsigned)fd >= NS_FD_MAX)
        return;
    struct word *w = word_at(fd / 64);
    if (on)
        widen(fd / 64);
    set(&w->noted, fd, on);
    if (!on && __atomic_load_n(&w->inherited, __ATOMIC_RELAXED))
        set(&w->inherited, fd, false);
}

void ns_internal_inherit(int fd)
{
    if ((unsigned)fd < NS_FD_MAX)
        set(&word_at(fd / 64)->inherited, fd, true);
}

int ns_internal(int fd)
{
    fd = ns_sys_high(fd);
    if (fd >= 0)
        note(fd, true);
    return fd;
}

void ns_internal_release(int fd)
{
    note(fd, false);
}

void ns_internal_close(int fd)
{
    if (fd < 0)
        return;
    note(fd, false);
    ns_sys_close(fd);
}

bool ns_fd_internal(int fd)
{
    return (unsigned)fd < NS_FD_MAX &&
           (__atomic_load_n(&word_at(fd / 64)->noted, __ATOMIC_RELAXED) >> (fd % 64) & 1);
}

NS_EACH_FORK void ns_internal_fork_child(void)
{
    for (int i = first_word; i <= last_word; i++)
        for (uint64_t left = word_at(i)->noted & ~word_at(i)->inherited; left; left &= left - 1)
            ns_internal_close(i * 64 + __builtin_ctzll(left));
}
