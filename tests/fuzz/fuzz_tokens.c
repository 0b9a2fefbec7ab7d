/*
 * fuzz_tokens.c - token files of any bytes: opened and read whole, or refused.
 *
 * Byte 0 picks the kind of file, the part and the vocabulary; of a Megatron pair, bytes 1
 * and 2 say how much of the rest is the index.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "trainer/data/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char bin[4096], idx[4096], txt[4096];

static void clean_up(void)
{
    unlink(bin);
    unlink(idx);
    unlink(txt);
    *strrchr(bin, '/') = '\0';
    rmdir(bin);
}

static void set_up(void)
{
    char folder[2048];

    snprintf(folder, sizeof folder, "%s/fuzz_tokens.XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder)) abort();
    snprintf(bin, sizeof bin, "%s/f.bin", folder);
    snprintf(idx, sizeof idx, "%s/f.idx", folder);
    snprintf(txt, sizeof txt, "%s/f.txt", folder);
    atexit(clean_up);
    log_mute(true);
}

static void put(const char *path, const uint8_t *at, size_t bytes)
{
    FILE *f = fopen(path, "wb");

    if (!f || (bytes && fwrite(at, bytes, 1, f) != 1) || fclose(f) != 0) abort();
}

/* The file or files of this input; the path to open. */
static const char *lay_out(int kind, const uint8_t *data, size_t size)
{
    size_t index = (size_t)(data[1] | data[2] << 8);

    data += 3;
    size -= 3;
    unlink(idx);
    if (kind == 0) {
        put(txt, data, size);
        return txt;
    }
    if (kind == 1) {
        put(bin, data, size);
        return bin;
    }
    if (index > size) index = size;
    put(idx, data, index);
    put(bin, data + index, size - index);
    return idx;
}

/* Every token, in pieces of uneven size, lies below vocab; the count is what was promised. */
static void read_all(const struct tokens *t, int64_t vocab)
{
    int64_t count = tokens_count(t);
    int32_t piece[61];

    if (count <= 0 || !strstr(tokens_describe(t), "/f.")) abort();
    (void)tokens_fingerprint(t);
    for (int64_t at = 0; at < count; at += 61) {
        int64_t n = count - at < 61 ? count - at : 61;

        if (tokens_read(t, at, n, piece) != KR_OK) abort();
        for (int64_t i = 0; i < n; i++)
            if (piece[i] < 0 || piece[i] >= vocab) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t vocabs[] = { 2, 257, 65536, 1 << 24 };
    struct tokens *t = NULL;
    const char *path;
    int64_t vocab;

    if (!bin[0]) set_up();
    if (size < 3) return 0;
    vocab = vocabs[data[0] >> 4 & 3];
    path = lay_out(data[0] & 3, data, size);
    if (tokens_open(&t, path, (enum tokens_part)((data[0] >> 2 & 3) % 3), 0.25, vocab) ==
        KR_OK)
        read_all(t, vocab);
    else if (t)
        abort();
    tokens_close(t);
    return 0;
}
