/* t_params.c - the list of parameters of published models has the published length, and
 * lies in its units without overlap. */
#include "tests/check.h"
#include "trainer/model/params.h"

struct published {
    const char *name;
    int family;
    int64_t dim, layers, heads, kv_heads, head_dim, ffn, vocab, context, count;
    enum as_family tied, qkv_bias;
};

/* clang-format off */
static const struct published models[] = {
    { "GPT-2 124M", FAMILY_GPT2, 768, 12, 12, 12, 64, 3072, 50257, 1024, 124439808, 0, 0 },
    { "GPT-2 355M", FAMILY_GPT2, 1024, 24, 16, 16, 64, 4096, 50257, 1024, 354823168, 0, 0 },
    { "GPT-2 774M", FAMILY_GPT2, 1280, 36, 20, 20, 64, 5120, 50257, 1024, 774030080, 0, 0 },
    { "GPT-2 1.5B", FAMILY_GPT2, 1600, 48, 25, 25, 64, 6400, 50257, 1024, 1557611200, 0, 0 },
    { "BLOOM-560M", FAMILY_BLOOM, 1024, 24, 16, 16, 64, 4096, 250880, 2048, 559214592, 0, 0 },
    { "BLOOM-1B1", FAMILY_BLOOM, 1536, 24, 16, 16, 96, 6144, 250880, 2048, 1065314304, 0, 0 },
    { "BLOOM-1B7", FAMILY_BLOOM, 2048, 24, 16, 16, 128, 8192, 250880, 2048, 1722408960, 0, 0 },
    { "BLOOM-3B", FAMILY_BLOOM, 2560, 30, 32, 32, 80, 10240, 250880, 2048, 3002557440, 0, 0 },
    { "BLOOM-7B1", FAMILY_BLOOM, 4096, 30, 32, 32, 128, 16384, 250880, 2048, 7069016064, 0, 0 },
    { "BLOOM-176B", FAMILY_BLOOM, 14336, 70, 112, 112, 128, 57344, 250880, 2048, 176247271424, 0, 0 },
    { "LLaMA-1 7B", FAMILY_LLAMA, 4096, 32, 32, 32, 128, 11008, 32000, 2048, 6738415616, 0, 0 },
    { "LLaMA-1 13B", FAMILY_LLAMA, 5120, 40, 40, 40, 128, 13824, 32000, 2048, 13015864320, 0, 0 },
    { "LLaMA-1 33B", FAMILY_LLAMA, 6656, 60, 52, 52, 128, 17920, 32000, 2048, 32528943616, 0, 0 },
    { "LLaMA-1 65B", FAMILY_LLAMA, 8192, 80, 64, 64, 128, 22016, 32000, 2048, 65285660672, 0, 0 },
    { "LLaMA-2 70B", FAMILY_LLAMA, 8192, 80, 64, 8, 128, 28672, 32000, 4096, 68976648192, 0, 0 },
    { "Llama-3 8B", FAMILY_LLAMA, 4096, 32, 32, 8, 128, 14336, 128256, 8192, 8030261248, 0, 0 },
    { "Llama-3 70B", FAMILY_LLAMA, 8192, 80, 64, 8, 128, 28672, 128256, 8192, 70553706496, 0, 0 },
    { "Llama-3.1 405B", FAMILY_LLAMA, 16384, 126, 128, 8, 128, 53248, 128256, 131072, 405853388800, 0, 0 },
    { "Llama-3.2 1B", FAMILY_LLAMA, 2048, 16, 32, 8, 64, 8192, 128256, 131072, 1235814400, FAMILY_YES, 0 },
    { "Llama-3.2 3B", FAMILY_LLAMA, 3072, 28, 24, 8, 128, 8192, 128256, 131072, 3212749824, FAMILY_YES, 0 },
    { "ChatGLM3-6B", FAMILY_CHATGLM, 4096, 28, 32, 2, 128, 13696, 65024, 32768, 6243584000, 0, 0 },
    { "glm-4-9b-chat", FAMILY_GLM, 4096, 40, 32, 2, 128, 13696, 151552, 131072, 9399951360, 0, 0 },
    { "glm-4-9b-chat-1m", FAMILY_GLM, 4096, 40, 32, 4, 128, 13696, 151552, 1048576, 9483857920, 0, 0 },
    { "GLM-4-32B-0414", FAMILY_GLM4, 6144, 61, 48, 2, 128, 23040, 151552, 32768, 32566081536, 0, FAMILY_NO },
};
/* clang-format on */

static void shape_of(const struct published *m, struct model_shape *out)
{
    *out = (struct model_shape){ .family = &families[m->family],
                                 .layers = m->layers,
                                 .dim = m->dim,
                                 .heads = m->heads,
                                 .kv_heads = m->kv_heads,
                                 .head_dim = m->head_dim,
                                 .ffn = m->ffn,
                                 .vocab = m->vocab,
                                 .context = m->context,
                                 .rope_theta = 1e4,
                                 .tied = m->tied,
                                 .qkv_bias = m->qkv_bias };
}

static void published_counts(void)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct model_shape shape;
        struct params p;

        shape_of(&models[i], &shape);
        CHECK(model_shape_check(&shape) == KR_OK);
        CHECK(params_build(&p, &shape) == KR_OK);
        if (p.total != models[i].count) printf("# %s\n", models[i].name);
        CHECK_I64(p.total, ==, models[i].count);
        params_free(&p);
    }
}

/* In the order of the list, each begins in its unit after the one before ends. */
static void parameters_do_not_overlap(void)
{
    for (int f = 0; f < FAMILY_COUNT; f++) {
        struct model_shape shape = { .family = &families[f], 2, 24, 6, 6, 4, 10, 11, 5 };
        struct params p;

        shape.lora = (struct lora){ f % 2, 1, lora_sites(&families[f]) };
        CHECK(params_build(&p, &shape) == KR_OK);
        CHECK_I64(p.begin[0], ==, 0);
        CHECK_I64(p.begin[p.units], ==, p.count);
        for (int32_t i = 0; i < p.count; i++) {
            const struct param *at = &p.list[i], *before = at - (i > 0);

            CHECK(p.begin[at->unit] <= i && i < p.begin[at->unit + 1]);
            int64_t end = at->offset + at->rows * at->cols;

            CHECK_I64(at->offset % PARAMS_ALIGN, ==, 0);
            CHECK_I64(end, <=, p.unit_len[at->unit]);
            CHECK_I64(params_find(&p, at->name), ==, i);
            if (i > 0 && before->unit == at->unit)
                CHECK_I64(before->offset + before->rows * before->cols, <=, at->offset);
            else
                CHECK_I64(at->offset, ==, 0);
        }
        params_free(&p);
    }
}

/* Names of matrices as people give them; what a family has not, and nonsense, is none. */
static void targets_are_what_the_family_has(void)
{
    static const struct {
        int family;
        const char *text, *want;
    } list[] = {
        { FAMILY_LLAMA, "all", "q,k,v,o,gate,up,down" },
        { FAMILY_GPT2, "all", "qkv,o,up,down" },
        { FAMILY_BLOOM, "all", "qkv,o,up,down" },
        { FAMILY_GLM, "all", "q,k,v,o,gate_up,down" },
        { FAMILY_CHATGLM, "all", "qkv,o,gate_up,down" },
        { FAMILY_GLM4, "all", "q,k,v,o,gate_up,down" },
        { FAMILY_LLAMA, "v,q", "q,v" },
        { FAMILY_LLAMA, "q,q", "q" },
        { FAMILY_LLAMA, "qkv", "" },
        { FAMILY_BLOOM, "q", "" },
        { FAMILY_LLAMA, "", "" },
        { FAMILY_LLAMA, "q,", "" },
        { FAMILY_LLAMA, "q, v", "" },
    };
    char got[LORA_TEXT];

    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        CHECK_STR(lora_print(lora_parse(&families[list[i].family], list[i].text), got),
                  list[i].want);
}

/* LLaMA 2 7B, rank 8, all matrices: PEFT counts 19 988 480 in 224 pairs. */
static void adapters_alone_are_trained(void)
{
    struct model_shape shape = {
        .family = &families[FAMILY_LLAMA], 32, 4096, 32, 32, 128, 11008, 32000, 4096
    };
    struct params p, base;

    CHECK(params_build(&base, &shape) == KR_OK);
    CHECK_I64(base.frozen, ==, 0);
    CHECK_I64(base.first, ==, 0);
    CHECK_I64(base.trained, ==, base.total);
    shape.lora = (struct lora){ 8, 16, lora_sites(shape.family) };
    CHECK(params_build(&p, &shape) == KR_OK);
    CHECK_I64(p.frozen, ==, base.units);
    CHECK_I64(p.first, ==, base.count);
    CHECK_I64(p.trained, ==, 19988480);
    CHECK_I64(p.count - p.first, ==, 2 * 224);
    for (int32_t i = 0; i < p.count; i++) {
        if (i < p.first) CHECK(memcmp(&p.list[i], &base.list[i], sizeof *p.list) == 0);
        if (i >= p.first) CHECK(p.list[i].unit >= p.frozen && p.list[i].decay);
    }
    params_free(&p);
    params_free(&base);
}

/* A is uniform up to 1 / sqrt(in), the same whoever makes it and another for each; B zero. */
static void adapters_begin_as_those_of_peft(void)
{
    struct model_shape shape = { .family = &families[FAMILY_LLAMA],
                                 2,
                                 64,
                                 4,
                                 2,
                                 16,
                                 96,
                                 11,
                                 5,
                                 .lora = { 4, 8, 1u << LORA_Q | 1u << LORA_DOWN } };
    enum { MOST = 4 * 96 };
    double a[MOST], again[MOST], square = 0, most = 0;
    int32_t q, down, b;
    struct params p;

    CHECK(params_build(&p, &shape) == KR_OK);
    q = params_find(&p, "block.1.lora.q.a");
    down = params_find(&p, "block.1.lora.down.a");
    b = params_find(&p, "block.1.lora.q.b");
    CHECK(q >= 0 && down >= 0 && b >= 0);
    params_init(&p, b, 1, 0, 64 * 4, a);
    for (int i = 0; i < 64 * 4; i++)
        CHECK(a[i] == 0);
    params_init(&p, q, 1, 0, 4 * 64, a);
    params_init(&p, down, 1, 0, 4 * 96, again);
    CHECK(a[0] * sqrt(64) != again[0] * sqrt(96));
    for (int i = 0; i < 4 * 96; i++) {
        square += again[i] * again[i] * 96 / (4 * 96);
        most = fmax(most, fabs(again[i]) * sqrt(96));
    }
    CHECK(most <= 1 && most > 0.97);
    CHECK_NEAR(square, 1.0 / 3, 0.05);
    params_init(&p, q, 1, 100, 7, again);
    CHECK(memcmp(again, a + 100, 7 * sizeof *a) == 0);
    params_free(&p);
}

int main(void)
{
    RUN(published_counts);
    RUN(parameters_do_not_overlap);
    RUN(targets_are_what_the_family_has);
    RUN(adapters_alone_are_trained);
    RUN(adapters_begin_as_those_of_peft);
    return check_done();
}
