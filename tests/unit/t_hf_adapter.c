/*
 * t_hf_adapter.c - adapters of PEFT's, in and out, beside a tiny model of each family.
 *
 * What a merged export writes is held against W + (alpha / r) B A computed here from the
 * files alone, as PEFT does it: so names, rows by head and turned matrices are right.
 */
#include "base/bf16.h"
#include "base/hash.h"
#include "base/rng.h"
#include "tests/unit/hf_models.h"
#include "trainer/hf/hf_adapter.h"

enum { RANK = 3 };
static const double alpha = 4.5; /* times 1.5 */

/* An imported model, and a folder with an adapter for it. */
struct adapted {
    struct model m;
    struct hf_plan plan; /* of the adapter */
    struct params params;
    char base[FS_PATH], folder[FS_PATH];
};

static float adapter_value(const char *name, int64_t k)
{
    uint32_t number = (uint32_t)hash64(name, strlen(name));

    return bf16_value(
        bf16_round((float)(0.2 * rng_normal(9, RNG_TEST, number, (uint64_t)k))));
}

/* The tensors of the plan but number `without`, as `type`. */
static void write_adapter(const struct adapted *a, int type, int without)
{
    struct st_tensor list[64] = { 0 };
    struct st_header h = { .list = list };
    struct st_writer w;
    char path[FS_PATH];
    kr_status st = KR_OK;

    for (int i = 0; i < a->plan.count; i++) {
        const struct hf_entry *e = &a->plan.list[i];
        struct st_tensor *t = &list[h.count];

        if (i == without) continue;
        h.count++;
        strcpy(t->name, e->name);
        t->type = type;
        t->dims = 2;
        memcpy(t->shape, e->shape, sizeof e->shape);
    }
    st_header_lay_out(&h);
    rig_must(fs_path(path, "%s/" HF_ADAPTER_MODEL, a->folder));
    rig_must(st_create(&w, path, &h));
    for (int32_t i = 0; i < h.count && st == KR_OK; i++) {
        int64_t n = st_elements(&list[i]);
        float *x = malloc((size_t)n * sizeof *x);

        for (int64_t k = 0; k < n; k++)
            x[k] = adapter_value(list[i].name, k);
        st = st_write(&w, type, x, n);
        free(x);
    }
    rig_must(st_finish(&w, st));
}

static void make_adapted(struct adapted *a, int n, const char *targets)
{
    static int number;
    struct model_shape shape;
    char *config;

    make_model(&a->m, n, ST_F32, 1, true);
    new_path(a->base);
    CHECK_I64(run(import_command, "import", a->m.path, a->base, NULL, NULL), ==, 0);
    shape = a->m.shape;
    shape.lora = (struct lora){ RANK, alpha, lora_parse(shape.family, targets) };
    rig_must(params_build(&a->params, &shape));
    rig_must(hf_adapter_plan(&a->plan, a->m.set.family, &a->params, &shape));
    rig_must(fs_path(a->folder, "%s/adapter-%d", root, number++));
    rig_must(fs_mkdir(a->folder));
    rig_must(hf_adapter_print(a->m.set.family, &shape.lora, "some/model", &config));
    put(a->folder, HF_ADAPTER_CONFIG, config);
    mem_free(config);
    write_adapter(a, ST_F32, -1);
}

static void drop_adapted(struct adapted *a)
{
    hf_plan_free(&a->plan);
    params_free(&a->params);
    drop_model(&a->m);
}

/* ---- merging ---------------------------------------------------------------------------- */

/* The module of a stored weight in the plan of adapters: A's place, B is next; -1: none. */
static int adapter_of(const struct adapted *a, const char *name)
{
    char want[ST_NAME];
    const char *prefix = a->m.prefix ? "" : hf_families[a->m.set.family].prefix;

    if (strncmp(name, prefix, strlen(prefix)) == 0) prefix = "";
    snprintf(want, sizeof want, "base_model.model.%s%.*s.lora_A.weight", prefix,
             (int)strlen(name) - (int)strlen(".weight"), name);
    for (int i = 0; i < a->plan.count; i++)
        if (strcmp(a->plan.list[i].name, want) == 0) return i;
    return -1;
}

/* Element k of a stored weight after merging: turned where the family stores it so. */
static double merged(const struct adapted *a, const struct part *p, int at, int64_t k)
{
    const struct hf_entry *ea = &a->plan.list[at], *eb = ea + 1;
    int64_t in = ea->shape[1], across = p->entry->shape[1], out;
    double sum = 0;
    bool turned = p->entry->row->layout == HF_TRANSPOSED;
    int64_t row = k / across, col = k % across;

    out = turned ? col : row;
    col = turned ? row : col;
    for (int r = 0; r < RANK; r++)
        sum += (double)adapter_value(eb->name, out * RANK + r) *
               (double)adapter_value(ea->name, r * in + col);
    return (double)element(&a->m, p, k) + alpha / RANK * sum;
}

static int check_merged(const struct adapted *a, const char *folder)
{
    struct st_folder f;
    int adapted = 0;

    CHECK(st_folder_open(&f, folder) == KR_OK);
    for (int i = 0; i < a->m.count; i++) {
        const struct part *p = &a->m.part[i];
        const struct st_file *file;
        const struct st_tensor *t = st_folder_find(&f, p->name, &file);
        int64_t n = hf_entry_elements(p->entry);
        float *x = malloc((size_t)n * sizeof *x);
        int at = p->entry->dims == 2 ? adapter_of(a, p->name) : -1;

        CHECK(t && st_read(file, t, 0, n, x) == KR_OK);
        for (int64_t k = 0; k < n; k++) {
            double want = at < 0 ? (double)element(&a->m, p, k) : merged(a, p, at, k);

            CHECK_NEAR(x[k], want, at < 0 ? 0 : 3e-7 * (1 + fabs(want)));
        }
        adapted += at >= 0;
        free(x);
    }
    st_folder_close(&f);
    return adapted;
}

/* Adapters beside the model and a model with them merged are one model up to rounding. */
static void merged_weights_are_those_of_the_formula(void)
{
    for (int n = 0; n < SAMPLES; n++) {
        struct adapted a;
        char lora[FS_PATH], out[FS_PATH], again[FS_PATH];
        double beside;

        printf("# %s\n", families[samples[n].family].name);
        make_adapted(&a, n, "all");
        new_path(lora);
        new_path(out);
        new_path(again);
        CHECK_I64(run(import_command, "import", a.folder, lora, "--base", a.base), ==, 0);
        CHECK_I64(run(export_command, "export", lora, out, NULL, NULL), ==, 0);
        CHECK_I64(check_merged(&a, out), ==, a.plan.count / 2);
        CHECK_I64(run(import_command, "import", out, again, NULL, NULL), ==, 0);
        beside = loss_of(lora);
        CHECK_NEAR(loss_of(again), beside, 3e-6 * beside);
        CHECK(fabs(beside - samples[n].loss) > 1e-3);
        drop_adapted(&a);
    }
}

/* ---- round trips ------------------------------------------------------------------------- */

static bool same_file(const char *a, const char *b, const char *name)
{
    char path[FS_PATH], *x, *y;
    size_t n, m;
    bool same;

    rig_must(fs_path(path, "%s/%s", a, name));
    rig_must(fs_read_all(path, &x, &n, 1 << 20));
    rig_must(fs_path(path, "%s/%s", b, name));
    rig_must(fs_read_all(path, &y, &m, 1 << 20));
    same = n == m && memcmp(x, y, n) == 0;
    mem_free(x);
    mem_free(y);
    return same;
}

static void check_round_trip(int n, const char *targets, int type, const char *dtype)
{
    struct adapted a;
    char lora[FS_PATH], out[FS_PATH], again[FS_PATH], back[FS_PATH];

    make_adapted(&a, n, targets);
    write_adapter(&a, type, -1);
    new_path(lora);
    new_path(out);
    new_path(again);
    new_path(back);
    CHECK_I64(run(import_command, "import", a.folder, lora, "--base", a.base), ==, 0);
    {
        char *argv[] = {
            "export", lora, "-o", out, "--adapter", "--dtype", (char *)(uintptr_t)dtype,
            NULL
        };
        CHECK_I64(export_command(7, argv), ==, 0);
    }
    CHECK(same_file(a.folder, out, HF_ADAPTER_MODEL));
    CHECK_I64(run(import_command, "import", out, again, "--base", a.base), ==, 0);
    CHECK_I64(run(export_command, "export", again, back, "--adapter", "true"), ==, 0);
    CHECK(same_file(out, back, HF_ADAPTER_CONFIG));
    drop_adapted(&a);
}

static void adapters_come_back_bit_for_bit(void)
{
    for (int n = 0; n < SAMPLES; n++)
        check_round_trip(n, "all", n % 2 ? ST_BF16 : ST_F32, n % 2 ? "bf16" : "fp32");
    check_round_trip(0, "o", ST_F32, "fp32"); /* c_proj of GPT-2, of two only one */
    check_round_trip(0, "down,qkv", ST_F16, "fp16");
}

/* Every matrix of a block that the family's table has is one site, and they are all. */
static void sites_and_tables_agree(void)
{
    for (int f = 0; f < FAMILY_COUNT; f++) {
        unsigned seen = 0;

        for (const struct hf_tensor *t = hf_families[f].tensors; t->theirs; t++) {
            int site = hf_adapter_site(f, t);
            bool matrix = strstr(t->ours, ".weight") && !strstr(t->ours, "norm") &&
                          !strstr(t->ours, "post") && strstr(t->ours, "block.");

            CHECK_I64(site >= 0, ==, matrix);
            CHECK(site < 0 || !(seen >> site & 1));
            if (site >= 0) seen |= 1u << site;
        }
        CHECK_I64(seen, ==, lora_sites(&families[f]));
    }
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void options_of_others_are_refused_by_name(void)
{
    static const struct {
        const char *member, *why;
    } list[] = {
        { "\"use_dora\":true", "use_dora: this is not supported" },
        { "\"use_rslora\":true", "use_rslora: this is not supported" },
        { "\"rank_pattern\":{\"q_proj\":4}", "rank_pattern: this is not supported" },
        { "\"alpha_pattern\":{\"q_proj\":4}", "alpha_pattern: this is not supported" },
        { "\"layers_to_transform\":[0]", "layers_to_transform: this is not supported" },
        { "\"modules_to_save\":[\"lm_head\"]", "modules_to_save: this is not supported" },
        { "\"bias\":\"all\"", "bias: this is not supported" },
        { "\"lora_bias\":true", "lora_bias: this is not supported" },
        { "\"init_lora_weights\":\"pissa_niter_4\"", "init_lora_weights: it changes" },
        { "\"peft_type\":\"IA3\"", "peft_type: only \"LORA\" is supported" },
        { "\"r\":0", "r: want a whole number" },
        { "\"r\":2.5", "r: want a whole number" },
        { "\"r\":\"8\"", "r: want a whole number" },
        { "\"r\":5", "its shape is not 5 x 32, which adapter_config.json asks for" },
        { "\"lora_alpha\":-1", "lora_alpha: want a number" },
        { "\"lora_alpha\":null", "lora_alpha: want a number" },
        { "\"target_modules\":[]", "target_modules: want a list of names" },
        { "\"target_modules\":[7]", "target_modules: that is no matrix of a block" },
        { "\"target_modules\":[\"c_attn\"]", "c_attn is no matrix of a block of llama" },
        { "\"target_modules\":[\"q_proj\"]", "no such tensor is in this adapter" },
        { "\"target_modules\":[\"proj\"]", "proj is no matrix of a block of llama" },
    };
    struct adapted a;
    char text[600];

    make_adapted(&a, 2, "q,v"); /* llama */
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        snprintf(text, sizeof text,
                 "{%s,\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":4.5,"
                 "\"target_modules\":[\"q_proj\",\"v_proj\"]}",
                 list[i].member);
        put(a.folder, HF_ADAPTER_CONFIG, text);
        check_refused(a.folder, "--base", a.base, list[i].why);
    }
    put(a.folder, HF_ADAPTER_CONFIG, "[1]");
    check_refused(a.folder, "--base", a.base, "is no JSON object");
    drop_adapted(&a);
}

static void tensors_must_be_those_of_the_config(void)
{
    struct adapted a;
    char path[FS_PATH];

    make_adapted(&a, 2, "q,v");
    check_refused(a.folder, NULL, NULL, "--base RUN says which model it belongs to");
    check_refused(a.folder, "--base", a.folder, "no valid checkpoint there");
    write_adapter(&a, ST_F32, 3);
    check_refused(a.folder, "--base", a.base, "has no tensor base_model.model.model.");
    strcpy(a.plan.list[3].name, "base_model.model.model.layers.7.q_proj.lora_A.weight");
    write_adapter(&a, ST_F32, 2);
    check_refused(a.folder, "--base", a.base, "has no tensor base_model.model.model.");
    put(a.folder, HF_ADAPTER_MODEL, "no such file");
    check_refused(a.folder, "--base", a.base, HF_ADAPTER_MODEL);
    rig_must(fs_path(path, "%s/" HF_ADAPTER_MODEL, a.folder));
    rig_must(fs_unlink(path));
    check_refused(a.folder, "--base", a.base, HF_ADAPTER_MODEL ": no such file");
    drop_adapted(&a);
    make_adapted(&a, 0, "all"); /* an adapter of GPT-2 beside a llama */
    strcpy(path, a.folder);
    drop_adapted(&a);
    make_adapted(&a, 2, "all");
    check_refused(path, "--base", a.base, "is no matrix of a block of llama");
    drop_adapted(&a);
}

/* Whole names, as PEFT writes them for "all-linear"; words of them; a pattern, which is not
 * tried: the tensors tell. */
static void targets_may_be_said_in_many_ways(void)
{
    static const char *const ways[] = {
        "[\"q_proj\",\"self_attn.v_proj\"]",
        "[\"0.self_attn.q_proj\",\"layers.1.self_attn.v_proj\"]",
        "[\"model.layers.0.self_attn.q_proj\",\"model.layers.1.self_attn.v_proj\"]",
        "\".*\"",
    };
    static const char *const none[] = {
        "el.layers.0.self_attn.q_proj",
        "x.model.layers.0.self_attn.q_proj",
        "layers.self_attn.q_proj",
        "layers.x.self_attn.q_proj",
        ".self_attn.q_proj",
        "attn.q_proj",
    };
    struct adapted a;
    char lora[FS_PATH], out[FS_PATH], text[400];

    make_adapted(&a, 2, "q,v");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        snprintf(text, sizeof text,
                 "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":4.5,"
                 "\"target_modules\":%s}",
                 ways[i]);
        put(a.folder, HF_ADAPTER_CONFIG, text);
        new_path(lora);
        new_path(out);
        CHECK_I64(run(import_command, "import", a.folder, lora, "--base", a.base), ==, 0);
        CHECK_I64(run(export_command, "export", lora, out, NULL, NULL), ==, 0);
        CHECK_I64(check_merged(&a, out), ==, 2 * LAYERS);
    }
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        snprintf(text, sizeof text,
                 "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":4.5,"
                 "\"target_modules\":[\"%s\"]}",
                 none[i]);
        put(a.folder, HF_ADAPTER_CONFIG, text);
        check_refused(a.folder, "--base", a.base, "is no matrix of a block of llama");
    }
    drop_adapted(&a);
}

int main(void)
{
    begin("hf-adapter");
    RUN(sites_and_tables_agree);
    RUN(merged_weights_are_those_of_the_formula);
    RUN(adapters_come_back_bit_for_bit);
    RUN(options_of_others_are_refused_by_name);
    RUN(tensors_must_be_those_of_the_config);
    RUN(targets_may_be_said_in_many_ways);
    rig_must(fs_remove_tree(root));
    return check_done();
}
