/* family.c - the rows, and what follows from sizes alone. */
#include "trainer/model/family.h"

#include <inttypes.h>
#include <math.h>

/* clang-format off */
const struct family families[] = {
    [FAMILY_GPT2]  = { .name = "gpt2", .norm = KERN_LAYERNORM, .norm_bias = true,
                       .pos = POS_LEARNED, .act = KERN_GELU_TANH, .qkv_bias = true,
                       .out_bias = true, .mlp_bias = true, .tied = true, .norm_eps = 1e-5 },
    [FAMILY_LLAMA] = { .name = "llama", .norm = KERN_RMSNORM, .pos = POS_ROPE,
                       .pairing = KERN_ROPE_HALF, .rope_share = 1, .act = KERN_SWIGLU,
                       .norm_eps = 1e-5 },
};
/* clang-format on */

kr_status model_shape_check(const struct model_shape *s)
{
    if (s->dim % s->heads != 0)
        return KR_FAIL(KR_ERR_ARG,
                       "model.dim = %" PRId64 " is not a multiple of model.heads"
                       " = %" PRId64,
                       s->dim, s->heads);
    if (s->heads % s->kv_heads != 0)
        return KR_FAIL(KR_ERR_ARG,
                       "model.heads = %" PRId64 " is not a multiple of "
                       "model.kv_heads = %" PRId64,
                       s->heads, s->kv_heads);
    if (model_rope_dims(s) % 2 != 0)
        return KR_FAIL(KR_ERR_ARG,
                       "model.dim / model.heads = %" PRId64
                       " is odd; rotary positions need pairs",
                       s->head_dim);
    return KR_OK;
}

int64_t model_rope_dims(const struct model_shape *s)
{
    if (s->family->pos != POS_ROPE) return 0;
    return (int64_t)(s->family->rope_share * (double)s->head_dim);
}

/* LLaMA 3's stretching: by wavelength, none below old / high, all above old / low. */
static double stretched(double omega, const struct rope_scaling *r)
{
    double wave = 2 * acos(-1.0) / omega, blend;

    if (r->factor <= 1 || wave < r->old_context / r->high) return omega;
    if (wave > r->old_context / r->low) return omega / r->factor;
    blend = (r->old_context / wave - r->low) / (r->high - r->low);
    return (1 - blend) * omega / r->factor + blend * omega;
}

void model_rope_frequencies(const struct model_shape *s, double *omega)
{
    int64_t dims = model_rope_dims(s);

    for (int64_t i = 0; i < dims / 2; i++)
        omega[i] = stretched(pow(s->rope_theta, -2.0 * (double)i / (double)dims),
                             &s->rope_scaling);
}

/* Elements of the matrices of one block; of them, gated MLPs have three. */
static double block_matrices(const struct model_shape *s)
{
    double c = (double)s->dim, d = (double)s->head_dim, h = (double)s->heads;
    double k = (double)s->kv_heads, f = (double)s->ffn;

    return c * (h + 2 * k) * d + h * d * c +
           (s->family->act == KERN_SWIGLU ? 3 : 2) * c * f;
}

static double attention_flops(const struct model_shape *s, int64_t seq)
{
    return 12.0 * (double)s->layers * (double)s->heads * (double)s->head_dim *
           (double)seq;
}

double model_flops_per_token(const struct model_shape *s, int64_t seq)
{
    double matrices = (double)s->layers * block_matrices(s);

    return 6 * (matrices + (double)s->vocab * (double)s->dim) +
           attention_flops(s, seq) / 2;
}

double model_flops_per_token_palm(const struct model_shape *s, int64_t seq)
{
    double embeddings = (double)s->vocab * (double)s->dim * (s->family->tied ? 1 : 2);

    return 6 * ((double)s->layers * block_matrices(s) + embeddings) +
           attention_flops(s, seq);
}
