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

        if (j ? is_one_of(j, m->value) : !m->need) continue;
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

/* Ways of stretching as config.json has them: their limits in turns, which old context it
 * means if it names none (0: that of the model), and whether it may name one. */
static const struct stretch {
    const char *name, *low, *high;
    double high_missing, old_missing;
    bool old;
} stretches[] = {
    [ROPE_LLAMA3] = { "llama3", "low_freq_factor", "high_freq_factor", 4, 8192, true },
    [ROPE_LINEAR] = { .name = "linear", .old_missing = 8192 }, /* unused */
    [ROPE_YARN] = { "yarn", "beta_slow", "beta_fast", 32, 0, true },
    [ROPE_DYNAMIC] = { .name = "dynamic" },
};
enum { STRETCHES = sizeof stretches / sizeof *stretches };

static const char old_context[] = "original_max_position_embeddings";

/* 0.1 m ln factor + 1 */
static double yarn_scale(double factor, double m)
{
    return factor > 1 ? 0.1 * m * log(factor) + 1 : 1;
}

/* What only YaRN has.  DeepSeek's two scales make a magnitude where none is given. */
static kr_status read_yarn(const struct reader *r, const cJSON *how, struct settings *set)
{
    double factor = set->rope_factor, one = 0, all = 0;

    if (member(how, "truncate") && !cJSON_IsTrue(member(how, "truncate")))
        return bad(r, "rope_scaling", "truncate: only true is supported");
    TRY(real(r, how, "mscale", 0, &one));
    TRY(real(r, how, "mscale_all_dim", 0, &all));
    TRY(real(r, how, "attention_factor", 0, &set->rope_attention));
    if (factor <= 1 && set->rope_attention > 0 && set->rope_attention != 1)
        return bad(r, "rope_scaling", "attention_factor needs a factor above 1");
    if (set->rope_attention <= 0 && one > 0 && all > 0)
        set->rope_attention = yarn_scale(factor, one) / yarn_scale(factor, all);
    return KR_OK;
}

static kr_status read_stretch(const struct reader *r, const cJSON *how, const char *type,
                              struct settings *set)
{
    const struct stretch *way;
    double old;
    char text[160];
    int kind = 0;

    while (kind < STRETCHES && strcmp(type, stretches[kind].name) != 0)
        kind++;
    if (kind == STRETCHES) {
        snprintf(text, sizeof text,
                 "rope_type %.60s is not supported; want default|" ROPE_CHOICES, type);
        return bad(r, "rope_scaling", text);
    }
    way = &stretches[kind];
    set->rope_scaling = kind;
    if (!member(how, "factor")) return bad(r, "rope_scaling", "has no factor");
    TRY(real(r, how, "factor", 1, &set->rope_factor));
    if (way->low) TRY(real(r, how, way->low, 1, &set->rope_low));
    if (way->high) TRY(real(r, how, way->high, way->high_missing, &set->rope_high));
    old = way->old_missing > 0 ? way->old_missing : (double)set->context;
    if (way->old) TRY(real(r, how, old_context, old, &old));
    set->rope_old_context = (int64_t)fmin(old, 0x1p40);
    return kind == ROPE_YARN ? read_yarn(r, how, set) : KR_OK;
}

/* Version 5 may give kinds of layers parameters of their own. */
static kr_status check_alike(const struct reader *r, const cJSON *all)
{
    const cJSON *j;
    char text[160];

    cJSON_ArrayForEach(j, all)
    {
        if (!cJSON_IsObject(j)) continue;
        snprintf(text, sizeof text, "%.60s: one for all layers is supported", j->string);
        return bad(r, "rope_parameters", text);
    }
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
    TRY(check_alike(r, all));
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
    cJSON *root = NULL;
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
    const struct stretch *way = &stretches[set->rope_scaling];
    cJSON *how;

    if (s->family->pos != POS_ROPE) return;
    if (set->family == FAMILY_CHATGLM) {
        cJSON_AddNumberToObject(root, "rope_ratio", s->rope_theta / 1e4);
        return;
    }
    cJSON_AddNumberToObject(root, "rope_theta", s->rope_theta);
    if (s->family->rope_share < 1)
        cJSON_AddNumberToObject(root, "partial_rotary_factor",
                                (double)model_rope_dims(s) / (double)s->head_dim);
    if (set->rope_factor <= 1) return;
    how = cJSON_AddObjectToObject(root, "rope_scaling");
    cJSON_AddStringToObject(how, "rope_type", way->name);
    cJSON_AddNumberToObject(how, "factor", set->rope_factor);
    if (way->low) cJSON_AddNumberToObject(how, way->low, set->rope_low);
    if (way->high) cJSON_AddNumberToObject(how, way->high, set->rope_high);
    if (way->old)
        cJSON_AddNumberToObject(how, old_context, (double)set->rope_old_context);
    if (set->rope_scaling == ROPE_YARN && set->rope_attention > 0)
        cJSON_AddNumberToObject(how, "attention_factor", set->rope_attention);
}

/* max_position_embeddings is part of some formulas there: of YaRN's factor in some releases,
 * and what dynamic stretching starts from. */
static int64_t written_context(const struct settings *set)
{
    if (set->rope_factor > 1 && set->rope_scaling == ROPE_YARN)
        return (int64_t)((double)set->rope_old_context * set->rope_factor);
    if (set->rope_factor > 1 && set->rope_scaling == ROPE_DYNAMIC)
        return set->rope_old_context;
    return set->context;
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
    if (set->family == FAMILY_CHATGLM && set->rope_factor > 1)
        return KR_FAIL(KR_ERR_ARG, "model.rope_factor: in chatglm nothing is stretched");
    if (set->family == FAMILY_CHATGLM && model_rope_dims(s) != s->head_dim / 2)
        return KR_FAIL(KR_ERR_ARG, "model.rope_dims: in chatglm half of the head turns");
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
    if (s.family->pos == POS_ROPE) own.context = written_context(set);
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
    cJSON *root = NULL;
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
