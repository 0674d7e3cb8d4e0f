/* Integers and bytes in and out of packets and messages, big endian. */
#ifndef NS_CORE_CURSOR_H
#define NS_CORE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- reading ---- */

/* All reading goes through one cursor, which never moves past its end: what is
 * read there is zero, and `overrun` says so. */
struct cursor {
    const uint8_t *at;
    size_t left;
    bool overrun;
};

static inline void take(struct cursor *c, void *out, size_t bytes)
{
    if (bytes > c->left) {
        c->overrun = true;
        c->left = 0;
        memset(out, 0, bytes);
        return;
    }
    memcpy(out, c->at, bytes);
    c->at += bytes;
    c->left -= bytes;
}

static inline uint64_t take_integer(struct cursor *c, size_t bytes)
{
    uint8_t raw[8];
    uint64_t value = 0;

    take(c, raw, bytes);
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | raw[i];
    return value;
}

static inline uint8_t take_8(struct cursor *c)
{
    return (uint8_t)take_integer(c, 1);
}

static inline uint16_t take_16(struct cursor *c)
{
    return (uint16_t)take_integer(c, 2);
}

static inline uint32_t take_32(struct cursor *c)
{
    return (uint32_t)take_integer(c, 4);
}

static inline uint64_t take_64(struct cursor *c)
{
    return take_integer(c, 8);
}

/* ---- writing ---- */

/* Returns where the next field goes. */
static inline uint8_t *put(uint8_t *out, const void *in, size_t bytes)
{
    memcpy(out, in, bytes);
    return out + bytes;
}

static inline uint8_t *put_integer(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
    return out + bytes;
}

static inline uint8_t *put_8(uint8_t *out, uint8_t value)
{
    return put_integer(out, value, 1);
}

static inline uint8_t *put_16(uint8_t *out, uint16_t value)
{
    return put_integer(out, value, 2);
}

static inline uint8_t *put_32(uint8_t *out, uint32_t value)
{
    return put_integer(out, value, 4);
}

static inline uint8_t *put_64(uint8_t *out, uint64_t value)
{
    return put_integer(out, value, 8);
}

#endif
