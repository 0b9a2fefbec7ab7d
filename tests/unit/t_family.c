/* t_family.c - what follows from the sizes of a model: frequencies, slopes, refusals. */
#include "tests/check.h"
#include "trainer/model/family.h"

static struct model_shape shape_of(int family, int64_t heads, int64_t head_dim)
{
    return (struct model_shape){ .family = &families[family],
                                 .layers = 1,
                                 .dim = heads * head_dim,
                                 .heads = heads,
                                 .kv_heads = heads,
                                 .head_dim = head_dim,
                                 .ffn = 8,
                                 .vocab = 8,
                                 .context = 8,
                                 .rope_theta = 5e5 };
}

/* Llama-3.1's: the first 29 as they were, the last 29 divided by 8, a blend between. */
static void llama3_stretches_the_low_frequencies(void)
{
    struct model_shape s = shape_of(FAMILY_LLAMA, 1, 128);
    double plain[64], omega[64];

    model_rope_frequencies(&s, plain);
    s.rope_scaling = (struct rope_scaling){ 8, 1, 4, 8192, ROPE_LLAMA3, 0 };
    model_rope_frequencies(&s, omega);
    CHECK_NEAR(plain[29], 0.00261609925, 1e-11);
    CHECK_NEAR(omega[29], 0.00216657076, 1e-11);
    CHECK_NEAR(plain[34], 0.00093847387, 1e-11);
    CHECK_NEAR(omega[34], 0.000178507813, 1e-12);
    for (int i = 0; i < 64; i++) {
        if (i <= 28) CHECK(omega[i] == plain[i]);
        if (i >= 35) CHECK(omega[i] == plain[i] / 8);
    }
}

static void linear_stretches_all(void)
{
    struct model_shape s = shape_of(FAMILY_LLAMA, 1, 16);
    double plain[8], omega[8];

    model_rope_frequencies(&s, plain);
    s.rope_scaling = (struct rope_scaling){ 4, 1, 4, 64, ROPE_LINEAR, 0 };
    model_rope_frequencies(&s, omega);
    for (int i = 0; i < 8; i++)
        CHECK(omega[i] == plain[i] / 4);
}

/* GLM-4-0414 beyond 32K tokens: up to pair 17 as they were, from 30 on divided by 4, between
 * them a blend that is linear in the index. */
static void yarn_stretches_the_slow_turns(void)
{
    struct model_shape s = shape_of(FAMILY_GLM4, 1, 128);
    double plain[32], omega[32];

    s.rope_theta = 1e4;
    model_rope_frequencies(&s, plain);
    CHECK(model_rope_magnitude(&s) == 1);
    s.rope_scaling = (struct rope_scaling){ 4, 1, 32, 32768, ROPE_YARN, 0 };
    model_rope_frequencies(&s, omega);
    CHECK_NEAR(omega[18], 0.00529898556429367, 1e-16);
    CHECK_NEAR(omega[20], 0.00261496037283154, 1e-16);
    CHECK_NEAR(omega[29], 7.29653447895894e-05, 1e-18);
    for (int i = 0; i < 32; i++) {
        if (i <= 17) CHECK(omega[i] == plain[i]);
        if (i >= 30) CHECK(omega[i] == plain[i] / 4);
    }
    CHECK_NEAR(model_rope_magnitude(&s), 1.13862943611199, 1e-14); /* 0.1 ln 4 + 1 */
    s.rope_scaling.attention = 1.25;
    CHECK(model_rope_magnitude(&s) == 1.25);
    s.rope_scaling.kind = ROPE_LINEAR; /* only YaRN has a magnitude */
    CHECK(model_rope_magnitude(&s) == 1);
}

/* An old context in which no pair turns once: the limits meet, and theirs is the formula. */
static void yarn_of_a_tiny_context_is_defined(void)
{
    struct model_shape s = shape_of(FAMILY_LLAMA, 1, 8);
    double plain[4], omega[4];

    model_rope_frequencies(&s, plain);
    s.rope_scaling = (struct rope_scaling){ 4, 1, 32, 1, ROPE_YARN, 0 };
    model_rope_frequencies(&s, omega);
    for (int i = 0; i < 4; i++)
        CHECK(omega[i] == (i ? plain[i] / 4 : plain[i]));
}

/* A LLaMA of 4096 tokens at 8192, factor 2; at its own length nothing changes. */
static void dynamic_stretches_by_the_context(void)
{
    struct model_shape s = shape_of(FAMILY_LLAMA, 1, 128);
    double plain[64], omega[64];

    s.rope_theta = 1e4;
    model_rope_frequencies(&s, plain);
    s.rope_scaling = (struct rope_scaling){ 2, 1, 4, 4096, ROPE_DYNAMIC, 0 };
    s.context = 4096;
    model_rope_frequencies(&s, omega);
    for (int i = 0; i < 64; i++)
        CHECK(omega[i] == plain[i]);
    s.context = 8192;
    model_rope_frequencies(&s, omega);
    CHECK(omega[0] == 1);
    CHECK_NEAR(omega[1], 0.850994291341216, 1e-14);
    CHECK_NEAR(omega[10], 0.199189511947348, 1e-14);
    CHECK_NEAR(omega[40], 0.00157422161063692, 1e-16);
    CHECK_NEAR(omega[63], 3.84927328229819e-05, 1e-18);
}

/* GLM turns half of a head, and its exponents run over that half. */
static void a_partial_rotation_has_frequencies_of_its_own(void)
{
    struct model_shape s = shape_of(FAMILY_GLM, 1, 16);
    double omega[4];

    CHECK_I64(model_rope_dims(&s), ==, 8);
    model_rope_frequencies(&s, omega);
    CHECK_NEAR(omega[1], pow(5e5, -2.0 / 8), 1e-15);
    s.rope_dims = 4;
    CHECK_I64(model_rope_dims(&s), ==, 4);
    s = shape_of(FAMILY_BLOOM, 1, 16);
    CHECK_I64(model_rope_dims(&s), ==, 0);
}

static void slopes_of_a_power_of_two(void)
{
    struct model_shape s = shape_of(FAMILY_BLOOM, 8, 4);
    float slopes[8];

    model_alibi_slopes(&s, slopes);
    for (int h = 0; h < 8; h++)
        CHECK(slopes[h] == (float)exp2(-(h + 1)));
}

/* BLOOM-176B's 112: 64 of a power of two, then every other one of 128. */
static void slopes_of_any_number_of_heads(void)
{
    struct model_shape s = shape_of(FAMILY_BLOOM, 112, 4);
    float slopes[112];

    model_alibi_slopes(&s, slopes);
    CHECK_NEAR(slopes[0], 0.917004, 5e-7);
    CHECK_NEAR(slopes[1], 0.840896, 5e-7);
    CHECK_NEAR(slopes[2], 0.771105, 5e-7);
    CHECK_NEAR(slopes[63], exp2(-8), 1e-9);
    CHECK_NEAR(slopes[64], exp2(-4.0 / 64), 1e-7);
    CHECK_NEAR(slopes[109], 0.019404, 5e-7);
    CHECK_NEAR(slopes[110], 0.0177936, 5e-8);
    CHECK_NEAR(slopes[111], 0.0163168, 5e-8);
}

static void sizes_that_do_not_fit_are_refused(void)
{
    struct model_shape s = shape_of(FAMILY_LLAMA, 4, 8);

    CHECK(model_shape_check(&s) == KR_OK);
    s.kv_heads = 3;
    CHECK(model_shape_check(&s) == KR_ERR_ARG);
    s.kv_heads = 2;
    s.head_dim = 7;
    CHECK(model_shape_check(&s) == KR_ERR_ARG);
    s.rope_dims = 6;
    CHECK(model_shape_check(&s) == KR_OK);
    s.rope_dims = 8;
    CHECK(model_shape_check(&s) == KR_ERR_ARG);
    s = shape_of(FAMILY_LLAMA, 4, 8);
    s.rope_scaling = (struct rope_scaling){ 8, 4, 1, 64, ROPE_LLAMA3, 0 };
    CHECK(model_shape_check(&s) == KR_ERR_ARG);
    s.rope_scaling.kind = ROPE_YARN;
    CHECK(model_shape_check(&s) == KR_ERR_ARG);
    s.rope_scaling.kind = ROPE_LINEAR; /* which has no limits */
    CHECK(model_shape_check(&s) == KR_OK);
    s.rope_scaling = (struct rope_scaling){ 8, 1, 32, 64, ROPE_YARN, 0 };
    CHECK(model_shape_check(&s) == KR_OK);
    s.rope_theta = 1;
    CHECK(model_shape_check(&s) == KR_ERR_ARG);
    s.rope_scaling.kind = ROPE_DYNAMIC;
    CHECK(model_shape_check(&s) == KR_OK);
    s.rope_dims = 2;
    CHECK(model_shape_check(&s) == KR_ERR_ARG);
}

int main(void)
{
    RUN(llama3_stretches_the_low_frequencies);
    RUN(linear_stretches_all);
    RUN(yarn_stretches_the_slow_turns);
    RUN(yarn_of_a_tiny_context_is_defined);
    RUN(dynamic_stretches_by_the_context);
    RUN(a_partial_rotation_has_frequencies_of_its_own);
    RUN(slopes_of_a_power_of_two);
    RUN(slopes_of_any_number_of_heads);
    RUN(sizes_that_do_not_fit_are_refused);
    return check_done();
}
