/*
 * Front doors: operands that do not fit are refused with one line, nothing runs and
 * nothing is written.  And where a product may be added.  (What operations compute:
 * t_op_grads.c.)
 */
#include "base/log.h"
#include "kernels/kernels.h"
#include "tests/check.h"

enum { ROOM = 4096 }; /* elements behind every operand here */
static struct kern_device *device;
static struct kern_queue *q;
static float *memory; /* of the cpu device: the host may look */
static int32_t *ids;
static int lines;

static void count_lines(enum log_level level, const char *text, void *arg)
{
    (void)level;
    (void)text;
    ++*(int *)arg;
}

/* A fresh view; views do not overlap. */
static struct kern_mat mat(int64_t rows, int64_t cols)
{
    static int next;

    return kern_mat(memory + 16 * (next++ % 64), rows, cols, KERN_F32);
}

static struct kern_mat typed(struct kern_mat m, enum kern_dtype type)
{
    m.type = type;
    return m;
}

static struct kern_mat narrow(struct kern_mat m)
{
    m.ld = m.cols - 1;
    return m;
}

static void begin(void)
{
    for (int i = 0; i < ROOM; i++)
        memory[i] = 7;
    lines = 0;
}

static void untouched(int refusals)
{
    CHECK_I64(lines, ==, refusals);
    for (int i = 0; i < ROOM; i++)
        CHECK_NEAR(memory[i], 7, 0);
}

/* The call is refused. */
#define NO(call)                         \
    do {                                 \
        CHECK_I64(call, ==, KR_ERR_ARG); \
        refused++;                       \
    } while (0)

static void elementwise_operations_want_one_shape(void)
{
    int refused = 0;

    begin();
    NO(kern_fill(q, kern_none, 1));
    NO(kern_fill(q, typed(mat(2, 3), KERN_F64), 1));
    NO(kern_fill(q, narrow(mat(2, 3)), 1));
    NO(kern_fill(q, mat(-1, 3), 1));
    NO(kern_copy(q, mat(2, 3), mat(3, 2)));
    NO(kern_copy(q, mat(2, 3), kern_none));
    NO(kern_add(q, mat(2, 3), mat(2, 3), mat(2, 4)));
    NO(kern_add(q, mat(2, 3), mat(1, 3), mat(2, 3)));
    untouched(refused);
}

static void linear_wants_inner_sizes_that_meet(void)
{
    int refused = 0;

    begin();
    NO(kern_linear_fwd(q, mat(4, 5), mat(4, 3), mat(5, 2), kern_none, kern_none));
    NO(kern_linear_fwd(q, mat(4, 5), mat(4, 3), mat(3, 5), kern_none, kern_none));
    NO(kern_linear_fwd(q, mat(4, 5), mat(3, 3), mat(5, 3), kern_none, kern_none));
    NO(kern_linear_fwd(q, mat(4, 5), mat(4, 3), mat(5, 3), mat(1, 4), kern_none));
    NO(kern_linear_fwd(q, mat(4, 5), mat(4, 3), kern_none, kern_none, kern_none));
    NO(kern_linear_fwd(q, mat(4, 5), mat(4, 3), mat(5, 3), kern_none, mat(4, 3)));
    NO(kern_linear_fwd(q, mat(4, 5), mat(4, 3), mat(5, 3), kern_none, mat(3, 5)));
    NO(kern_linear_bwd_x(q, mat(4, 3), mat(4, 5), mat(3, 5), false));
    NO(kern_linear_bwd_x(q, mat(4, 3), mat(5, 5), mat(5, 3), false));
    NO(kern_linear_bwd_w(q, mat(5, 3), kern_none, mat(4, 5), mat(3, 3), false));
    NO(kern_linear_bwd_w(q, mat(5, 2), kern_none, mat(4, 5), mat(4, 3), false));
    NO(kern_linear_bwd_w(q, mat(5, 3), mat(1, 3), mat(4, 5), mat(4, 3), false));
    untouched(refused);
}

/* Several blocks of it, in and beside the corners. */
static void a_product_onto_another_matrix_has_the_bits_of_one_onto_a_copy(void)
{
    enum { N = 300, O = 530, I = 70, ALL = 2 * N * O + N * I + O * I + O };
    float *at = NULL, *y[2];
    struct kern_mat x, w, b, onto, out[2];

    CHECK_I64(kern_alloc(device, &at, (ALL + N * O) * sizeof *at, "test"), ==, KR_OK);
    for (int i = 0; i < ALL + N * O; i++)
        at[i] = (float)(i % 2003 * 7919 % 1999 - 1000) / 37.0f;
    out[0] = kern_mat(y[0] = at, N, O, KERN_F32);
    out[1] = kern_mat(y[1] = at + N * O, N, O, KERN_F32);
    onto = kern_mat(at + 2 * N * O, N, O, KERN_F32);
    x = kern_mat(at + 3 * N * O, N, I, KERN_F32);
    w = kern_mat(at + 3 * N * O + N * I, O, I, KERN_F32);
    b = kern_mat(at + 3 * N * O + N * I + O * I, 1, O, KERN_F32);
    CHECK_I64(kern_linear_fwd(q, out[0], x, w, b, onto), ==, KR_OK);
    CHECK_I64(kern_copy(q, out[1], onto), ==, KR_OK);
    CHECK_I64(kern_linear_fwd(q, out[1], x, w, b, out[1]), ==, KR_OK);
    CHECK(memcmp(y[0], y[1], N * O * sizeof *at) == 0);
    CHECK(y[0][0] != at[2 * N * O]);
    kern_free(device, at);
}

static void embedding_wants_whole_sequences_and_enough_positions(void)
{
    int refused = 0;

    begin();
    NO(kern_embed_fwd(q, mat(4, 3), NULL, mat(9, 3), kern_none, 2, NULL));
    NO(kern_embed_fwd(q, mat(4, 3), ids, mat(9, 2), kern_none, 2, NULL));
    NO(kern_embed_fwd(q, mat(4, 3), ids, mat(9, 3), mat(1, 3), 2, NULL));
    NO(kern_embed_fwd(q, mat(4, 3), ids, mat(9, 3), mat(8, 2), 2, NULL));
    NO(kern_embed_fwd(q, mat(4, 3), ids, mat(9, 3), kern_none, 3, NULL));
    NO(kern_embed_fwd(q, mat(4, 3), ids, mat(9, 3), kern_none, 0, NULL));
    NO(kern_embed_bwd(q, mat(9, 2), kern_none, ids, mat(4, 3), 2, NULL, false));
    NO(kern_embed_bwd(q, mat(9, 3), mat(1, 3), ids, mat(4, 3), 2, NULL, false));
    NO(kern_embed_bwd(q, mat(9, 3), kern_none, NULL, mat(4, 3), 2, NULL, false));
    untouched(refused);
}

static void norms_and_activations_want_their_rows(void)
{
    int refused = 0;

    begin();
    NO(kern_norm_fwd(q, KERN_LAYERNORM, mat(4, 3), mat(2, 3), mat(4, 3), mat(1, 3),
                     kern_none, 1e-5));
    NO(kern_norm_fwd(q, KERN_LAYERNORM, mat(4, 3), mat(2, 4), mat(4, 3), mat(1, 4),
                     kern_none, 1e-5));
    NO(kern_norm_fwd(q, KERN_RMSNORM, mat(4, 3), mat(2, 4), mat(4, 3), mat(1, 3),
                     kern_none, 0));
    NO(kern_norm_bwd(q, KERN_RMSNORM, mat(4, 3), false, mat(1, 3), mat(1, 2), false,
                     mat(4, 3), mat(4, 3), mat(1, 3), mat(2, 4)));
    NO(kern_norm_bwd(q, KERN_RMSNORM, mat(4, 3), false, mat(1, 3), kern_none, false,
                     mat(3, 3), mat(4, 3), mat(1, 3), mat(2, 4)));
    NO(kern_act_fwd(q, KERN_GELU_TANH, mat(4, 3), mat(4, 6)));
    NO(kern_act_fwd(q, KERN_SWIGLU, mat(4, 3), mat(4, 3)));
    NO(kern_act_bwd(q, KERN_SWIGLU, mat(4, 3), mat(4, 3), mat(4, 6)));
    untouched(refused);
}

static void rope_and_attention_want_heads_that_fill_the_columns(void)
{
    struct kern_heads h = { 4, 2, 2, 3, 1, .slopes = NULL };
    struct kern_mat out = mat(6, 8), lse = mat(4, 6), qkv = mat(6, 16);
    int refused = 0;

    begin();
    NO(kern_rope(q, mat(6, 8), mat(2, 2), 4, 2, 3, KERN_ROPE_HALF, false));
    NO(kern_rope(q, mat(6, 8), mat(3, 4), 4, 2, 3, KERN_ROPE_HALF, false));
    NO(kern_rope(q, mat(6, 9), mat(3, 2), 4, 2, 3, KERN_ROPE_HALF, false));
    NO(kern_rope(q, mat(5, 8), mat(3, 2), 4, 2, 3, KERN_ROPE_HALF, false));
    NO(kern_attention_fwd(q, out, lse, mat(6, 12), &h));
    NO(kern_attention_fwd(q, out, mat(4, 5), qkv, &h));
    NO(kern_attention_fwd(q, mat(5, 8), mat(4, 5), mat(5, 16), &h));
    h.kv_heads = 3;
    NO(kern_attention_fwd(q, out, lse, mat(6, 20), &h));
    h.kv_heads = 0;
    NO(kern_attention_fwd(q, out, lse, mat(6, 8), &h));
    h.kv_heads = 2;
    NO(kern_attention_bwd(q, mat(6, 12), lse, out, qkv, out, lse, &h));
    NO(kern_attention_bwd(q, qkv, mat(4, 3), out, qkv, out, lse, &h));
    untouched(refused);
}

static void loss_sums_and_optimizer_want_rows_of_one_length(void)
{
    struct kern_adamw p = { .lr = 1 };
    double sum[1] = { 7 };
    uint64_t words[1];
    int refused = 0;

    begin();
    NO(kern_cross_entropy(q, mat(1, 3), kern_none, mat(4, 9), ids, 1));
    NO(kern_cross_entropy(q, mat(1, 4), kern_none, mat(4, 9), NULL, 1));
    NO(kern_cross_entropy(q, mat(1, 4), mat(4, 8), mat(4, 9), ids, 1));
    NO(kern_sum(q, sum, mat(2, 3)));
    NO(kern_sum(q, NULL, mat(1, 3)));
    NO(kern_sumsq(q, sum, mat(2, 3)));
    NO(kern_checksum(q, words, mat(2, 3)));
    NO(kern_checksum(q, NULL, mat(1, 3)));
    NO(kern_adamw(q, mat(1, 3), mat(1, 3), mat(1, 2), mat(1, 3), kern_none, &p));
    NO(kern_adamw(q, mat(3, 1), mat(3, 1), mat(3, 1), mat(3, 1), kern_none, &p));
    untouched(refused);
    CHECK_NEAR(sum[0], 7, 0);
}

/* No rows: nothing to do, and that is no error. */
static void nothing_is_a_fine_amount_of_work(void)
{
    begin();
    CHECK_I64(kern_fill(q, mat(0, 3), 1), ==, KR_OK);
    CHECK_I64(kern_copy(q, mat(0, 3), mat(0, 3)), ==, KR_OK);
    CHECK_I64(kern_linear_fwd(q, mat(0, 5), mat(0, 3), mat(5, 3), kern_none, kern_none),
              ==, KR_OK);
    CHECK_I64(kern_act_fwd(q, KERN_SWIGLU, mat(0, 3), mat(0, 6)), ==, KR_OK);
    untouched(0);
}

int main(void)
{
    void *at = NULL, *tokens = NULL;

    if (kern_device_open(&device, "cpu", 0, 1) != KR_OK ||
        kern_queue_open(&q, device, KERN_QUEUE_COMPUTE) != KR_OK ||
        kern_alloc(device, &at, ROOM * sizeof(float), "operands") != KR_OK ||
        kern_alloc(device, &tokens, 64 * sizeof(int32_t), "ids") != KR_OK)
        return 1;
    memory = at;
    ids = tokens;
    memset(ids, 0, 64 * sizeof *ids);
    log_capture(count_lines, &lines);
    RUN(elementwise_operations_want_one_shape);
    RUN(linear_wants_inner_sizes_that_meet);
    RUN(a_product_onto_another_matrix_has_the_bits_of_one_onto_a_copy);
    RUN(embedding_wants_whole_sequences_and_enough_positions);
    RUN(norms_and_activations_want_their_rows);
    RUN(rope_and_attention_want_heads_that_fill_the_columns);
    RUN(loss_sums_and_optimizer_want_rows_of_one_length);
    RUN(nothing_is_a_fine_amount_of_work);
    log_capture(NULL, NULL);
    kern_free(device, at);
    kern_free(device, tokens);
    kern_queue_close(q);
    kern_device_close(device);
    return check_done();
}
