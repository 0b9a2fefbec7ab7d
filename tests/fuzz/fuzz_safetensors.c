/*
 * fuzz_safetensors.c - libFuzzer on the header of a file of safetensors and on the index
 * of a folder of them.
 *
 * The first byte chooses: even, a header of a file whose buffer has as many bytes as the
 * second byte says; odd, an index.  What is accepted must be consistent: tensors tile the
 * buffer and their names are in order; printed and parsed again they are the same.
 */
#include "base/log.h"
#include "checkpoints/st_folder.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char header[] =
    "\0\014{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2],"
    "\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],"
    "\"data_offsets\":[8,12]}}  ";
static const char index_text[] =
    "\1\0{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"x.safetensors\","
    "\"b\":\"model-00001-of-00002.safetensors\"}}";

/* Sound texts are the first inputs, so no corpus is needed. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    if (size < 8 && max_size > sizeof header) {
        const char *text = seed & 1 ? header : index_text;

        size = (seed & 1 ? sizeof header : sizeof index_text) - 1;
        memcpy(data, text, size);
    }
    return LLVMFuzzerMutate(data, size, max_size);
}

/* Two lists hold the same tensors; b is in the order of the buffer. */
static void check_again(const struct st_header *h)
{
    char path[] = "fuzz-XXXXXX";
    struct st_header copy = *h;
    struct st_writer w;
    struct st_file f;
    int fd = mkstemp(path);

    if (fd < 0) abort();
    close(fd);
    copy.list = malloc((size_t)(h->count + 1) * sizeof *copy.list);
    if (h->count > 0) memcpy(copy.list, h->list, (size_t)h->count * sizeof *copy.list);
    st_header_lay_out(&copy);
    if (copy.bytes != h->bytes) abort();
    if (st_create(&w, path, &copy) != KR_OK || st_finish(&w, KR_OK) != KR_OK) abort();
    if (truncate(path, (off_t)(w.at + copy.bytes)) != 0) abort();
    if (st_open(&f, path) != KR_OK || f.header.count != h->count) abort();
    for (int32_t i = 0; i < h->count; i++) {
        const struct st_tensor *a = &h->list[i], *b = &f.header.list[i];

        if (strcmp(a->name, b->name) != 0 || a->type != b->type || a->dims != b->dims ||
            memcmp(a->shape, b->shape, sizeof a->shape) != 0)
            abort();
    }
    st_close(&f);
    free(copy.list);
    unlink(path);
}

static void check_header(const char *text, size_t n, uint64_t buffer)
{
    struct st_header h;
    uint64_t sum = 0;

    if (st_header_parse(&h, text, n, buffer, "fuzz") != KR_OK) return;
    for (int32_t i = 0; i < h.count; i++) {
        const struct st_tensor *t = &h.list[i];

        if (t->begin > t->end || t->end > buffer || st_bytes(t) != t->end - t->begin)
            abort();
        if (i > 0 && strcmp(h.list[i - 1].name, t->name) >= 0) abort();
        if (st_header_find(&h, t->name) != i) abort();
        sum += t->end - t->begin;
    }
    if (sum != buffer) abort();
    check_again(&h);
    st_header_free(&h);
}

static void check_index(const char *text, size_t n)
{
    struct st_index x;

    if (st_index_parse(&x, text, n, "fuzz") != KR_OK) return;
    for (int32_t i = 0; i < x.count; i++) {
        if (strchr(x.list[i].file, '/') || x.list[i].file[0] == '.') abort();
        if (i > 0 && strcmp(x.list[i - 1].name, x.list[i].name) >= 0) abort();
    }
    st_index_free(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_mute(true);
    if (size < 2) return 0;
    if (data[0] % 2 == 0)
        check_header((const char *)data + 2, size - 2, data[1]);
    else
        check_index((const char *)data + 2, size - 2);
    return 0;
}
