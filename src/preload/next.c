/*
 * Only what is certain is answered here: a function in one of the libraries that were loaded
 * with the program, between this one and libc, in the linker's order. An indirect function, a
 * library without a GNU hash table, a chain of libraries that does not end at libc: all that
 * is left to dlsym.
 */
#include "preload/next.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/large.h"

#define IMAGES_MAX 256 /* libraries of one program; with more it is dlsym's */
#define HIDDEN     0x8000 /* in a symbol's version: not the default one */

static struct image {
    uintptr_t base;
    const ElfW(Sym) *symbols;
    const char *strings;
    const ElfW(Half) *versions; /* of the symbols; NULL: none has one */
    const uint32_t *hash;
} images[IMAGES_MAX] NS_LARGE;
static unsigned count;

/* glibc has relocated these addresses where the table may be written, others have not. */
static const void *address(const struct link_map *m, const ElfW(Dyn) *d)
{
    uintptr_t a = (uintptr_t)d->d_un.d_ptr;

    return (const void *)(a < (uintptr_t)m->l_addr ? a + (uintptr_t)m->l_addr : a);
}

/* Sets `last` for libc. Returns whether functions can be found in it. */
static bool learn(struct image *image, const struct link_map *m, bool *last)
{
    const ElfW(Dyn) *name = NULL;

    *image = (struct image){ .base = (uintptr_t)m->l_addr };
    for (const ElfW(Dyn) *d = m->l_ld; d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_SYMTAB)
            image->symbols = address(m, d);
        else if (d->d_tag == DT_STRTAB)
            image->strings = address(m, d);
        else if (d->d_tag == DT_VERSYM)
            image->versions = address(m, d);
        else if (d->d_tag == DT_GNU_HASH)
            image->hash = address(m, d);
        else if (d->d_tag == DT_SONAME)
            name = d;
    }
    *last = image->strings && name && strcmp(image->strings + name->d_un.d_val, "libc.so.6") == 0;
    return image->symbols && image->strings && image->hash;
}

const char *ns_next_begin(const void *own)
{
    struct link_map *m = NULL;
    Dl_info info;
    unsigned n = 0;
    bool last = false, good = true;

    count = 0;
    if (!dladdr1(own, &info, (void **)&m, RTLD_DL_LINKMAP))
        return NULL;
    for (m = m ? m->l_next : NULL; m && good && !last && n < IMAGES_MAX; m = m->l_next)
        good = learn(&images[n++], m, &last);
    if (good && last)
        count = n;
    return info.dli_fname;
}

static uint32_t hash_of(const char *name)
{
    uint32_t h = 5381;

    for (; *name; name++)
        h = h * 33 + (unsigned char)*name;
    return h;
}

/* The symbol that somebody gets who asks for no version. */
static const ElfW(Sym) *find_in(const struct image *i, const char *name, uint32_t h)
{
    const uint32_t buckets = i->hash[0], first = i->hash[1], words = i->hash[2], shift = i->hash[3];
    const ElfW(Addr) *filter = (const void *)&i->hash[4];
    const uint32_t *bucket = (const void *)(filter + words), *chain = bucket + buckets;
    const unsigned bits = 8 * sizeof *filter;

    if (buckets == 0 || words == 0) /* it defines nothing */
        return NULL;
    const ElfW(Addr) word = filter[h / bits % words];
    if (!(word >> (h % bits) & word >> ((h >> shift) % bits) & 1))
        return NULL;
    for (uint32_t n = bucket[h % buckets]; n > 0 && n >= first; n++) {
        const ElfW(Sym) *s = &i->symbols[n];

        if ((chain[n - first] | 1) == (h | 1) && s->st_shndx != SHN_UNDEF &&
            !(i->versions && (i->versions[n] & HIDDEN)) && strcmp(i->strings + s->st_name, name) == 0)
            return s;
        if (chain[n - first] & 1)
            break;
    }
    return NULL;
}

void *ns_next_find(const char *name)
{
    uint32_t h = hash_of(name);

    for (unsigned n = 0; n < count; n++) {
        const ElfW(Sym) *s = find_in(&images[n], name, h);

        if (!s)
            continue;
        bool plain = ELF64_ST_TYPE(s->st_info) == STT_FUNC && s->st_value != 0 &&
                     ELF64_ST_VISIBILITY(s->st_other) == STV_DEFAULT;
        return plain ? (void *)(images[n].base + s->st_value) : NULL;
    }
    return NULL;
}
