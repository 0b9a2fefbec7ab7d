/* family.c - the rows, and what follows from sizes alone. */
#include "trainer/model/family.h"

#include <inttypes.h>
#include <math.h>

/* clang-format off */
const struct family families[] = {
    [FAMILY_GPT2]    = { .name = "gpt2", .norm = KERN_LAYERNORM, .norm_bias = true,
                         .pos = POS_LEARNED, .act = KERN_GELU_TANH, .qkv_bias = true,
                         .out_bias = true, .mlp_bias = true, .tied = true, .norm_eps = 1e-5,
                         .one_qkv = true },
    [FAMILY_LLAMA]   = { .name = "llama", .norm = KERN_RMSNORM, .pos = POS_ROPE,
                         .pairing = KERN_ROPE_HALF, .rope_share = 1, .act = KERN_SWIGLU,
                         .norm_eps = 1e-5 },
    [FAMILY_BLOOM]   = { .name = "bloom", .norm = KERN_LAYERNORM, .norm_bias = true,
                         .embed_norm = true, .pos = POS_ALIBI, .act = KERN_GELU_TANH,
                         .qkv_bias = true, .out_bias = true, .mlp_bias = true, .tied = true,
                         .norm_eps = 1e-5, .one_qkv = true },
    [FAMILY_GLM]     = { .name = "glm", .norm = KERN_RMSNORM, .pos = POS_ROPE,
                         .pairing = KERN_ROPE_INTERLEAVED, .rope_share = 0.5,
                         .act = KERN_SWIGLU, .qkv_bias = true, .norm_eps = 1.5625e-7,
                         .one_gate_up = true },
    [FAMILY_CHATGLM] = { .name = "chatglm", .norm = KERN_RMSNORM, .pos = POS_ROPE,
                         .pairing = KERN_ROPE_INTERLEAVED, .rope_share = 0.5,
                         .act = KERN_SWIGLU, .qkv_bias = true, .norm_eps = 1e-5,
                         .one_qkv = true, .one_gate_up = true },
    [FAMILY_GLM4]    = { .name = "glm4", .norm = KERN_RMSNORM, .sandwich = true,
                         .pos = POS_ROPE, .pairing = KERN_ROPE_INTERLEAVED,
                         .rope_share = 0.5, .act = KERN_SWIGLU, .qkv_bias = true,
                         .norm_eps = 1e-5, .one_gate_up = true },
};
/* clang-format on */

static kr_status check_stretch(const struct model_shape *s)
{
    const struct rope_scaling *r = &s->rope_scaling;
    bool by_turns = r->kind == ROPE_LLAMA3 || r->kind == ROPE_YARN;

    if (s->family->pos != POS_ROPE || r->factor <= 1) return KR_OK;
    if (by_turns && r->high <= r->low)
        return KR_FAIL(KR_ERR_ARG,
                       "model.rope_high = %g is not above model.rope_low = %g", r->high,
                       r->low);
    if (r->kind == ROPE_YARN && s->rope_theta <= 1)
        return KR_FAIL(KR_ERR_ARG,
                       "model.rope_scaling = yarn needs model.rope_theta > 1");
    if (r->kind == ROPE_DYNAMIC && model_rope_dims(s) <= 2)
        return KR_FAIL(KR_ERR_ARG,
                       "model.rope_scaling = dynamic needs more than one pair of rotated "
                       "channels");
    return KR_OK;
}

kr_status model_shape_check(const struct model_shape *s)
{
    int64_t turned = model_rope_dims(s);
    char names[LORA_TEXT];

    if (s->heads % s->kv_heads != 0)
        return KR_FAIL(KR_ERR_ARG,
                       "model.heads = %" PRId64 " is not a multiple of "
                       "model.kv_heads = %" PRId64,
                       s->heads, s->kv_heads);
    if (turned % 2 != 0 || turned > s->head_dim)
        return KR_FAIL(KR_ERR_ARG,
                       "rotary positions need pairs: %" PRId64
                       " channels of heads of %" PRId64 " cannot be turned",
                       turned, s->head_dim);
    if (s->lora.rank > 0 && s->lora.sites == 0)
        return KR_FAIL(KR_ERR_ARG, "lora.targets: want all, or a list of what %s has: %s",
                       s->family->name, lora_print(lora_sites(s->family), names));
    return check_stretch(s);
}

static bool own_or(enum as_family own, bool family)
{
    return own == AS_FAMILY ? family : own == FAMILY_YES;
}

bool model_tied(const struct model_shape *s) { return own_or(s->tied, s->family->tied); }

bool model_qkv_bias(const struct model_shape *s)
{
    return own_or(s->qkv_bias, s->family->qkv_bias);
}

bool model_out_bias(const struct model_shape *s)
{
    return own_or(s->out_bias, s->family->out_bias);
}

bool model_mlp_bias(const struct model_shape *s)
{
    return own_or(s->mlp_bias, s->family->mlp_bias);
}

double model_norm_eps(const struct model_shape *s)
{
    return s->norm_eps > 0 ? s->norm_eps : s->family->norm_eps;
}

int64_t model_qkv_rows(const struct model_shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->head_dim;
}

int64_t model_up_rows(const struct model_shape *s)
{
    return (s->family->act == KERN_SWIGLU ? 2 : 1) * s->ffn;
}

int64_t model_rope_dims(const struct model_shape *s)
{
    if (s->family->pos != POS_ROPE) return 0;
    if (s->rope_dims > 0) return s->rope_dims;
    return (int64_t)(s->family->rope_share * (double)s->head_dim);
}

void model_alibi_slopes(const struct model_shape *s, float *slopes)
{
    int64_t c = 1;

    while (2 * c <= s->heads)
        c *= 2;
    for (int64_t h = 0; h < s->heads; h++) {
        double k = h < c ? (double)(h + 1) : (double)(h - c) + 0.5;

        slopes[h] = (float)exp2(-8 * k / (double)c);
    }
}

/* Of pair i: theta^(-2i / R). */
static double frequency(const struct model_shape *s, double theta, int64_t i)
{
    return pow(theta, -2.0 * (double)i / (double)model_rope_dims(s));
}

/* One way of stretching: the frequency of pair i. */
typedef double stretch_fn(const struct model_shape *s, int64_t i);

static double stretch_llama3(const struct model_shape *s, int64_t i)
{
    const struct rope_scaling *r = &s->rope_scaling;
    double omega = frequency(s, s->rope_theta, i), wave = 2 * acos(-1.0) / omega, blend;

    if (wave < r->old_context / r->high) return omega;
    if (wave > r->old_context / r->low) return omega / r->factor;
    blend = (r->old_context / wave - r->low) / (r->high - r->low);
    return (1 - blend) * omega / r->factor + blend * omega;
}

static double stretch_linear(const struct model_shape *s, int64_t i)
{
    return frequency(s, s->rope_theta, i) / s->rope_scaling.factor;
}

/* D(turns) of the header. */
static double pair_of_turns(const struct model_shape *s, double turns)
{
    return (double)model_rope_dims(s) *
           log(s->rope_scaling.old_context / (2 * acos(-1.0) * turns)) /
           (2 * log(s->rope_theta));
}

static double stretch_yarn(const struct model_shape *s, int64_t i)
{
    const struct rope_scaling *r = &s->rope_scaling;
    double first = fmax(floor(pair_of_turns(s, r->high)), 0);
    double last = fmin(ceil(pair_of_turns(s, r->low)), (double)model_rope_dims(s) - 1);
    double omega = frequency(s, s->rope_theta, i), blend;

    if (first == last) last += 0.001; /* theirs, against a division by 0 */
    blend = fmin(fmax(((double)i - first) / (last - first), 0), 1);
    return omega / r->factor * blend + omega * (1 - blend);
}

static double stretch_dynamic(const struct model_shape *s, int64_t i)
{
    const struct rope_scaling *r = &s->rope_scaling;
    double dims = (double)model_rope_dims(s), context = (double)s->context;
    double grown = fmax(r->factor * context / r->old_context - (r->factor - 1), 1);

    return frequency(s, s->rope_theta * pow(grown, dims / (dims - 2)), i);
}

void model_rope_frequencies(const struct model_shape *s, double *omega)
{
    static stretch_fn *const ways[] = {
        [ROPE_LLAMA3] = stretch_llama3,
        [ROPE_LINEAR] = stretch_linear,
        [ROPE_YARN] = stretch_yarn,
        [ROPE_DYNAMIC] = stretch_dynamic,
    };
    bool plain = s->rope_scaling.factor <= 1;

    for (int64_t i = 0; i < model_rope_dims(s) / 2; i++)
        omega[i] =
            plain ? frequency(s, s->rope_theta, i) : ways[s->rope_scaling.kind](s, i);
}

double model_rope_magnitude(const struct model_shape *s)
{
    const struct rope_scaling *r = &s->rope_scaling;

    if (r->kind != ROPE_YARN || r->factor <= 1) return 1;
    return r->attention > 0 ? r->attention : 0.1 * log(r->factor) + 1;
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

/* Elements of all adapters. */
static double adapters(const struct model_shape *s)
{
    double sum = 0;

    for (int i = 0; i < LORA_SITES; i++) {
        int64_t first, rows;

        if (!lora_has(&s->lora, i)) continue;
        lora_rows(s, i, &first, &rows);
        sum += (double)(s->layers * s->lora.rank * (rows + lora_inputs(s, i)));
    }
    return sum;
}

double model_flops_per_token(const struct model_shape *s, int64_t seq)
{
    double matrices = (double)s->layers * block_matrices(s);

    return (s->lora.rank ? 4 : 6) * (matrices + (double)s->vocab * (double)s->dim) +
           6 * adapters(s) + attention_flops(s, seq) / 2;
}

double model_flops_per_token_palm(const struct model_shape *s, int64_t seq)
{
    double embeddings = (double)s->vocab * (double)s->dim * (model_tied(s) ? 1 : 2);

    return 6 * ((double)s->layers * block_matrices(s) + embeddings) +
           attention_flops(s, seq);
}
