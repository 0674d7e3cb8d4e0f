#include "vector.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *memory, const char *what)
{
    if (!memory) {
        perror(what);
        exit(99);
    }
    return memory;
}

static char *slurp(const char *name)
{
    char path[4096], *text;
    long bytes;
    FILE *in;

    snprintf(path, sizeof path, "%s/%s", NS_TESTS_DIRECTORY, name);
    in = must(fopen(path, "r"), path);
    fseek(in, 0, SEEK_END);
    bytes = ftell(in);
    rewind(in);
    text = must(calloc(1, (size_t)bytes + 1), path);
    if (fread(text, 1, (size_t)bytes, in) != (size_t)bytes)
        must(NULL, path);
    fclose(in);
    return text;
}

static void bad_line(const char *name, unsigned number)
{
    fprintf(stderr, "%s:%u: not understood\n", name, number);
    exit(99);
}

static void add_vector(struct ns_vector_file *file, char *name, unsigned number)
{
    file->vectors = must(realloc(file->vectors, (file->count + 1) * sizeof *file->vectors), "memory");
    file->vectors[file->count++] = (struct ns_vector){ .name = name, .line = number };
}

/* A line without a value ("hex" of an empty packet) has the empty one. */
static bool add_field(struct ns_vector_file *file, char *line)
{
    struct ns_vector *v = file->count ? &file->vectors[file->count - 1] : NULL;
    char *space = strchr(line, ' ');

    if (!v || v->fields == NS_VECTOR_FIELDS)
        return false;
    if (space)
        *space++ = 0;
    v->field[v->fields].key = line;
    v->field[v->fields++].value = space ? space : line + strlen(line);
    return true;
}

void ns_vector_open(struct ns_vector_file *file, const char *name)
{
    char *rest, *line;
    unsigned number = 0;

    *file = (struct ns_vector_file){ .text = slurp(name) };
    rest = file->text;
    while ((line = strsep(&rest, "\n"))) {
        size_t length = strlen(line);

        number++;
        if (!length || line[0] == '#')
            continue;
        if (line[0] == '[' && line[length - 1] == ']') {
            line[length - 1] = 0;
            add_vector(file, line + 1, number);
        } else if (!add_field(file, line)) {
            bad_line(name, number);
        }
    }
}

void ns_vector_close(struct ns_vector_file *file)
{
    free(file->vectors);
    free(file->text);
}

const char *ns_vector_get(const struct ns_vector *v, const char *key, size_t nth)
{
    for (size_t i = 0; i < v->fields; i++)
        if (strcmp(v->field[i].key, key) == 0 && nth-- == 0)
            return v->field[i].value;
    return NULL;
}

uint64_t ns_vector_number(const struct ns_vector *v, const char *key)
{
    const char *value = ns_vector_get(v, key, 0);
    uint64_t number;
    char *end;

    errno = 0;
    number = value ? strtoull(value, &end, 10) : 0;
    if (!value || end == value || *end || errno) {
        fprintf(stderr, "record at line %u: no number \"%s\"\n", v->line, key);
        exit(99);
    }
    return number;
}

size_t ns_vector_unhex(const char *text, uint8_t *out, size_t size)
{
    size_t bytes = 0;

    for (; text[0]; text += 2) {
        unsigned byte;
        int used = 0;

        if (bytes == size || sscanf(text, "%2x%n", &byte, &used) != 1 || used != 2) {
            fprintf(stderr, "not hexadecimal, or more than %zu bytes: %s\n", size, text);
            exit(99);
        }
        out[bytes++] = (uint8_t)byte;
    }
    return bytes;
}

size_t ns_vector_bytes(const struct ns_vector *v, const char *key, uint8_t *out, size_t size)
{
    size_t bytes = 0;
    const char *value;

    for (size_t nth = 0; (value = ns_vector_get(v, key, nth)); nth++)
        bytes += ns_vector_unhex(value, out + bytes, size - bytes);
    return bytes;
}
