/*
 * fuzz_manifest.c - libFuzzer on manifest_parse.
 *
 * Most inputs of a fuzzer would stop at the checksum.  The mutator here mutates the text
 * before it and then seals it again, so that the parser and the checks behind are what is
 * fuzzed; one mutation in sixteen is left unsealed for the seal itself.  The first input
 * is a sound manifest, so no corpus is needed:  fuzz_manifest -max_total_time=60
 *
 * What is accepted must be consistent: printed and parsed again it gives the same text,
 * and every element of every tensor is in exactly one range inside its shard.
 */
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEAL_FRONT ",\n\"checksum\": \""
#define SEAL_BACK  "\"\n}\n"
enum { SEAL = sizeof SEAL_FRONT - 1 + 16 + sizeof SEAL_BACK - 1 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A sound manifest: two ranks, three types, every member. */
static size_t first_input(uint8_t *out, size_t room)
{
    static struct ckpt_tensor tensors[] = { { "weight/a", 4, 3, KERN_F32 },
                                            { "weight/b", 1, 6, KERN_BF16 },
                                            { "adam_m/a", 4, 3, KERN_F64 } };
    static struct ckpt_shard shards[] = { { "shard-00000.h5", 9000, 1 },
                                          { "shard-00001.h5", 9000, 2 } };
    static uint64_t sums[] = { 1, 2, 3, 4, 5 };
    static struct ckpt_range ranges[] = {
        { 0, 0, 0, 5, 4096, &sums[0] },  { 0, 1, 5, 7, 4096, &sums[1] },
        { 1, 0, 0, 6, 4116, &sums[2] },  { 2, 0, 0, 1, 8192, &sums[3] },
        { 2, 1, 1, 11, 8192, &sums[4] },
    };
    struct manifest m = { 1,
                          8,
                          1,
                          2,
                          (char[]){ "[a]\nb = \"c\"\n" },
                          (char[]){ "about" },
                          tensors,
                          ranges,
                          shards,
                          3,
                          5,
                          2 };
    char *text = NULL;
    size_t n;

    if (manifest_print(&m, &text) != KR_OK) abort();
    n = strlen(text);
    if (n > room) n = 0;
    memcpy(out, text, n);
    mem_free(text);
    return n;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    char seal[SEAL + 1];

    if (max_size < 4 * SEAL) return LLVMFuzzerMutate(data, size, max_size);
    if (size < 2 * SEAL) size = first_input(data, max_size);
    if (seed % 16 == 0) return LLVMFuzzerMutate(data, size, max_size);
    size = size > SEAL ? size - SEAL : size;
    size = LLVMFuzzerMutate(data, size, max_size - SEAL);
    snprintf(seal, sizeof seal, SEAL_FRONT "%016" PRIx64 SEAL_BACK, hash64(data, size));
    memcpy(data + size, seal, SEAL);
    return size + SEAL;
}

/* Ranges are sorted, tile the tensors and lie inside their shards. */
static void must_be_consistent(const struct manifest *m)
{
    int32_t i = 0;

    for (int32_t t = 0; t < m->tensor_count; t++) {
        int64_t at = 0, all = m->tensors[t].rows * m->tensors[t].cols;

        for (; i < m->range_count && m->ranges[i].tensor == t; i++) {
            const struct ckpt_range *r = &m->ranges[i];
            uint64_t bytes = (uint64_t)r->count * kern_dtype_bytes(m->tensors[t].type);

            if (r->begin != at || r->count < 1) abort();
            if (r->shard < 0 || r->shard >= m->shard_count) abort();
            if (r->offset + bytes > m->shards[r->shard].bytes) abort();
            at += r->count;
        }
        if (at != all) abort();
    }
    if (i != m->range_count) abort();
    for (int32_t s = 0; s < m->shard_count; s++)
        if (strchr(m->shards[s].file, '/') || m->shards[s].file[0] == '.') abort();
}

static void must_come_back(const struct manifest *m)
{
    struct manifest again;
    char *one = NULL, *two = NULL;

    if (manifest_print(m, &one) != KR_OK) abort();
    if (manifest_parse(&again, one, strlen(one), "printed again") != KR_OK) abort();
    if (manifest_print(&again, &two) != KR_OK || strcmp(one, two) != 0) abort();
    manifest_free(&again);
    mem_free(one);
    mem_free(two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest m;

    log_mute(true);
    if (manifest_parse(&m, (const char *)data, size, "fuzz") != KR_OK) return 0;
    must_be_consistent(&m);
    must_come_back(&m);
    manifest_free(&m);
    return 0;
}
