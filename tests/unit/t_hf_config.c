/* t_hf_config.c - config.json: what is read from it, refused, and written again. */
#include "base/mem.h"
#include "tests/unit/hf_models.h"

static void other_models_are_refused_by_name(void)
{
    static const struct {
        const char *config, *why;
    } cases[] = {
        { "{\"model_type\":\"glm4_moe\"}", "glm4_moe is not supported" },
        { "{\"model_type\":\"llama4\"}", "llama4 is not supported" },
        { "{\"hidden_size\":1}", "a missing one is not supported" },
        { "[]", "is no JSON object" },
        { "{\"model_type\":\"gpt2\"}", "n_layer: is missing" },
        { "{\"model_type\":\"gpt2\"," GPT2_SIZES ",\"activation_function\":\"relu\"}",
          "activation_function: only" },
        { "{\"model_type\":\"gpt2\"," GPT2_SIZES
          ",\"scale_attn_by_inverse_layer_idx\":true}",
          "scale_attn_by_inverse_layer_idx: only false" },
        { "{\"model_type\":\"gpt2\",\"n_embd\":-3}", "is missing" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1.5,\"n_embd\":24}", "makes sense" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1e9,\"n_embd\":24,\"n_head\":3,"
          "\"vocab_size\":40,\"n_positions\":16,\"layer_norm_epsilon\":1e-5}",
          "model.layers" },
        { "{\"model_type\":\"llama\"," GLM_SIZES
          ",\"rms_norm_eps\":1e-5,\"num_experts\":8}",
          "num_experts: this changes the model" },
        { "{\"model_type\":\"llama\"," GLM_SIZES ",\"rms_norm_eps\":1e-5,"
          "\"sliding_window\":4096}",
          "sliding_window: this changes the model" },
        { "{\"model_type\":\"llama\"," GLM_SIZES ",\"rms_norm_eps\":1e-5,"
          "\"rope_scaling\":{\"type\":\"longrope\",\"factor\":4}}",
          "rope_type longrope is not supported" },
        { "{\"model_type\":\"llama\"," GLM_SIZES ",\"rms_norm_eps\":1e-5,"
          "\"rope_scaling\":{\"type\":\"dynamic\"}}",
          "rope_scaling: has no factor" },
        { "{\"model_type\":\"llama\"," GLM_SIZES ",\"rms_norm_eps\":1e-5,"
          "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"truncate\":false}}",
          "truncate: only true" },
        { "{\"model_type\":\"llama\"," GLM_SIZES ",\"rms_norm_eps\":1e-5,"
          "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"beta_fast\":0.5}}",
          "model.rope_high = 0.5 is not above model.rope_low = 1" },
        { "{\"model_type\":\"llama\"," GLM_SIZES ",\"rms_norm_eps\":1e-5,"
          "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}",
          "rope_parameters: full_attention: one for all layers is supported" },
        { "{\"model_type\":\"chatglm\",\"position_encoding_2d\":true}",
          "position_encoding_2d: this changes the model" },
        { "{\"model_type\":\"chatglm\"}", "multi_query_attention: only true" },
        { "{\"model_type\":\"chatglm\",\"multi_query_attention\":false}",
          "multi_query_attention: only true" },
        { "{\"model_type\":\"bloom\",\"apply_residual_connection_post_layernorm\":true}",
          "apply_residual_connection_post_layernorm: only false" },
    };
    struct model m;

    make_model(&m, 2, ST_F32, 1, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(m.path, "config.json", cases[i].config);
        check_refused(m.path, NULL, NULL, cases[i].why);
    }
    drop_model(&m);
}

/* Read, and read again from what is written anew. */
static void check_stretch(const char *how, struct rope_scaling want, int64_t context)
{
    struct settings set, again;
    struct model_shape shape;
    char config[1024], *text = NULL;

    for (int pass = 0; pass < 2; pass++) {
        snprintf(config, sizeof config,
                 "{\"model_type\":\"llama\"," GLM_SIZES
                 ",\"rms_norm_eps\":1e-5,\"rope_theta\":1e4,%s}",
                 how);
        put(root, "config.json", pass ? text : config);
        rig_must(cfg_defaults(settings_table, &again));
        CHECK(hf_config_read(root, &again) == KR_OK);
        settings_shape(&again, &shape);
        CHECK(shape.rope_scaling.kind == want.kind);
        CHECK(shape.rope_scaling.factor == want.factor);
        CHECK(shape.rope_scaling.low == want.low);
        CHECK(shape.rope_scaling.high == want.high);
        CHECK(shape.rope_scaling.old_context == want.old_context);
        CHECK_NEAR(shape.rope_scaling.attention, want.attention, 1e-15);
        CHECK_I64(again.context, ==, pass ? context : 16);
        set = again;
        set.context = 8; /* as --context does */
        mem_free(text);
        CHECK(hf_config_print(&set, "float32", &text) == KR_OK);
    }
    mem_free(text);
}

/* What the writing names as max_position_embeddings is what their formulas start from. */
static void stretched_positions_come_and_go(void)
{
    check_stretch("\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}",
                  (struct rope_scaling){ 2.5, 1, 4, 8192, ROPE_LINEAR, 0 }, 8);
    check_stretch("\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
                  "\"original_max_position_embeddings\":64}",
                  (struct rope_scaling){ 4, 1, 32, 64, ROPE_YARN, 0 }, 256);
    check_stretch("\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
                  "\"beta_fast\":16,\"beta_slow\":2,\"attention_factor\":1.5}",
                  (struct rope_scaling){ 4, 2, 16, 16, ROPE_YARN, 1.5 }, 64);
    check_stretch("\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":1e4,"
                  "\"factor\":4.0,\"mscale\":1.0,\"mscale_all_dim\":0.5}",
                  (struct rope_scaling){ 4, 1, 32, 16, ROPE_YARN,
                                         (0.1 * log(4) + 1) / (0.05 * log(4) + 1) },
                  64);
    check_stretch("\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}",
                  (struct rope_scaling){ 2, 1, 4, 16, ROPE_DYNAMIC, 0 }, 16);
}

int main(void)
{
    begin("hf-config");
    RUN(other_models_are_refused_by_name);
    RUN(stretched_positions_come_and_go);
    rig_must(fs_remove_tree(root));
    return check_done();
}
