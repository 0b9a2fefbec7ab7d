/*
 * cpu16.c - the table of the device "cpu16": the CPU table over bf16 storage.
 *
 * Every operation widens its bf16 operands into fp32 scratch, runs the CPU's, and rounds
 * what it wrote, once.  Nothing is rounded inside, so this is what a bf16 device should
 * compute up to the order of its sums: the reference of mixed precision, and the proof of
 * trainer code that keeps types apart.  It is slow, and as deterministic as the CPU's.
 */
#include "kernels/cpu16/cpu16.h"

#include "base/mem.h"
#include "kernels/cpu/ops.h"

enum { OPERANDS = 8 };

enum use { READ = 1, WRITE = 2, CHANGE = READ | WRITE };

/* The bf16 operands of one operation and their fp32 twins. */
struct lift {
    void *stream;
    kr_status st;
    int count;
    struct {
        struct kern_mat narrow, wide;
        enum use use;
    } list[OPERANDS];
};

/* What to compute with instead of m: m itself unless it is bf16. */
static struct kern_mat take(struct lift *l, struct kern_mat m, enum use use)
{
    struct kern_mat wide = kern_mat(NULL, m.rows, m.cols, KERN_F32);

    if (!m.at || m.type != KERN_BF16 || l->st != KR_OK) return m;
    l->st =
        mem_alloc(&wide.at, (size_t)(m.rows * m.cols) + 1, sizeof(float), "fp32 operand");
    if (l->st != KR_OK) return m;
    l->list[l->count].narrow = m;
    l->list[l->count].wide = wide;
    l->list[l->count++].use = use;
    if (use & READ) l->st = cpu_copy(l->stream, wide, m);
    return wide;
}

/* Round what was written; free all. */
static kr_status give(struct lift *l)
{
    for (int i = 0; i < l->count; i++) {
        if (l->st == KR_OK && (l->list[i].use & WRITE))
            l->st = cpu_copy(l->stream, l->list[i].narrow, l->list[i].wide);
        mem_free(l->list[i].wide.at);
    }
    return l->st;
}

/* Run `call` if all operands are there. */
#define RUN(l, call)                          \
    do {                                      \
        if ((l)->st == KR_OK) (l)->st = call; \
        return give(l);                       \
    } while (0)

static kr_status add(void *stream, struct kern_mat y, struct kern_mat a,
                     struct kern_mat b)
{
    struct lift l = { .stream = stream };
    struct kern_mat left = take(&l, a, READ), right = take(&l, b, READ);
    struct kern_mat sum = take(&l, y, WRITE);

    RUN(&l, cpu_add(stream, sum, left, right));
}

static kr_status scale(void *stream, struct kern_mat y, struct kern_mat x, double s)
{
    struct lift l = { .stream = stream };
    struct kern_mat in = take(&l, x, READ), out = take(&l, y, WRITE);

    RUN(&l, cpu_scale(stream, out, in, s));
}

static kr_status matmul(void *stream, struct kern_mat c, struct kern_mat a, bool ta,
                        struct kern_mat b, bool tb, bool add_to)
{
    struct lift l = { .stream = stream };
    struct kern_mat left = take(&l, a, READ), right = take(&l, b, READ);
    struct kern_mat out = take(&l, c, add_to ? CHANGE : WRITE);

    RUN(&l, cpu_matmul(stream, out, left, ta, right, tb, add_to));
}

static kr_status sum_rows(void *stream, struct kern_mat db, struct kern_mat dy,
                          bool add_to)
{
    struct lift l = { .stream = stream };
    struct kern_mat d = take(&l, dy, READ);

    RUN(&l, cpu_sum_rows(stream, db, d, add_to));
}

static kr_status linear_fwd(void *stream, struct kern_mat y, struct kern_mat x,
                            struct kern_mat w, struct kern_mat b, struct kern_mat onto)
{
    struct lift l = { .stream = stream };
    bool in_place = onto.at && onto.at == y.at;
    struct kern_mat in = take(&l, x, READ), weight = take(&l, w, READ);
    struct kern_mat bias = take(&l, b, READ),
                    out = take(&l, y, in_place ? CHANGE : WRITE);
    struct kern_mat first = in_place ? out : take(&l, onto, READ);

    RUN(&l, cpu_linear_fwd(stream, out, in, weight, bias, first));
}

static kr_status embed_fwd(void *stream, struct kern_mat x, const int32_t *token,
                           struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                           const int32_t *start)
{
    struct lift l = { .stream = stream };
    struct kern_mat tokens = take(&l, wte, READ), places = take(&l, wpe, READ);
    struct kern_mat out = take(&l, x, WRITE);

    RUN(&l, cpu_embed_fwd(stream, out, token, tokens, places, seq, start));
}

static kr_status embed_bwd(void *stream, struct kern_mat dwte, struct kern_mat dwpe,
                           const int32_t *token, struct kern_mat dx, int64_t seq,
                           const int32_t *start)
{
    struct lift l = { .stream = stream };
    struct kern_mat d = take(&l, dx, READ);

    RUN(&l, cpu_embed_bwd(stream, dwte, dwpe, token, d, seq, start));
}

static kr_status norm_fwd(void *stream, enum kern_norm kind, struct kern_mat y,
                          struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                          struct kern_mat b, double eps)
{
    struct lift l = { .stream = stream };
    struct kern_mat in = take(&l, x, READ), weight = take(&l, w, READ);
    struct kern_mat bias = take(&l, b, READ), out = take(&l, y, WRITE);

    RUN(&l, cpu_norm_fwd(stream, kind, out, stats, in, weight, bias, eps));
}

static kr_status norm_bwd(void *stream, enum kern_norm kind, struct kern_mat dx,
                          bool add_dx, struct kern_mat dw, struct kern_mat db,
                          bool add_dw, struct kern_mat dy, struct kern_mat x,
                          struct kern_mat w, struct kern_mat stats)
{
    struct lift l = { .stream = stream };
    struct kern_mat d = take(&l, dy, READ), in = take(&l, x, READ);
    struct kern_mat weight = take(&l, w, READ);
    struct kern_mat out = take(&l, dx, add_dx ? CHANGE : WRITE);

    RUN(&l,
        cpu_norm_bwd(stream, kind, out, add_dx, dw, db, add_dw, d, in, weight, stats));
}

static kr_status act_fwd(void *stream, enum kern_act kind, struct kern_mat y,
                         struct kern_mat u)
{
    struct lift l = { .stream = stream };
    struct kern_mat in = take(&l, u, READ), out = take(&l, y, WRITE);

    RUN(&l, cpu_act_fwd(stream, kind, out, in));
}

static kr_status act_bwd(void *stream, enum kern_act kind, struct kern_mat du,
                         struct kern_mat dy, struct kern_mat u)
{
    struct lift l = { .stream = stream };
    struct kern_mat d = take(&l, dy, READ), in = take(&l, u, READ);
    struct kern_mat out = take(&l, du, WRITE);

    RUN(&l, cpu_act_bwd(stream, kind, out, d, in));
}

static kr_status rope(void *stream, struct kern_mat x, struct kern_mat table,
                      int64_t heads, int64_t head_dim, int64_t seq,
                      enum kern_pairing pairing, bool inverse)
{
    struct lift l = { .stream = stream };
    struct kern_mat turned = take(&l, x, CHANGE);

    RUN(&l, cpu_rope(stream, turned, table, heads, head_dim, seq, pairing, inverse));
}

static kr_status attention_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                               struct kern_mat qkv, const struct kern_heads *h)
{
    struct lift l = { .stream = stream };
    struct kern_mat in = take(&l, qkv, READ), y = take(&l, out, WRITE);

    RUN(&l, cpu_attention_fwd(stream, y, lse, in, h));
}

static kr_status attention_bwd(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                               struct kern_mat dout, struct kern_mat qkv,
                               struct kern_mat out, struct kern_mat lse,
                               const struct kern_heads *h)
{
    struct lift l = { .stream = stream };
    struct kern_mat d = take(&l, dout, READ), in = take(&l, qkv, READ);
    struct kern_mat y = take(&l, out, READ), d_in = take(&l, dqkv, WRITE);

    RUN(&l, cpu_attention_bwd(stream, d_in, delta, d, in, y, lse, h));
}

static kr_status cross_entropy(void *stream, struct kern_mat loss,
                               struct kern_mat dlogits, struct kern_mat logits,
                               const int32_t *label, double grad_scale)
{
    struct lift l = { .stream = stream };
    struct kern_mat in = take(&l, logits, READ), d = take(&l, dlogits, WRITE);

    RUN(&l, cpu_cross_entropy(stream, loss, d, in, label, grad_scale));
}

/* fill, copy, add_round, the sums and adamw take bf16 as the CPU has them. */
const struct kern_ops cpu16_table = {
    .name = "cpu16",
    .fill = cpu_fill,
    .copy = cpu_copy,
    .add = add,
    .scale = scale,
    .add_round = cpu_add_round,
    .matmul = matmul,
    .sum_rows = sum_rows,
    .linear_fwd = linear_fwd,
    .embed_fwd = embed_fwd,
    .embed_bwd = embed_bwd,
    .norm_fwd = norm_fwd,
    .norm_bwd = norm_bwd,
    .act_fwd = act_fwd,
    .act_bwd = act_bwd,
    .rope = rope,
    .attention_fwd = attention_fwd,
    .attention_bwd = attention_bwd,
    .cross_entropy = cross_entropy,
    .sum = cpu_sum,
    .sumsq = cpu_sumsq,
    .checksum = cpu_checksum,
    .adamw = cpu_adamw,
};
