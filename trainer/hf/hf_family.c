/* hf_family.c - the tables.  Lists end with an empty row. */
#include "trainer/hf/hf_family.h"

#include <string.h>

#define NEED(name, other, m)                                   \
    {                                                          \
        name, other, offsetof(struct settings, m), false, true \
    }
#define MAY(name, other, m)                                     \
    {                                                           \
        name, other, offsetof(struct settings, m), false, false \
    }
#define REAL(name, other, m)                                  \
    {                                                         \
        name, other, offsetof(struct settings, m), true, true \
    }
#define MUST(key, value)  \
    {                     \
        key, value, false \
    }
#define SAME(theirs, ours)                   \
    {                                        \
        theirs, ours, HF_ALL, HF_SAME, false \
    }
#define PART(theirs, ours, p)           \
    {                                   \
        theirs, ours, p, HF_SAME, false \
    }
#define IN_OUT(theirs, ours)                       \
    {                                              \
        theirs, ours, HF_ALL, HF_TRANSPOSED, false \
    }
#define BY_HEAD(theirs, ours)                   \
    {                                           \
        theirs, ours, HF_ALL, HF_BY_HEAD, false \
    }
#define BARE(theirs, ours)                  \
    {                                       \
        theirs, ours, HF_ALL, HF_SAME, true \
    }

/* clang-format off */

/* ---- GPT-2: linear layers are stored (in, out) -------------------------------------------- */

static const struct hf_key gpt2_keys[] = {
    NEED("n_layer", "num_hidden_layers", layers), NEED("n_embd", "hidden_size", dim),
    NEED("n_head", "num_attention_heads", heads), MAY("n_inner", NULL, ffn),
    NEED("vocab_size", NULL, vocab),              NEED("n_positions", "n_ctx", context),
    REAL("layer_norm_epsilon", NULL, norm_eps),   { 0 } };

static const struct hf_must gpt2_must[] = {
    MUST("activation_function", "\"gelu_new\"|\"gelu_pytorch_tanh\"|\"gelu_fast\""),
    MUST("scale_attn_weights", "true"), MUST("scale_attn_by_inverse_layer_idx", "false"),
    MUST("add_cross_attention", "false"), { 0 } };

static const struct hf_tensor gpt2_tensors[] = {
    SAME("wte.weight", "embed.token"),
    SAME("wpe.weight", "embed.position"),
    SAME("h.%d.ln_1.weight", "block.%d.norm1.weight"),
    SAME("h.%d.ln_1.bias", "block.%d.norm1.bias"),
    IN_OUT("h.%d.attn.c_attn.weight", "block.%d.attn.qkv.weight"),
    SAME("h.%d.attn.c_attn.bias", "block.%d.attn.qkv.bias"),
    IN_OUT("h.%d.attn.c_proj.weight", "block.%d.attn.out.weight"),
    SAME("h.%d.attn.c_proj.bias", "block.%d.attn.out.bias"),
    SAME("h.%d.ln_2.weight", "block.%d.norm2.weight"),
    SAME("h.%d.ln_2.bias", "block.%d.norm2.bias"),
    IN_OUT("h.%d.mlp.c_fc.weight", "block.%d.mlp.up.weight"),
    SAME("h.%d.mlp.c_fc.bias", "block.%d.mlp.up.bias"),
    IN_OUT("h.%d.mlp.c_proj.weight", "block.%d.mlp.down.weight"),
    SAME("h.%d.mlp.c_proj.bias", "block.%d.mlp.down.bias"),
    SAME("ln_f.weight", "norm.weight"),
    SAME("ln_f.bias", "norm.bias"),
    BARE("lm_head.weight", "head.weight"), { 0 } };

/* ---- BLOOM -------------------------------------------------------------------------------- */

static const struct hf_key bloom_keys[] = {
    NEED("n_layer", "num_hidden_layers", layers),   NEED("hidden_size", "n_embed", dim),
    NEED("n_head", "num_attention_heads", heads),   NEED("vocab_size", NULL, vocab),
    MAY("seq_length", NULL, context), REAL("layer_norm_epsilon", NULL, norm_eps), { 0 } };

static const struct hf_must bloom_must[] = {
    MUST("apply_residual_connection_post_layernorm", "false"), { 0 } };

static const struct hf_tensor bloom_tensors[] = {
    SAME("word_embeddings.weight", "embed.token"),
    SAME("word_embeddings_layernorm.weight", "embed.norm.weight"),
    SAME("word_embeddings_layernorm.bias", "embed.norm.bias"),
    SAME("h.%d.input_layernorm.weight", "block.%d.norm1.weight"),
    SAME("h.%d.input_layernorm.bias", "block.%d.norm1.bias"),
    BY_HEAD("h.%d.self_attention.query_key_value.weight", "block.%d.attn.qkv.weight"),
    BY_HEAD("h.%d.self_attention.query_key_value.bias", "block.%d.attn.qkv.bias"),
    SAME("h.%d.self_attention.dense.weight", "block.%d.attn.out.weight"),
    SAME("h.%d.self_attention.dense.bias", "block.%d.attn.out.bias"),
    SAME("h.%d.post_attention_layernorm.weight", "block.%d.norm2.weight"),
    SAME("h.%d.post_attention_layernorm.bias", "block.%d.norm2.bias"),
    SAME("h.%d.mlp.dense_h_to_4h.weight", "block.%d.mlp.up.weight"),
    SAME("h.%d.mlp.dense_h_to_4h.bias", "block.%d.mlp.up.bias"),
    SAME("h.%d.mlp.dense_4h_to_h.weight", "block.%d.mlp.down.weight"),
    SAME("h.%d.mlp.dense_4h_to_h.bias", "block.%d.mlp.down.bias"),
    SAME("ln_f.weight", "norm.weight"),
    SAME("ln_f.bias", "norm.bias"),
    BARE("lm_head.weight", "head.weight"), { 0 } };

/* ---- LLaMA, GLM, GLM-4 -------------------------------------------------------------------- */

static const struct hf_key llama_keys[] = {
    NEED("num_hidden_layers", NULL, layers),      NEED("hidden_size", NULL, dim),
    NEED("num_attention_heads", NULL, heads),     MAY("num_key_value_heads", NULL, kv_heads),
    MAY("head_dim", NULL, head_dim),              NEED("intermediate_size", NULL, ffn),
    NEED("vocab_size", NULL, vocab),              NEED("max_position_embeddings", "max_sequence_length", context),
    REAL("rms_norm_eps", NULL, norm_eps),         { 0 } };

static const struct hf_must llama_must[] = {
    MUST("hidden_act", "\"silu\"|\"swish\""), MUST("partial_rotary_factor", "1"), { 0 } };
static const struct hf_must glm_must[] = { MUST("hidden_act", "\"silu\"|\"swish\""), { 0 } };

/* What the three begin and end with. */
#define LLAMA_BEGIN \
    SAME("embed_tokens.weight", "embed.token"), \
    SAME("layers.%d.input_layernorm.weight", "block.%d.norm1.weight"), \
    PART("layers.%d.self_attn.q_proj.weight", "block.%d.attn.qkv.weight", HF_Q), \
    PART("layers.%d.self_attn.k_proj.weight", "block.%d.attn.qkv.weight", HF_K), \
    PART("layers.%d.self_attn.v_proj.weight", "block.%d.attn.qkv.weight", HF_V), \
    PART("layers.%d.self_attn.q_proj.bias", "block.%d.attn.qkv.bias", HF_Q), \
    PART("layers.%d.self_attn.k_proj.bias", "block.%d.attn.qkv.bias", HF_K), \
    PART("layers.%d.self_attn.v_proj.bias", "block.%d.attn.qkv.bias", HF_V), \
    SAME("layers.%d.self_attn.o_proj.weight", "block.%d.attn.out.weight"), \
    SAME("layers.%d.self_attn.o_proj.bias", "block.%d.attn.out.bias"), \
    SAME("layers.%d.post_attention_layernorm.weight", "block.%d.norm2.weight")
#define LLAMA_END \
    SAME("layers.%d.mlp.down_proj.weight", "block.%d.mlp.down.weight"), \
    SAME("layers.%d.mlp.down_proj.bias", "block.%d.mlp.down.bias"), \
    SAME("norm.weight", "norm.weight"), \
    BARE("lm_head.weight", "head.weight")

static const struct hf_tensor llama_tensors[] = {
    LLAMA_BEGIN,
    PART("layers.%d.mlp.gate_proj.weight", "block.%d.mlp.up.weight", HF_GATE),
    PART("layers.%d.mlp.gate_proj.bias", "block.%d.mlp.up.bias", HF_GATE),
    PART("layers.%d.mlp.up_proj.weight", "block.%d.mlp.up.weight", HF_UP),
    PART("layers.%d.mlp.up_proj.bias", "block.%d.mlp.up.bias", HF_UP),
    LLAMA_END, { 0 } };

static const struct hf_tensor glm_tensors[] = {
    LLAMA_BEGIN,
    SAME("layers.%d.mlp.gate_up_proj.weight", "block.%d.mlp.up.weight"),
    LLAMA_END, { 0 } };

/* post_attention_layernorm comes before the MLP here too; these two are the sandwich. */
static const struct hf_tensor glm4_tensors[] = {
    LLAMA_BEGIN,
    SAME("layers.%d.post_self_attn_layernorm.weight", "block.%d.post1.weight"),
    SAME("layers.%d.mlp.gate_up_proj.weight", "block.%d.mlp.up.weight"),
    SAME("layers.%d.post_mlp_layernorm.weight", "block.%d.post2.weight"),
    LLAMA_END, { 0 } };

/* ---- ChatGLM2, ChatGLM3, glm-4-9b of THUDM: fused, and all rows of q before k and v ------ */

static const struct hf_key chatglm_keys[] = {
    NEED("num_layers", NULL, layers),             NEED("hidden_size", NULL, dim),
    NEED("num_attention_heads", NULL, heads),     MAY("kv_channels", NULL, head_dim),
    NEED("multi_query_group_num", NULL, kv_heads), NEED("ffn_hidden_size", NULL, ffn),
    NEED("padded_vocab_size", "vocab_size", vocab), NEED("seq_length", NULL, context),
    REAL("layernorm_epsilon", NULL, norm_eps),    { 0 } };

/* Without multi_query_attention the rows of q, k and v lie head by head there, as in no model
 * that was published. */
static const struct hf_must chatglm_must[] = {
    MUST("rmsnorm", "true"), MUST("post_layer_norm", "true"),
    MUST("original_rope", "true"), MUST("add_bias_linear", "false"),
    MUST("apply_residual_connection_post_layernorm", "false"),
    { "multi_query_attention", "true", true }, { 0 } };

static const struct hf_tensor chatglm_tensors[] = {
    SAME("embedding.word_embeddings.weight", "embed.token"),
    SAME("encoder.layers.%d.input_layernorm.weight", "block.%d.norm1.weight"),
    SAME("encoder.layers.%d.self_attention.query_key_value.weight", "block.%d.attn.qkv.weight"),
    SAME("encoder.layers.%d.self_attention.query_key_value.bias", "block.%d.attn.qkv.bias"),
    SAME("encoder.layers.%d.self_attention.dense.weight", "block.%d.attn.out.weight"),
    SAME("encoder.layers.%d.post_attention_layernorm.weight", "block.%d.norm2.weight"),
    SAME("encoder.layers.%d.mlp.dense_h_to_4h.weight", "block.%d.mlp.up.weight"),
    SAME("encoder.layers.%d.mlp.dense_4h_to_h.weight", "block.%d.mlp.down.weight"),
    SAME("encoder.final_layernorm.weight", "norm.weight"),
    SAME("output_layer.weight", "head.weight"), { 0 } };

/* ---- the families ------------------------------------------------------------------------- */

const struct hf_family hf_families[] = {
    [FAMILY_GPT2] = {
        .prefix = "transformer.", .keys = gpt2_keys, .must = gpt2_must, .tensors = gpt2_tensors,
        .written = "{\"architectures\":[\"GPT2LMHeadModel\"],\"model_type\":\"gpt2\","
                   "\"activation_function\":\"gelu_new\",\"attn_pdrop\":0,\"embd_pdrop\":0,"
                   "\"resid_pdrop\":0}",
        .tied = { "tie_word_embeddings", true }, .qkv_bias = { NULL, true },
        .out_bias = { NULL, true }, .mlp_bias = { NULL, true } },
    [FAMILY_LLAMA] = {
        .prefix = "model.", .keys = llama_keys, .must = llama_must, .tensors = llama_tensors,
        .written = "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\","
                   "\"hidden_act\":\"silu\"}",
        .tied = { "tie_word_embeddings", false }, .qkv_bias = { "attention_bias", false },
        .out_bias = { "attention_bias", false }, .mlp_bias = { "mlp_bias", false } },
    [FAMILY_BLOOM] = {
        .prefix = "transformer.", .keys = bloom_keys, .must = bloom_must,
        .tensors = bloom_tensors,
        .written = "{\"architectures\":[\"BloomForCausalLM\"],\"model_type\":\"bloom\","
                   "\"hidden_dropout\":0,\"attention_dropout\":0}",
        .tied = { "tie_word_embeddings", true }, .qkv_bias = { NULL, true },
        .out_bias = { NULL, true }, .mlp_bias = { NULL, true } },
    [FAMILY_GLM] = {
        .prefix = "model.", .keys = llama_keys, .must = glm_must, .tensors = glm_tensors,
        .written = "{\"architectures\":[\"GlmForCausalLM\"],\"model_type\":\"glm\","
                   "\"hidden_act\":\"silu\"}",
        .tied = { "tie_word_embeddings", false }, .qkv_bias = { "attention_bias", true } },
    [FAMILY_CHATGLM] = {
        .prefix = "transformer.", .keys = chatglm_keys, .must = chatglm_must,
        .tensors = chatglm_tensors,
        .written = "{\"architectures\":[\"ChatGLMModel\"],\"model_type\":\"chatglm\","
                   "\"rmsnorm\":true,\"post_layer_norm\":true,\"original_rope\":true,"
                   "\"add_bias_linear\":false,\"multi_query_attention\":true}",
        .tied = { "tie_word_embeddings", false }, .qkv_bias = { "add_qkv_bias", false } },
    [FAMILY_GLM4] = {
        .prefix = "model.", .keys = llama_keys, .must = glm_must, .tensors = glm4_tensors,
        .written = "{\"architectures\":[\"Glm4ForCausalLM\"],\"model_type\":\"glm4\","
                   "\"hidden_act\":\"silu\"}",
        .tied = { "tie_word_embeddings", false }, .qkv_bias = { "attention_bias", true } },
};
/* clang-format on */

/* Ours and theirs have the same names. */
int hf_family_of(const char *model_type)
{
    for (int f = 0; f < FAMILY_COUNT; f++)
        if (strcmp(families[f].name, model_type) == 0) return f;
    return -1;
}

/* GPT-2's h.0.attn.bias is the mask; its h.0.attn.c_attn.bias is a bias. */
bool hf_is_buffer(const char *name)
{
    static const char *const endings[] = { ".attn.bias", ".attn.masked_bias",
                                           "rotary_emb.inv_freq",
                                           "rotary_pos_emb.inv_freq" };
    size_t n = strlen(name);

    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t m = strlen(endings[i]);

        if (n >= m && strcmp(name + n - m, endings[i]) == 0) return true;
    }
    return false;
}
