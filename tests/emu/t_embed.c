/*
 * t_embed.c - the order in which a GPU adds up the rows of one token: parts of 128 rows one
 * after the other, each row after row, whatever else the batch holds.  On the emulated GPU,
 * against the same sums written out here, bit for bit.
 */
#include "base/bf16.h"
#include "base/log.h"
#include "kernels/kernels.h"
#include "tests/check.h"

enum { PART = 128, MOST = 700 /* rows */, COLS = 37, VOCAB = 5 };

static struct kern_device *gpu;
static struct kern_queue *q;

#define CHECK_OK(call) CHECK_I64((call), ==, KR_OK)

/* Of very different sizes, so that another order of sums has other bits. */
static float value(int64_t i)
{
    uint64_t x = ((uint64_t)i + 1) * UINT64_C(0x9e3779b97f4a7c15);

    return bf16_value(
        bf16_round((float)ldexp((double)(x >> 40) - 8e6, (int)(x >> 20 & 15) - 12)));
}

/* Which token row n has. */
typedef int32_t (*text)(int64_t n);

static int32_t alone(int64_t n) { return (void)n, 3; }
static int32_t third(int64_t n) { return n % 10 < 3 ? 2 : (int32_t)(n * 7 % VOCAB); }
static int32_t halves(int64_t n) { return n < MOST / 2; }
static int32_t each_in_turn(int64_t n) { return (int32_t)(n % VOCAB); }

/* sum[c] += the rows of token t, in parts. */
static void add_up(float *sum, const float *dx, text token, int32_t t, int64_t rows)
{
    float part[COLS] = { 0 };
    int64_t seen = 0;

    for (int64_t n = 0; n < rows; n++) {
        if (token(n) != t) continue;
        for (int c = 0; c < COLS && seen > 0 && seen % PART == 0; c++) {
            if (seen > PART) sum[c] += part[c];
            part[c] = 0;
        }
        for (int c = 0; c < COLS; c++)
            *(seen < PART ? &sum[c] : &part[c]) += dx[n * COLS + c];
        seen++;
    }
    for (int c = 0; c < COLS && seen > PART; c++)
        sum[c] += part[c];
}

static void to_gpu(void *out, const void *host, size_t bytes)
{
    void *at = NULL;

    CHECK_OK(kern_alloc(gpu, &at, bytes, "test"));
    CHECK_OK(kern_upload(q, at, host, bytes));
    CHECK_OK(kern_queue_sync(q));
    memcpy(out, &at, sizeof at);
}

/* `rows` rows of which each has its token; COLS columns of `type`. */
static void check_order(text token, int64_t rows, enum kern_dtype type)
{
    static float dx[MOST * COLS], want[VOCAB * COLS], got[VOCAB * COLS];
    static uint16_t narrow[MOST * COLS];
    static int32_t tokens[MOST];
    void *on_gpu, *sum;
    int32_t *ids;
    bool half = type == KERN_BF16;

    for (int64_t i = 0; i < rows * COLS; i++)
        narrow[i] = bf16_round(dx[i] = value(i));
    for (int64_t n = 0; n < rows; n++)
        tokens[n] = token(n);
    for (int64_t i = 0; i < VOCAB * COLS; i++)
        want[i] = value(i * 3 + 1);
    to_gpu(&sum, want, sizeof want);
    to_gpu(&on_gpu, half ? (void *)narrow : (void *)dx,
           (size_t)(rows * COLS) * kern_dtype_bytes(type));
    to_gpu(&ids, tokens, (size_t)rows * sizeof *ids);
    for (int32_t t = 0; t < VOCAB; t++)
        add_up(want + t * COLS, dx, token, t, rows);
    CHECK_OK(kern_embed_bwd(q, kern_mat(sum, VOCAB, COLS, KERN_F32), kern_none, ids,
                            kern_mat(on_gpu, rows, COLS, type), rows, NULL, true));
    CHECK_OK(kern_download(q, got, sum, sizeof got));
    CHECK_OK(kern_queue_sync(q));
    CHECK(memcmp(got, want, sizeof got) == 0);
    kern_free(gpu, sum);
    kern_free(gpu, on_gpu);
    kern_free(gpu, ids);
}

static void check_device(const char *name)
{
    static const int64_t rows[] = { 1, PART, PART + 1, 2 * PART, 2 * PART + 1, MOST };
    static const text texts[] = { alone, third, halves, each_in_turn };

    CHECK_OK(kern_device_open(&gpu, name, 0, 1));
    CHECK_OK(kern_queue_open(&q, gpu, KERN_QUEUE_COMPUTE));
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            check_order(texts[t], rows[i], kern_device_type(gpu));
    kern_queue_close(q);
    kern_device_close(gpu);
}

static void rows_of_a_token_are_added_in_parts_in_order_bf16(void)
{
    check_device("cuda");
}
static void rows_of_a_token_are_added_in_parts_in_order_fp32(void)
{
    check_device("cuda32");
}

int main(void)
{
    log_setup("t_embed", -1);
    RUN(rows_of_a_token_are_added_in_parts_in_order_bf16);
    RUN(rows_of_a_token_are_added_in_parts_in_order_fp32);
    return check_done();
}
