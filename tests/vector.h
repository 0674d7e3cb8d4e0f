/*
 * Reads the files in tests/vectors (make.py there says what is in them). For
 * tests only: anything that is not as it should be ends the program.
 */
#ifndef NS_TESTS_VECTOR_H
#define NS_TESTS_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_VECTOR_FIELDS 176

/* A name in brackets and the fields after it. Strings belong to the file. */
struct ns_vector {
    const char *name;
    unsigned line;
    size_t fields;
    struct {
        const char *key, *value;
    } field[NS_VECTOR_FIELDS];
};

struct ns_vector_file {
    char *text;
    size_t count;
    struct ns_vector *vectors; /* freed with the file */
};

/* `name` is relative to the directory of the tests. */
void ns_vector_open(struct ns_vector_file *file, const char *name);
void ns_vector_close(struct ns_vector_file *file);

/* The value of the `nth` field of this name, counted from 0, or NULL. */
const char *ns_vector_get(const struct ns_vector *v, const char *key, size_t nth);

/* Decimal. The field has to be there. */
uint64_t ns_vector_number(const struct ns_vector *v, const char *key);

/* Hexadecimal, all fields of this name one after the other. Returns the bytes:
 * at most `size`, 0 when there is no such field. */
size_t ns_vector_bytes(const struct ns_vector *v, const char *key, uint8_t *out, size_t size);

/* The same for a piece of text. */
size_t ns_vector_unhex(const char *text, uint8_t *out, size_t size);

#endif
