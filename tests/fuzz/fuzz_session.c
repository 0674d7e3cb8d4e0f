/*
 * The life of a session whose circumstances and faults are read from the input:
 * both streams arrive whole and in order, whatever the network does.
 *
 * Built with -Dfuzzing=true and clang:
 *     fuzz_session -max_len=512 NEW_CORPUS tests/corpus/session
 * check_simulation runs the stored corpus.
 */
#include "../simulation.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ns_simulation s = ns_simulate_input(data, size);

    if (s.failure) {
        fprintf(stderr, "%s, at %.6f s, after %u resumes\n", s.failure, (double)s.at_ns / 1e9, s.resumes);
        abort();
    }
    return 0;
}
