/* hf_adapter_config.c - adapter_config.json, in and out. */
#include <cjson/cJSON.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "trainer/hf/hf_adapter.h"

enum { CONFIG_MOST = 16 << 20 /* bytes */ };

/* ---- reading ---------------------------------------------------------------------------- */

struct reader {
    char path[FS_PATH];
    const cJSON *root;
    int family;
};

static const cJSON *member(const struct reader *r, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(r->root, key);
}

static kr_status bad(const struct reader *r, const char *key, const char *what)
{
    return KR_FAIL(KR_ERR_ARG, "%s: %s: %s", r->path, key, what);
}

/* Null, false, 0, "", "none", [] and {}. */
static bool is_off(const cJSON *j)
{
    const char *text = cJSON_GetStringValue(j);

    if (!j || cJSON_IsNull(j) || cJSON_IsFalse(j)) return true;
    if (text) return !text[0] || strcmp(text, "none") == 0;
    if (cJSON_IsArray(j) || cJSON_IsObject(j)) return cJSON_GetArraySize(j) == 0;
    return cJSON_IsNumber(j) && j->valuedouble == 0;
}

/* Options that make another model of the same tensors, or need more of them. */
static const char *const foreign[] = {
    "use_dora",          "use_rslora",        "use_qalora",
    "rank_pattern",      "alpha_pattern",     "layers_to_transform",
    "modules_to_save",   "exclude_modules",   "trainable_token_indices",
    "layer_replication", "lora_bias",         "bias",
    "megatron_config",   "target_parameters", "alora_invocation_tokens",
    "arrow_config",
};

/* Ways to begin that change the model's own weights; after those an adapter belongs to
 * weights that are not there. */
static const char *const residual[] = { "pissa", "olora", "corda", "loftq", "lora_ga" };

static kr_status check_known(const struct reader *r)
{
    const char *type = cJSON_GetStringValue(member(r, "peft_type"));
    const char *init = cJSON_GetStringValue(member(r, "init_lora_weights"));

    if (!type || strcmp(type, "LORA") != 0)
        return bad(r, "peft_type", "only \"LORA\" is supported");
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (!is_off(member(r, foreign[i])))
            return bad(r, foreign[i], "this is not supported");
    for (size_t i = 0; init && i < sizeof residual / sizeof *residual; i++)
        if (strncmp(init, residual[i], strlen(residual[i])) == 0)
            return bad(r, "init_lora_weights",
                       "it changes the model's weights too; convert the adapter first");
    return KR_OK;
}

/* Is `end`, of n letters, what `text` ends in, and a whole number of words of it? */
static bool is_end(const char *text, size_t len, const char *end, size_t n)
{
    return n <= len && memcmp(text + len - n, end, n) == 0 &&
           (n == len || n == 0 || text[len - n - 1] == '.');
}

/* Does target_modules mean this row's modules?  It says what their names end in: words of
 * one after the number of its block, or, as PEFT writes "all-linear", with number and all. */
static bool is_meant(int family, const struct hf_tensor *row, const char *name)
{
    const char *hole = strstr(row->theirs, "%d"), *module = hole + 3;
    size_t m = strlen(module) - strlen(".weight"), n = strlen(name);
    char before[ST_NAME];

    if (n <= m) return n > 0 && is_end(module, m, name, n);
    if (!is_end(name, n, module, m)) return false;
    n -= m + 1; /* the dot before it */
    if (n == 0 || !isdigit((unsigned char)name[n - 1])) return false;
    while (n > 0 && isdigit((unsigned char)name[n - 1]))
        n--;
    snprintf(before, sizeof before, "%s%.*s", hf_families[family].prefix,
             (int)(hole - row->theirs), row->theirs);
    return is_end(before, strlen(before), name, n);
}

static kr_status read_name(const struct reader *r, const char *name, unsigned *named)
{
    unsigned found = 0;
    char text[160];

    for (const struct hf_tensor *t = hf_families[r->family].tensors; name && t->theirs;
         t++) {
        int site = hf_adapter_site(r->family, t);

        if (site >= 0 && is_meant(r->family, t, name)) found |= 1u << site;
    }
    *named |= found;
    if (found) return KR_OK;
    snprintf(text, sizeof text, "%.60s is no matrix of a block of %s",
             name ? name : "that", families[r->family].name);
    return bad(r, "target_modules", text);
}

/* A list of names; a text is a pattern. */
static kr_status read_targets(const struct reader *r, unsigned *named)
{
    const cJSON *list = member(r, "target_modules"), *j;

    *named = 0;
    if (cJSON_IsString(list)) return KR_OK;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) == 0)
        return bad(r, "target_modules", "want a list of names, or a pattern");
    cJSON_ArrayForEach(j, list) TRY(read_name(r, cJSON_GetStringValue(j), named));
    return KR_OK;
}

static kr_status read_members(const struct reader *r, struct hf_adapter *out)
{
    const cJSON *rank = member(r, "r"), *alpha = member(r, "lora_alpha");

    TRY(check_known(r));
    if (!cJSON_IsNumber(rank) || rank->valuedouble != floor(rank->valuedouble) ||
        !(rank->valuedouble >= 1 && rank->valuedouble <= 4096))
        return bad(r, "r", "want a whole number from 1 to 4096");
    if (!cJSON_IsNumber(alpha) ||
        !(alpha->valuedouble >= 1e-6 && alpha->valuedouble <= 1e6))
        return bad(r, "lora_alpha", "want a number from 1e-6 to 1e6");
    out->rank = (int64_t)rank->valuedouble;
    out->alpha = alpha->valuedouble;
    return read_targets(r, &out->sites);
}

kr_status hf_adapter_read(struct hf_adapter *out, const char *folder, int family)
{
    struct reader r = { .family = family };
    struct hf_adapter a;
    char *text;
    size_t bytes;
    cJSON *root;
    kr_status st;

    TRY(fs_path(r.path, "%s/" HF_ADAPTER_CONFIG, folder));
    TRY(fs_read_all(r.path, &text, &bytes, CONFIG_MOST));
    root = cJSON_ParseWithLength(text, bytes);
    mem_free(text);
    r.root = root;
    st = cJSON_IsObject(root) ? read_members(&r, &a)
                              : KR_FAIL(KR_ERR_ARG, "%s: is no JSON object", r.path);
    cJSON_Delete(root);
    if (st == KR_OK) *out = a;
    return st;
}

/* ---- writing ---------------------------------------------------------------------------- */

/* The last `parts` words of a module's name. */
static void tail_of(const struct hf_tensor *row, int parts, char out[ST_NAME])
{
    size_t n = strlen(row->theirs) - strlen(".weight"), at = n;

    while (at > 0 && (row->theirs[at - 1] != '.' || --parts > 0))
        at--;
    snprintf(out, ST_NAME, "%.*s", (int)(n - at), row->theirs + at);
}

/* Do these words also name a matrix that has no adapter? */
static bool names_others(int family, const struct lora *lora, const char *name)
{
    for (const struct hf_tensor *t = hf_families[family].tensors; t->theirs; t++) {
        int site = hf_adapter_site(family, t);

        if (site >= 0 && !lora_has(lora, site) && is_meant(family, t, name)) return true;
    }
    return false;
}

static bool has_text(const cJSON *list, const char *text)
{
    const cJSON *j;

    cJSON_ArrayForEach(j,
                       list) if (strcmp(cJSON_GetStringValue(j), text) == 0) return true;
    return false;
}

/* The last word, as everybody writes it; GPT-2 has c_proj twice. */
static void add_targets(cJSON *root, int family, const struct lora *lora)
{
    cJSON *list = cJSON_AddArrayToObject(root, "target_modules");
    char name[ST_NAME];

    for (const struct hf_tensor *t = hf_families[family].tensors; t->theirs; t++) {
        int site = hf_adapter_site(family, t);

        if (site < 0 || !lora_has(lora, site)) continue;
        tail_of(t, 1, name);
        if (names_others(family, lora, name)) tail_of(t, 2, name);
        if (!has_text(list, name)) cJSON_AddItemToArray(list, cJSON_CreateString(name));
    }
}

/* torch's Linear has (out, in); a family whose matrices are stored turned has another. */
static bool is_turned(int family)
{
    for (const struct hf_tensor *t = hf_families[family].tensors; t->theirs; t++)
        if (t->layout == HF_TRANSPOSED) return true;
    return false;
}

kr_status hf_adapter_print(int family, const struct lora *lora, const char *base,
                           char **text)
{
    cJSON *root =
        cJSON_Parse("{\"peft_type\":\"LORA\",\"task_type\":\"CAUSAL_LM\","
                    "\"inference_mode\":true,\"bias\":\"none\",\"lora_dropout\":0.0,"
                    "\"init_lora_weights\":true,\"modules_to_save\":null}");
    struct mem_text t = { 0 };
    char *own;

    cJSON_AddStringToObject(root, "base_model_name_or_path", base);
    cJSON_AddNumberToObject(root, "r", (double)lora->rank);
    cJSON_AddNumberToObject(root, "lora_alpha", lora->alpha);
    cJSON_AddBoolToObject(root, "fan_in_fan_out", is_turned(family));
    add_targets(root, family, lora);
    own = cJSON_Print(root);
    if (own) mem_printf(&t, "%s\n", own);
    cJSON_free(own);
    cJSON_Delete(root);
    if (own && !t.failed) {
        *text = t.at;
        return KR_OK;
    }
    mem_text_free(&t);
    return KR_FAIL(KR_ERR_MEM, "no memory for " HF_ADAPTER_CONFIG);
}
