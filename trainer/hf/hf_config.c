/* hf_config.c - the tables of hf_family.h, and what no table holds: rotary positions. */
#include "trainer/hf/hf_config.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "trainer/hf/hf_family.h"

enum { CONFIG_MOST = 16 << 20 /* bytes */, BLOOM_CONTEXT = 2048 };

struct reader {
    char path[FS_PATH];
    const cJSON *root;
    const struct hf_family *family;
};

/* A member that is there and not null. */
static const cJSON *member(const cJSON *in, const char *key)
{
    const cJSON *j = key ? cJSON_GetObjectItemCaseSensitive(in, key) : NULL;

    return cJSON_IsNull(j) ? NULL : j;
}

static kr_status bad(const struct reader *r, const char *key, const char *what)
{
    return KR_FAIL(KR_ERR_ARG, "%s: %s: %s", r->path, key, what);
}

/* ---- what is refused -------------------------------------------------------------------- */

/* Keys of other graphs that go by the same names: present and neither null, false, 0 nor
 * empty, they are refused. */
static const char *const foreign[] = {
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "qk_norm",
    "use_qk_norm",
    "qk_layernorm",
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "quantization_config",
    "pre_seq_len",
    "position_encoding_2d",
    "inner_hidden_size",
    "vision_config",
    "apply_residual_connection_post_norm",
};

static bool says_no(const cJSON *j)
{
    return !j || cJSON_IsFalse(j) || (cJSON_IsNumber(j) && j->valuedouble == 0);
}

static bool is_one_of(const cJSON *j, const char *values)
{
    char *text = cJSON_PrintUnformatted(j);
    size_t n = text ? strlen(text) : 0;
    bool found = false;

    for (const char *v = values; text && v && !found; v = strchr(v, '|')) {
        v += *v == '|';
        found = strncmp(v, text, n) == 0 && (v[n] == '|' || v[n] == '\0');
    }
    cJSON_free(text);
    return found;
}

static kr_status check_known(const struct reader *r)
{
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (!says_no(member(r->root, foreign[i])))
            return bad(r, foreign[i], "this changes the model in a way not known here");
    for (const struct hf_must *m = r->family->must; m->key; m++) {
        const cJSON *j = member(r->root, m->key);
        char want[200];

        if (!j || is_one_of(j, m->value)) continue;
        snprintf(want, sizeof want, "only %s is supported", m->value);
        return bad(r, m->key, want);
    }
    return KR_OK;
}

static kr_status find_family(struct reader *r, struct settings *set)
{
    const char *type = cJSON_GetStringValue(member(r->root, "model_type"));
    char text[200];
    int f = type ? hf_family_of(type) : -1;

    if (f < 0) {
        snprintf(text, sizeof text, "%.100s is not supported; want %s",
                 type ? type : "a missing one", FAMILY_CHOICES);
        return bad(r, "model_type", text);
    }
    set->family = f;
    r->family = &hf_families[f];
    return KR_OK;
}

/* ---- numbers and flags ------------------------------------------------------------------ */

static kr_status read_key(const struct reader *r, const struct hf_key *k,
                          struct settings *set)
{
    const cJSON *j = member(r->root, k->name);
    void *at = (char *)set + k->at;

    if (!j) j = member(r->root, k->other);
    if (!j && k->need) return bad(r, k->name, "is missing");
    if (k->real)
        *(double *)at = 0;
    else
        *(int64_t *)at = 0;
    if (!j) return KR_OK;
    if (!cJSON_IsNumber(j) || !(j->valuedouble > 0) ||
        (!k->real &&
         (j->valuedouble != floor(j->valuedouble) || j->valuedouble > 0x1p40)))
        return bad(r, k->name, "is no number that makes sense");
    if (k->real)
        *(double *)at = j->valuedouble;
    else
        *(int64_t *)at = (int64_t)j->valuedouble;
    return KR_OK;
}

static kr_status read_flag(const struct reader *r, const struct hf_flag *f, int *out)
{
    const cJSON *j = member(r->root, f->key);

    if (j && !cJSON_IsBool(j)) return bad(r, f->key, "want true or false");
    *out = (j ? cJSON_IsTrue(j) : f->missing) ? FAMILY_YES : FAMILY_NO;
    return KR_OK;
}

/* A positive number of `in`, or `missing`. */
static kr_status real(const struct reader *r, const cJSON *in, const char *key,
                      double missing, double *out)
{
    const cJSON *j = member(in, key);

    if (j && (!cJSON_IsNumber(j) || !(j->valuedouble > 0)))
        return bad(r, key, "is no positive number");
    *out = j ? j->valuedouble : missing;
    return KR_OK;
}

/* ---- rotary positions ------------------------------------------------------------------- */

static kr_status read_stretch(const struct reader *r, const cJSON *how, const char *type,
                              struct settings *set)
{
    double old;
    char text[160];

    TRY(real(r, how, "factor", 1, &set->rope_factor));
    if (strcmp(type, "linear") == 0) {
        set->rope_scaling = ROPE_LINEAR;
        return KR_OK;
    }
    if (strcmp(type, "llama3") != 0) {
        snprintf(text, sizeof text,
                 "rope_type %.60s is not supported; want default, linear or llama3",
                 type);
        return bad(r, "rope_scaling", text);
    }
    set->rope_scaling = ROPE_LLAMA3;
    TRY(real(r, how, "low_freq_factor", 1, &set->rope_low));
    TRY(real(r, how, "high_freq_factor", 4, &set->rope_high));
    TRY(real(r, how, "original_max_position_embeddings", 8192, &old));
    set->rope_old_context = (int64_t)old;
    return KR_OK;
}

/* rope_parameters of version 5, or rope_theta, rope_scaling and partial_rotary_factor;
 * ChatGLM multiplies a base of 10000 by rope_ratio. */
static kr_status read_rope(const struct reader *r, struct settings *set)
{
    const struct family *family = &families[set->family];
    const cJSON *all = member(r->root, "rope_parameters");
    const cJSON *how = all ? all : member(r->root, "rope_scaling");
    const char *type = cJSON_GetStringValue(member(how, "rope_type"));
    double theta = 0, ratio = 0, share = 0;
    int64_t head = set->head_dim ? set->head_dim : set->dim / set->heads;

    if (family->pos != POS_ROPE) return KR_OK;
    TRY(real(r, r->root, "rope_theta", 1e4, &theta));
    TRY(real(r, all, "rope_theta", theta, &theta));
    TRY(real(r, r->root, "rope_ratio", 1, &ratio));
    TRY(real(r, r->root, "partial_rotary_factor", family->rope_share, &share));
    TRY(real(r, all, "partial_rotary_factor", share, &share));
    set->rope_theta = theta * ratio;
    set->rope_dims = (int64_t)((double)head * share);
    if (!type) type = cJSON_GetStringValue(member(how, "type"));
    if (how && !type && how != all) return bad(r, "rope_scaling", "has no rope_type");
    if (!type || strcmp(type, "default") == 0) return KR_OK;
    return read_stretch(r, how, type, set);
}

/* ---- the whole -------------------------------------------------------------------------- */

static kr_status read_members(struct reader *r, struct settings *set)
{
    TRY(find_family(r, set));
    TRY(check_known(r));
    set->kv_heads = set->head_dim = set->ffn = set->context = 0;
    for (const struct hf_key *k = r->family->keys; k->name; k++)
        TRY(read_key(r, k, set));
    if (set->ffn == 0) set->ffn = 4 * set->dim;
    if (set->context == 0) set->context = BLOOM_CONTEXT;
    TRY(read_flag(r, &r->family->tied, &set->tied));
    TRY(read_flag(r, &r->family->qkv_bias, &set->qkv_bias));
    TRY(read_flag(r, &r->family->out_bias, &set->out_bias));
    TRY(read_flag(r, &r->family->mlp_bias, &set->mlp_bias));
    if (families[set->family].pos != POS_ROPE && set->kv_heads == 0)
        set->kv_heads = set->heads;
    if (set->family == FAMILY_CHATGLM &&
        !says_no(member(r->root, "multi_query_attention")))
        TRY(read_key(r,
                     &(struct hf_key){ "multi_query_group_num", NULL,
                                       offsetof(struct settings, kv_heads), false, true },
                     set));
    return read_rope(r, set);
}

static kr_status parse(const char *folder, char path[FS_PATH], char **text, cJSON **root)
{
    size_t bytes;

    TRY(fs_path(path, "%s/config.json", folder));
    if (!fs_exists(path)) return KR_FAIL(KR_ERR_ARG, "%s: no such file", path);
    TRY(fs_read_all(path, text, &bytes, CONFIG_MOST));
    *root = cJSON_ParseWithLength(*text, bytes);
    if (cJSON_IsObject(*root)) return KR_OK;
    cJSON_Delete(*root);
    mem_free(*text);
    return KR_FAIL(KR_ERR_ARG, "%s: is no JSON object", path);
}

kr_status hf_config_read(const char *folder, struct settings *set)
{
    struct settings s = *set;
    struct reader r = { .root = NULL };
    cJSON *root;
    char *text;
    kr_status st;

    TRY(parse(folder, r.path, &text, &root));
    r.root = root;
    st = read_members(&r, &s);
    cJSON_Delete(root);
    mem_free(text);
    if (st == KR_OK) *set = s;
    return st;
}

/* ---- writing ---------------------------------------------------------------------------- */

static void add_keys(cJSON *root, const struct hf_family *f, const struct settings *set)
{
    for (const struct hf_key *k = f->keys; k->name; k++) {
        const void *at = (const char *)set + k->at;

        cJSON_AddNumberToObject(
            root, k->name, k->real ? *(const double *)at : (double)*(const int64_t *)at);
    }
}

static void add_flag(cJSON *root, const struct hf_flag *f, bool value)
{
    if (f->key && !member(root, f->key)) cJSON_AddBoolToObject(root, f->key, value);
}

static void add_rope(cJSON *root, const struct settings *set, const struct model_shape *s)
{
    bool llama3 = set->rope_scaling == ROPE_LLAMA3;
    cJSON *how;

    if (s->family->pos != POS_ROPE) return;
    if (set->family == FAMILY_CHATGLM) {
        cJSON_AddNumberToObject(root, "rope_ratio", s->rope_theta / 1e4);
        cJSON_AddNumberToObject(root, "multi_query_group_num", (double)s->kv_heads);
        return;
    }
    cJSON_AddNumberToObject(root, "rope_theta", s->rope_theta);
    if (s->family->rope_share < 1)
        cJSON_AddNumberToObject(root, "partial_rotary_factor",
                                (double)model_rope_dims(s) / (double)s->head_dim);
    if (set->rope_factor <= 1) return;
    how = cJSON_AddObjectToObject(root, "rope_scaling");
    cJSON_AddStringToObject(how, "rope_type", llama3 ? "llama3" : "linear");
    cJSON_AddNumberToObject(how, "factor", set->rope_factor);
    if (!llama3) return;
    cJSON_AddNumberToObject(how, "low_freq_factor", set->rope_low);
    cJSON_AddNumberToObject(how, "high_freq_factor", set->rope_high);
    cJSON_AddNumberToObject(how, "original_max_position_embeddings",
                            (double)set->rope_old_context);
}

/* What has no place in a new config.json of the family: KR_ERR_ARG. */
static kr_status check_written(const struct settings *set, const struct model_shape *s)
{
    const struct hf_family *f = &hf_families[set->family];
    bool fits = (f->qkv_bias.key || model_qkv_bias(s) == f->qkv_bias.missing) &&
                (f->mlp_bias.key || model_mlp_bias(s) == f->mlp_bias.missing) &&
                (f->out_bias.key ? model_out_bias(s) == model_qkv_bias(s)
                                 : model_out_bias(s) == f->out_bias.missing);

    if (!fits)
        return KR_FAIL(KR_ERR_ARG,
                       "model.family = %s: its config.json cannot say which biases this "
                       "model has",
                       s->family->name);
    if (s->family->pos != POS_ROPE &&
        (s->kv_heads != s->heads || s->head_dim * s->heads != s->dim))
        return KR_FAIL(KR_ERR_ARG,
                       "model.family = %s: its config.json cannot say that heads are "
                       "grouped or of another size",
                       s->family->name);
    if (set->family == FAMILY_BLOOM && s->ffn != 4 * s->dim)
        return KR_FAIL(KR_ERR_ARG, "model.ffn: in bloom it is 4 * model.dim");
    if (set->family == FAMILY_LLAMA && model_rope_dims(s) != s->head_dim)
        return KR_FAIL(KR_ERR_ARG, "model.rope_dims: in llama the whole head turns");
    return KR_OK;
}

/* cJSON's text, in memory that mem_free takes. */
static kr_status print(const cJSON *root, char **text)
{
    struct mem_text t = { 0 };
    char *own = cJSON_Print(root);

    if (own) mem_printf(&t, "%s\n", own);
    cJSON_free(own);
    if (!own || t.failed) {
        mem_text_free(&t);
        return KR_FAIL(KR_ERR_MEM, "no memory for config.json");
    }
    *text = t.at;
    return KR_OK;
}

kr_status hf_config_print(const struct settings *set, const char *dtype, char **text)
{
    const struct hf_family *f = &hf_families[set->family];
    struct settings own = *set;
    struct model_shape s;
    cJSON *root;
    kr_status st;

    settings_shape(set, &s);
    TRY(check_written(set, &s));
    own.kv_heads = s.kv_heads;
    own.head_dim = s.head_dim;
    own.norm_eps = model_norm_eps(&s);
    root = cJSON_Parse(f->written);
    add_keys(root, f, &own);
    add_flag(root, &f->tied, model_tied(&s));
    add_flag(root, &f->qkv_bias, model_qkv_bias(&s));
    add_flag(root, &f->mlp_bias, model_mlp_bias(&s));
    add_rope(root, set, &s);
    cJSON_AddNullToObject(root, "bos_token_id");
    cJSON_AddNullToObject(root, "eos_token_id");
    cJSON_AddNullToObject(root, "pad_token_id");
    cJSON_AddStringToObject(root, "torch_dtype", dtype);
    st = print(root, text);
    cJSON_Delete(root);
    return st;
}

/* torch_dtype of version 4, dtype of version 5. */
static bool set_dtype(cJSON *root, const char *dtype)
{
    static const char *const keys[] = { "torch_dtype", "dtype" };
    bool changed = false;

    for (int i = 0; i < 2; i++) {
        const char *is = cJSON_GetStringValue(member(root, keys[i]));

        if (!is || strcmp(is, dtype) == 0) continue;
        cJSON_ReplaceItemInObjectCaseSensitive(root, keys[i], cJSON_CreateString(dtype));
        changed = true;
    }
    return changed;
}

kr_status hf_config_copy(const char *folder, const char *dtype, char **text)
{
    char path[FS_PATH], *found;
    cJSON *root;
    kr_status st = KR_OK;

    TRY(parse(folder, path, &found, &root));
    if (set_dtype(root, dtype)) {
        st = print(root, text);
        mem_free(found);
    } else {
        *text = found;
    }
    cJSON_Delete(root);
    return st;
}
