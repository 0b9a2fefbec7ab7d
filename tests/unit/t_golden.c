/*
 * t_golden.c - whole models against numbers computed elsewhere in double precision.
 *
 * Weights come from a hash of (tensor number, element number), both in the order and
 * layout in which Hugging Face stores them; what follows knows how that maps to ours:
 * GPT-2's linear layers are stored (in, out), q, k, v and gate, up are tensors of their
 * own in LLaMA.
 */
#include "tests/check.h"
#include "tests/model_weights.h"

enum { SEQ = 7, SEQUENCES = 2, VALID = 10 };

static uint32_t mix(uint32_t t, uint32_t k)
{
    uint32_t x = (t + 1) * 2654435761u + (k + 1) * 40503u;

    x ^= x >> 16;
    x *= 0x85EBCA6Bu;
    x ^= x >> 13;
    x *= 0xC2B2AE35u;
    return x ^ x >> 16;
}

static double value(uint32_t t, uint32_t k) { return mix(t, k) / 0x1p32 - 0.5; }

/* How one of our parameters, or some rows of it, is filled from stored tensor t. */
enum fill { PLAIN, TRANSPOSED, NORM, BIAS };

static void fill_rows(struct plain *s, const char *name, int64_t row, int64_t rows,
                      uint32_t t, enum fill how)
{
    int32_t i = params_find(&s->p, name);
    int64_t cols = s->p.list[i].cols, n = rows * cols;
    double *x = malloc((size_t)n * sizeof *x);

    CHECK(i >= 0);
    for (int64_t k = 0; k < n; k++) {
        int64_t stored = how == TRANSPOSED ? k % cols * rows + k / cols : k;
        double u = value(t, (uint32_t)stored);

        x[k] = how == NORM ? 1 + 0.5 * u : how == BIAS ? 0.5 * u : u;
    }
    plain_set(s, i, row * cols, n, x);
    free(x);
}

static void fill(struct plain *s, const char *name, uint32_t t, enum fill how)
{
    fill_rows(s, name, 0, s->p.list[params_find(&s->p, name)].rows, t, how);
}

static const char *in_block(int l, const char *name)
{
    static char text[PARAMS_NAME];

    snprintf(text, sizeof text, "block.%d.%s", l, name);
    return text;
}

static void fill_gpt2(struct plain *s)
{
    static const struct {
        const char *name;
        enum fill how;
    } order[] = {
        { "norm1.weight", NORM },          { "norm1.bias", BIAS },
        { "attn.qkv.weight", TRANSPOSED }, { "attn.qkv.bias", BIAS },
        { "attn.out.weight", TRANSPOSED }, { "attn.out.bias", BIAS },
        { "norm2.weight", NORM },          { "norm2.bias", BIAS },
        { "mlp.up.weight", TRANSPOSED },   { "mlp.up.bias", BIAS },
        { "mlp.down.weight", TRANSPOSED }, { "mlp.down.bias", BIAS },
    };
    uint32_t t = 0;

    fill(s, "embed.token", t++, PLAIN);
    fill(s, "embed.position", t++, PLAIN);
    for (int l = 0; l < 2; l++)
        for (size_t i = 0; i < sizeof order / sizeof *order; i++)
            fill(s, in_block(l, order[i].name), t++, order[i].how);
    fill(s, "norm.weight", t++, NORM);
    fill(s, "norm.bias", t++, BIAS);
}

static void fill_llama(struct plain *s)
{
    uint32_t t = 0;

    fill(s, "embed.token", t++, PLAIN);
    for (int l = 0; l < 2; l++) {
        fill(s, in_block(l, "norm1.weight"), t++, NORM);
        fill_rows(s, in_block(l, "attn.qkv.weight"), 0, 32, t++, PLAIN);
        fill_rows(s, in_block(l, "attn.qkv.weight"), 32, 16, t++, PLAIN);
        fill_rows(s, in_block(l, "attn.qkv.weight"), 48, 16, t++, PLAIN);
        fill(s, in_block(l, "attn.out.weight"), t++, PLAIN);
        fill(s, in_block(l, "norm2.weight"), t++, NORM);
        fill_rows(s, in_block(l, "mlp.up.weight"), 0, 48, t++, PLAIN);
        fill_rows(s, in_block(l, "mlp.up.weight"), 48, 48, t++, PLAIN);
        fill(s, in_block(l, "mlp.down.weight"), t++, PLAIN);
    }
    fill(s, "norm.weight", t++, NORM);
    fill(s, "head.weight", t++, PLAIN);
}

/* Norm of the gradient of some rows of a parameter; rows 0: all. */
struct want {
    const char *name;
    int64_t row, rows;
    double norm;
};

struct golden {
    void (*fill)(struct plain *s);
    struct model_shape shape;
    double loss, logits[3], sum;
    struct want grads[12];
};

static const struct golden gpt2 = {
    .fill = fill_gpt2,
    .shape = { .family = &families[FAMILY_GPT2],
               .layers = 2,
               .dim = 24,
               .heads = 3,
               .kv_heads = 3,
               .head_dim = 8,
               .ffn = 96,
               .vocab = 40,
               .context = 16,
               .rope_theta = 1e4 },
    .loss = 5.032295915678,
    .logits = { -1.7107155042, 0.1046994683, 0.9408171138 },
    .sum = 628.19468749,
    .grads = { { "embed.token", 0, 0, 2.5734920182 },
               { "embed.position", 0, 0, 1.9845064045 },
               { "block.0.norm1.weight", 0, 0, 0.6868008806 },
               { "block.0.attn.qkv.weight", 0, 0, 2.5432518578 },
               { "block.0.attn.qkv.bias", 0, 0, 0.6676905745 },
               { "block.0.attn.out.weight", 0, 0, 1.8256865241 },
               { "block.0.mlp.up.weight", 0, 0, 1.6001404755 },
               { "block.0.mlp.down.weight", 0, 0, 1.7722895690 },
               { "norm.weight", 0, 0, 0.7069104918 } },
};

static const struct golden llama = {
    .fill = fill_llama,
    .shape = { .family = &families[FAMILY_LLAMA],
               .layers = 2,
               .dim = 32,
               .heads = 4,
               .kv_heads = 2,
               .head_dim = 8,
               .ffn = 48,
               .vocab = 40,
               .context = 16,
               .rope_theta = 1e4,
               .rope_scaling = { 8, 1, 4, 64 } },
    .loss = 4.900352175894,
    .logits = { 0.9201965843, -3.7789071760, -2.0969125484 },
    .sum = 700.10713922,
    .grads = { { "embed.token", 0, 0, 7.5632901041 },
               { "head.weight", 0, 0, 1.7969154367 },
               { "block.0.norm1.weight", 0, 0, 2.4636754516 },
               { "block.0.attn.qkv.weight", 0, 32, 4.4959067716 },
               { "block.0.attn.qkv.weight", 32, 16, 5.5955053448 },
               { "block.0.attn.qkv.weight", 48, 16, 4.7524445179 },
               { "block.0.attn.out.weight", 0, 0, 4.6768237796 },
               { "block.0.mlp.up.weight", 0, 48, 3.0600048578 },
               { "block.0.mlp.up.weight", 48, 48, 2.7283144892 },
               { "block.0.mlp.down.weight", 0, 0, 2.4015088325 },
               { "norm.weight", 0, 0, 0.6877148483 } },
};

/* ---- one model on one device ------------------------------------------------------------ */

static void make_tokens(int32_t *token, int32_t *label)
{
    for (int r = 0; r < SEQUENCES; r++)
        for (int c = 0; c < SEQ; c++)
            token[r * SEQ + c] = (int32_t)(mix(999, (uint32_t)(r * 7 + c)) % 40);
    for (int i = 0; i < SEQUENCES * SEQ; i++)
        label[i] = i % SEQ == SEQ - 1 ? KERN_IGNORE : token[i + 1];
    label[SEQ] = label[SEQ + 1] = KERN_IGNORE;
}

static double grad_norm(struct plain *s, const struct want *w)
{
    int32_t i = params_find(&s->p, w->name);
    int64_t cols = s->p.list[i].cols, n = (w->rows ? w->rows : s->p.list[i].rows) * cols;
    double *g = malloc((size_t)n * sizeof *g), sum = 0;

    plain_get_grad(s, i, w->row * cols, n, g);
    for (int64_t k = 0; k < n; k++)
        sum += g[k] * g[k];
    free(g);
    return sqrt(sum);
}

/* Logits of every position, each from a forward over the tokens up to it. */
static void check_logits(struct plain *s, const struct golden *g, const int32_t *token,
                         const int32_t *label, double tolerance)
{
    enum kern_dtype type = kern_device_type(s->d);
    double sum = 0;
    void *at = NULL, *raw = malloc(40 * sizeof(double));

    CHECK(kern_alloc(s->d, &at, 40 * kern_dtype_bytes(type), "logits") == KR_OK);
    for (int r = 0; r < SEQUENCES; r++)
        for (int c = 0; c < SEQ; c++) {
            struct batch b = plain_batch(s, token + r * SEQ, label, 1, c + 1);

            CHECK(model_logits(s->m, &s->face, &b, kern_mat(at, 1, 40, type)) == KR_OK);
            CHECK(kern_download(s->q, raw, at, 40 * kern_dtype_bytes(type)) == KR_OK);
            for (int v = 0; v < 40; v++) {
                double x =
                    type == KERN_F64 ? ((double *)raw)[v] : (double)((float *)raw)[v];

                sum += fabs(x);
                if (r == 0 && c == 6 && v < 3)
                    CHECK_NEAR(x, g->logits[v], 10 * tolerance);
            }
            kern_free(s->d, (void *)(uintptr_t)b.token);
            kern_free(s->d, (void *)(uintptr_t)b.label);
        }
    CHECK_NEAR(sum, g->sum, g->sum * tolerance + 1e-8);
    kern_free(s->d, at);
    free(raw);
}

static void check(const struct golden *g, const char *device, double tolerance)
{
    int32_t token[SEQUENCES * SEQ], label[SEQUENCES * SEQ];
    struct plain s;
    struct batch b;

    plain_open(&s, device, &g->shape, SEQUENCES);
    g->fill(&s);
    make_tokens(token, label);
    CHECK_I64(token[0], ==, 26);
    CHECK_I64(token[13], ==, 27);
    b = plain_batch(&s, token, label, SEQUENCES, SEQ);
    CHECK_NEAR(plain_loss(&s, &b, 0) / VALID, g->loss, g->loss * tolerance);
    CHECK_NEAR(plain_loss(&s, &b, 1.0 / VALID) / VALID, g->loss, g->loss * tolerance);
    for (const struct want *w = g->grads; w->name; w++) {
        double got = grad_norm(&s, w);

        if (!(fabs(got - w->norm) <= 10 * tolerance * w->norm)) printf("# %s\n", w->name);
        CHECK_NEAR(got, w->norm, 10 * tolerance * w->norm);
    }
    check_logits(&s, g, token, label, tolerance);
    plain_close(&s);
}

/* The printed digits are the limit in double; in float, rounding. */
static void gpt2_in_double(void) { check(&gpt2, "cpu64", 1e-10); }
static void llama_in_double(void) { check(&llama, "cpu64", 1e-10); }
static void gpt2_on_the_cpu(void) { check(&gpt2, "cpu", 3e-6); }
static void llama_on_the_cpu(void) { check(&llama, "cpu", 3e-6); }
static void gpt2_on_guard(void) { check(&gpt2, "guard", 3e-6); }
static void llama_on_guard(void) { check(&llama, "guard", 3e-6); }

int main(void)
{
    RUN(gpt2_in_double);
    RUN(llama_in_double);
    RUN(gpt2_on_the_cpu);
    RUN(llama_on_the_cpu);
    RUN(gpt2_on_guard);
    RUN(llama_on_guard);
    return check_done();
}
