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
    s.rope_scaling = (struct rope_scaling){ 8, 1, 4, 8192, ROPE_LLAMA3 };
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
    s.rope_scaling = (struct rope_scaling){ 4, 1, 4, 64, ROPE_LINEAR };
    model_rope_frequencies(&s, omega);
    for (int i = 0; i < 8; i++)
        CHECK(omega[i] == plain[i] / 4);
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
    s.rope_scaling = (struct rope_scaling){ 8, 4, 1, 64, ROPE_LLAMA3 };
    CHECK(model_shape_check(&s) == KR_ERR_ARG);
}

int main(void)
{
    RUN(llama3_stretches_the_low_frequencies);
    RUN(linear_stretches_all);
    RUN(a_partial_rotation_has_frequencies_of_its_own);
    RUN(slopes_of_a_power_of_two);
    RUN(slopes_of_any_number_of_heads);
    RUN(sizes_that_do_not_fit_are_refused);
    return check_done();
}
