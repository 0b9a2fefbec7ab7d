/*
 * t_golden.c - whole models against numbers computed elsewhere in double precision.
 *
 * Weights come from a hash of (tensor number, element number), both in the order and
 * layout in which Hugging Face stores them; what follows knows how that maps to ours.
 *
 * Built with the CUDA back end (tests/device/golden-emu, golden-cuda) it runs there.
 */
#include "tests/check.h"
#include "tests/model_weights.h"
#include "tests/unit/golden.h"

/* How an element of ours finds its place in the stored tensor: as it is, from (in, out), or
 * from BLOOM's rows, which go head by head and inside a head q, k, v; norms and biases
 * differ in value only. */
enum layout { PLAIN, TRANSPOSED, BY_HEAD };
enum value { MATRIX, NORM, BIAS };

/* One stored tensor: which rows of which parameter it holds.  rows 0: all. */
struct stored {
    const char *name;
    enum value value;
    enum layout layout;
    int64_t row, rows;
};

static int64_t place(const struct param *par, const struct model_shape *shape,
                     enum layout layout, int64_t k)
{
    int64_t row = k / par->cols, col = k % par->cols, d = shape->head_dim;
    int64_t part = row / (shape->heads * d), head = row / d % shape->heads;

    if (layout == TRANSPOSED) return col * par->rows + row;
    if (layout == BY_HEAD) return (head * 3 * d + part * d + row % d) * par->cols + col;
    return k;
}

static void fill_tensor(struct plain *s, const struct model_shape *shape,
                        const struct stored *from, const char *name, uint32_t t)
{
    int32_t i = params_find(&s->p, name);
    struct param par = s->p.list[i < 0 ? 0 : i];
    int64_t n;
    double *x;

    if (i < 0) printf("# no %s\n", name);
    CHECK(i >= 0);
    if (from->value == BIAS) { /* a column, laid out as the rows of its matrix */
        par.rows = par.cols;
        par.cols = 1;
    }
    n = (from->rows ? from->rows : par.rows) * par.cols;
    x = malloc((size_t)n * sizeof *x);
    for (int64_t k = 0; k < n; k++) {
        double u = golden_value(t, (uint32_t)place(&par, shape, from->layout, k));

        x[k] = from->value == NORM ? 1 + 0.5 * u : from->value == BIAS ? 0.5 * u : u;
    }
    if (i >= 0) plain_set(s, i, from->row * par.cols, n, x);
    free(x);
}

/* The tensors of a family in the order of their numbers: before the blocks, of a block,
 * after the blocks.  Biases of part of a parameter count columns as rows. */
struct golden_order {
    struct stored before[4], block[16], after[3];
};

static const struct golden_order gpt2_order = {
    .before = { { .name = "embed.token" }, { .name = "embed.position" } },
    .block = { { "norm1.weight", NORM, PLAIN, 0, 0 },
               { "norm1.bias", BIAS, PLAIN, 0, 0 },
               { "attn.qkv.weight", MATRIX, TRANSPOSED, 0, 0 },
               { "attn.qkv.bias", BIAS, PLAIN, 0, 0 },
               { "attn.out.weight", MATRIX, TRANSPOSED, 0, 0 },
               { "attn.out.bias", BIAS, PLAIN, 0, 0 },
               { "norm2.weight", NORM, PLAIN, 0, 0 },
               { "norm2.bias", BIAS, PLAIN, 0, 0 },
               { "mlp.up.weight", MATRIX, TRANSPOSED, 0, 0 },
               { "mlp.up.bias", BIAS, PLAIN, 0, 0 },
               { "mlp.down.weight", MATRIX, TRANSPOSED, 0, 0 },
               { "mlp.down.bias", BIAS, PLAIN, 0, 0 } },
    .after = { { .name = "norm.weight", .value = NORM },
               { .name = "norm.bias", .value = BIAS } },
};

static const struct golden_order bloom_order = {
    .before = { { .name = "embed.token" },
                { .name = "embed.norm.weight", .value = NORM },
                { .name = "embed.norm.bias", .value = BIAS } },
    .block = { { "norm1.weight", NORM, PLAIN, 0, 0 },
               { "norm1.bias", BIAS, PLAIN, 0, 0 },
               { "attn.qkv.weight", MATRIX, BY_HEAD, 0, 0 },
               { "attn.qkv.bias", BIAS, BY_HEAD, 0, 0 },
               { "attn.out.weight", MATRIX, PLAIN, 0, 0 },
               { "attn.out.bias", BIAS, PLAIN, 0, 0 },
               { "norm2.weight", NORM, PLAIN, 0, 0 },
               { "norm2.bias", BIAS, PLAIN, 0, 0 },
               { "mlp.up.weight", MATRIX, PLAIN, 0, 0 },
               { "mlp.up.bias", BIAS, PLAIN, 0, 0 },
               { "mlp.down.weight", MATRIX, PLAIN, 0, 0 },
               { "mlp.down.bias", BIAS, PLAIN, 0, 0 } },
    .after = { { .name = "norm.weight", .value = NORM },
               { .name = "norm.bias", .value = BIAS } },
};

static const struct golden_order llama_order = {
    .before = { { .name = "embed.token" } },
    .block = { { "norm1.weight", NORM, PLAIN, 0, 0 },
               { "attn.qkv.weight", MATRIX, PLAIN, 0, 32 },
               { "attn.qkv.weight", MATRIX, PLAIN, 32, 16 },
               { "attn.qkv.weight", MATRIX, PLAIN, 48, 16 },
               { "attn.out.weight", MATRIX, PLAIN, 0, 0 },
               { "norm2.weight", NORM, PLAIN, 0, 0 },
               { "mlp.up.weight", MATRIX, PLAIN, 0, 48 },
               { "mlp.up.weight", MATRIX, PLAIN, 48, 48 },
               { "mlp.down.weight", MATRIX, PLAIN, 0, 0 } },
    .after = { { .name = "norm.weight", .value = NORM }, { .name = "head.weight" } },
};

/* Of a family with sandwich norms and of one without; the parameter decides. */
#define GLM_ATTENTION                                                                   \
    { "norm1.weight", NORM, PLAIN, 0, 0 }, { "attn.qkv.weight", MATRIX, PLAIN, 0, 32 }, \
        { "attn.qkv.bias", BIAS, PLAIN, 0, 32 },                                        \
        { "attn.qkv.weight", MATRIX, PLAIN, 32, 16 },                                   \
        { "attn.qkv.bias", BIAS, PLAIN, 32, 16 },                                       \
        { "attn.qkv.weight", MATRIX, PLAIN, 48, 16 },                                   \
        { "attn.qkv.bias", BIAS, PLAIN, 48, 16 },                                       \
    {                                                                                   \
        "attn.out.weight", MATRIX, PLAIN, 0, 0                                          \
    }
static const struct golden_order glm_order = {
    .before = { { .name = "embed.token" } },
    .block = { GLM_ATTENTION,
               { "norm2.weight", NORM, PLAIN, 0, 0 },
               { "mlp.up.weight", MATRIX, PLAIN, 0, 0 },
               { "mlp.down.weight", MATRIX, PLAIN, 0, 0 } },
    .after = { { .name = "norm.weight", .value = NORM }, { .name = "head.weight" } },
};
static const struct golden_order glm4_order = {
    .before = { { .name = "embed.token" } },
    .block = { GLM_ATTENTION,
               { "post1.weight", NORM, PLAIN, 0, 0 },
               { "norm2.weight", NORM, PLAIN, 0, 0 },
               { "mlp.up.weight", MATRIX, PLAIN, 0, 0 },
               { "mlp.down.weight", MATRIX, PLAIN, 0, 0 },
               { "post2.weight", NORM, PLAIN, 0, 0 } },
    .after = { { .name = "norm.weight", .value = NORM }, { .name = "head.weight" } },
};

static void fill_model(struct plain *s, const struct model_shape *shape,
                       const struct golden_order *o)
{
    char name[PARAMS_NAME];
    uint32_t t = 0;

    for (const struct stored *f = o->before; f->name; f++)
        fill_tensor(s, shape, f, f->name, t++);
    for (int l = 0; l < 2; l++)
        for (const struct stored *f = o->block; f->name; f++) {
            snprintf(name, sizeof name, "block.%d.%s", l, f->name);
            fill_tensor(s, shape, f, name, t++);
        }
    for (const struct stored *f = o->after; f->name; f++)
        fill_tensor(s, shape, f, f->name, t++);
}

/* Norm of the gradient of some rows of a parameter (of a bias: elements); rows 0: all. */
struct want {
    const char *name;
    int64_t row, rows;
    double norm;
};

struct golden {
    const struct golden_order *order;
    struct model_shape shape;
    double loss, logits[3], sum;
    struct want grads[16];
};

static const struct golden gpt2 = {
    .order = &gpt2_order,
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
    .order = &llama_order,
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
               .rope_scaling = { 8, 1, 4, 64, ROPE_LLAMA3, 0 } },
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

static const struct golden bloom = {
    .order = &bloom_order,
    .shape = { .family = &families[FAMILY_BLOOM],
               .layers = 2,
               .dim = 24,
               .heads = 6,
               .kv_heads = 6,
               .head_dim = 4,
               .ffn = 96,
               .vocab = 40,
               .context = 16 },
    .loss = 4.227193454412,
    .logits = { -0.1197481391, -0.5639493663, 3.5693865599 },
    .sum = 668.19512220,
    .grads = { { "embed.token", 0, 0, 2.3950811242 },
               { "embed.norm.weight", 0, 0, 0.4480711436 },
               { "block.0.norm1.weight", 0, 0, 0.4823262180 },
               { "block.0.attn.qkv.weight", 0, 0, 1.7855939518 },
               { "block.0.attn.qkv.bias", 0, 0, 0.3743955160 },
               { "block.0.attn.out.weight", 0, 0, 1.3702876643 },
               { "block.0.mlp.up.weight", 0, 0, 1.2429716544 },
               { "block.0.mlp.down.weight", 0, 0, 1.2181029557 },
               { "norm.weight", 0, 0, 0.6665805953 } },
};

static const struct golden glm = {
    .order = &glm_order,
    .shape = { .family = &families[FAMILY_GLM],
               .layers = 2,
               .dim = 32,
               .heads = 4,
               .kv_heads = 2,
               .head_dim = 8,
               .ffn = 48,
               .vocab = 40,
               .context = 16,
               .rope_theta = 1e4 },
    .loss = 4.715952138984,
    .logits = { 0.1157559781, -1.4532342420, -0.4789116563 },
    .sum = 776.98744231,
    .grads = { { "embed.token", 0, 0, 4.8016368839 },
               { "head.weight", 0, 0, 1.9222719476 },
               { "block.0.norm1.weight", 0, 0, 1.3678505458 },
               { "block.0.attn.qkv.weight", 0, 32, 2.7974720514 },
               { "block.0.attn.qkv.bias", 0, 32, 0.4153493598 },
               { "block.0.attn.qkv.weight", 32, 16, 2.3815052614 },
               { "block.0.attn.qkv.weight", 48, 16, 3.0073374243 },
               { "block.0.attn.out.weight", 0, 0, 2.7052283222 },
               { "block.0.mlp.up.weight", 0, 0, 2.8570491745 },
               { "block.0.mlp.down.weight", 0, 0, 1.9290672656 },
               { "norm.weight", 0, 0, 0.5692520938 } },
};

static const struct golden glm4 = {
    .order = &glm4_order,
    .shape = { .family = &families[FAMILY_GLM4],
               .layers = 2,
               .dim = 32,
               .heads = 4,
               .kv_heads = 2,
               .head_dim = 8,
               .ffn = 48,
               .vocab = 40,
               .context = 16,
               .rope_theta = 1e4 },
    .loss = 5.608230277459,
    .logits = { 0.6405747765, 0.1249325323, 2.3525275006 },
    .sum = 752.75379647,
    .grads = { { "embed.token", 0, 0, 6.0141688968 },
               { "head.weight", 0, 0, 1.8468798873 },
               { "block.0.norm1.weight", 0, 0, 1.5600593395 },
               { "block.0.attn.qkv.weight", 0, 32, 3.1775545587 },
               { "block.0.attn.qkv.bias", 0, 32, 0.6108176074 },
               { "block.0.attn.qkv.weight", 32, 16, 3.3049642363 },
               { "block.0.attn.qkv.weight", 48, 16, 4.0140251859 },
               { "block.0.attn.out.weight", 0, 0, 3.5376861987 },
               { "block.0.mlp.up.weight", 0, 0, 3.1095613026 },
               { "block.0.mlp.down.weight", 0, 0, 2.0395645056 },
               { "block.0.post1.weight", 0, 0, 0.9460035432 },
               { "block.0.post2.weight", 0, 0, 0.4985125912 },
               { "norm.weight", 0, 0, 0.7480920040 } },
};

/* Stretched positions; numbers of transformers 4.51.3, its frequencies, norms and softmax made
 * double as the rest. */
static const struct golden llama_yarn = {
    .order = &llama_order,
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
               .rope_scaling = { 4, 1, 32, 64, ROPE_YARN, 0 } },
    .loss = 4.774649535920,
    .logits = { 0.8542311055, -3.6144369208, -1.7923735613 },
    .sum = 698.25737043,
    .grads = { { "embed.token", 0, 0, 7.2325906384 },
               { "head.weight", 0, 0, 1.8116835878 },
               { "block.0.norm1.weight", 0, 0, 2.2638206937 },
               { "block.0.attn.qkv.weight", 0, 32, 4.0564738189 },
               { "block.0.attn.qkv.weight", 32, 16, 4.9535280554 },
               { "block.0.attn.qkv.weight", 48, 16, 3.9772044923 },
               { "block.0.attn.out.weight", 0, 0, 3.8534399714 },
               { "block.0.mlp.up.weight", 0, 48, 2.5003609726 },
               { "block.0.mlp.up.weight", 48, 48, 2.4120717488 },
               { "block.0.mlp.down.weight", 0, 0, 2.0795119597 },
               { "norm.weight", 0, 0, 0.6826536654 } },
};

/* Seven tokens where four were the context. */
static const struct golden glm_dynamic = {
    .order = &glm_order,
    .shape = { .family = &families[FAMILY_GLM],
               .layers = 2,
               .dim = 32,
               .heads = 4,
               .kv_heads = 2,
               .head_dim = 8,
               .ffn = 48,
               .vocab = 40,
               .context = 7,
               .rope_theta = 1e4,
               .rope_scaling = { 2, 1, 4, 4, ROPE_DYNAMIC, 0 } },
    .loss = 4.715970464370,
    .logits = { 0.1097987321, -1.4568012248, -0.4933981105 },
    .sum = 776.44194152,
    .grads = { { "embed.token", 0, 0, 4.8469923347 },
               { "head.weight", 0, 0, 1.9229547982 },
               { "block.0.attn.qkv.weight", 0, 32, 2.8163569075 },
               { "block.0.attn.qkv.bias", 0, 32, 0.4179682990 },
               { "block.0.attn.qkv.weight", 32, 16, 2.3830624371 },
               { "block.0.attn.qkv.weight", 48, 16, 3.0153649804 },
               { "block.0.attn.out.weight", 0, 0, 2.7104423016 },
               { "norm.weight", 0, 0, 0.5691331361 } },
};

/* ---- one model on one device ------------------------------------------------------------ */

static double grad_norm(struct plain *s, const struct want *w)
{
    int32_t i = params_find(&s->p, w->name);
    int64_t cols = s->p.list[i].rows > 1 ? s->p.list[i].cols : 1;
    int64_t all = s->p.list[i].rows * s->p.list[i].cols,
            n = w->rows ? w->rows * cols : all;
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
    for (int r = 0; r < GOLDEN_SEQUENCES; r++)
        for (int c = 0; c < GOLDEN_SEQ; c++) {
            struct batch b = plain_batch(s, token + r * GOLDEN_SEQ, label, 1, c + 1);

            CHECK(model_logits(s->m, &s->face, &b, kern_mat(at, 1, 40, type)) == KR_OK);
            CHECK(kern_download(s->q, raw, at, 40 * kern_dtype_bytes(type)) == KR_OK);
            CHECK(kern_queue_sync(s->q) == KR_OK);
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
    int32_t token[GOLDEN_ROWS], label[GOLDEN_ROWS];
    struct plain s;
    struct batch b;

    plain_open(&s, device, &g->shape, GOLDEN_SEQUENCES);
    fill_model(&s, &g->shape, g->order);
    golden_batch(token, label);
    CHECK_I64(token[0], ==, 26);
    CHECK_I64(token[13], ==, 27);
    b = plain_batch(&s, token, label, GOLDEN_SEQUENCES, GOLDEN_SEQ);
    CHECK_NEAR(plain_loss(&s, &b, 0) / GOLDEN_VALID, g->loss, g->loss * tolerance);
    CHECK_NEAR(plain_loss(&s, &b, 1.0 / GOLDEN_VALID) / GOLDEN_VALID, g->loss,
               g->loss * tolerance);
    for (const struct want *w = g->grads; w->name; w++) {
        double got = grad_norm(&s, w);

        if (!(fabs(got - w->norm) <= 10 * tolerance * w->norm)) printf("# %s\n", w->name);
        CHECK_NEAR(got, w->norm, 10 * tolerance * w->norm);
    }
    check_logits(&s, g, token, label, tolerance);
    plain_close(&s);
}

/* The printed digits are the limit in double; in float, rounding. */
#define ON_EVERY_DEVICE(family)                                              \
    static void family##_in_double(void) { check(&family, "cpu64", 1e-10); } \
    static void family##_on_the_cpu(void) { check(&family, "cpu", 3e-6); }   \
    static void family##_on_guard(void) { check(&family, "guard", 3e-6); }   \
    static void family##_on_the_gpu(void) { check(&family, "cuda32", 3e-6); }
#define RUN_ALL(family)               \
    do {                              \
        if (gpu) {                    \
            RUN(family##_on_the_gpu); \
            break;                    \
        }                             \
        RUN(family##_in_double);      \
        RUN(family##_on_the_cpu);     \
        RUN(family##_on_guard);       \
    } while (0)
ON_EVERY_DEVICE(gpt2)
ON_EVERY_DEVICE(bloom)
ON_EVERY_DEVICE(llama)
ON_EVERY_DEVICE(glm)
ON_EVERY_DEVICE(glm4)
ON_EVERY_DEVICE(llama_yarn)
ON_EVERY_DEVICE(glm_dynamic)

int main(void)
{
    bool gpu = strcmp(kern_device_default(), "cuda") == 0;

    RUN_ALL(gpt2);
    RUN_ALL(bloom);
    RUN_ALL(llama);
    RUN_ALL(glm);
    RUN_ALL(glm4);
    RUN_ALL(llama_yarn);
    RUN_ALL(glm_dynamic);
    return check_done();
}
