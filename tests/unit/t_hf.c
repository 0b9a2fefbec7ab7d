/*
 * t_hf.c - import and export, in this process: a tiny model of each family, stored as
 * Hugging Face stores it, with the weights of the golden values.
 *
 * The imported model must have the golden loss, so every name, layout and packing is
 * right; what is exported again must be the same tensors, bit for bit.
 */
#include <time.h>

#include "base/mem.h"
#include "tests/unit/hf_models.h"

/* Every tensor of a is in b with the same type, shape and bytes, and no other. */
static void check_same_tensors(const char *a, const char *b)
{
    struct st_folder x = { 0 }, y = { 0 };
    int count[2] = { 0 };

    CHECK(st_folder_open(&x, a) == KR_OK);
    CHECK(st_folder_open(&y, b) == KR_OK);
    for (int32_t f = 0; f < y.count; f++)
        count[1] += y.files[f].header.count;
    for (int32_t f = 0; f < x.count; f++)
        for (int32_t i = 0; i < x.files[f].header.count; i++, count[0]++) {
            const struct st_tensor *t = &x.files[f].header.list[i], *u;
            const struct st_file *file;
            char *p = malloc(st_bytes(t) + 1), *q = malloc(st_bytes(t) + 1);

            u = st_folder_find(&y, t->name, &file);
            if (!u) printf("# %s is gone\n", t->name);
            CHECK(u && u->type == t->type && u->dims == t->dims &&
                  memcmp(u->shape, t->shape, sizeof t->shape) == 0);
            if (u) {
                rig_must(fs_pread(x.files[f].fd, a, p, st_bytes(t),
                                  x.files[f].data + t->begin));
                rig_must(fs_pread(file->fd, b, q, st_bytes(u), file->data + u->begin));
                CHECK(memcmp(p, q, st_bytes(t)) == 0);
            }
            free(p);
            free(q);
        }
    CHECK_I64(count[0], ==, count[1]);
    st_folder_close(&x);
    st_folder_close(&y);
}

static void check_same_file(const char *a, const char *b, const char *name, bool there)
{
    char path[FS_PATH], *x = NULL, *y = NULL;
    size_t n, m;

    rig_must(fs_path(path, "%s/%s", b, name));
    CHECK(fs_exists(path) == there);
    if (!there || !fs_exists(path)) return;
    CHECK(fs_read_all(path, &y, &m, 1 << 20) == KR_OK);
    rig_must(fs_path(path, "%s/%s", a, name));
    CHECK(fs_read_all(path, &x, &n, 1 << 20) == KR_OK);
    CHECK(n == m && memcmp(x, y, n) == 0);
    mem_free(x);
    mem_free(y);
}

/* ---- round trips ------------------------------------------------------------------------- */

static void an_imported_model_has_the_golden_loss(void)
{
    for (int n = 0; n < SAMPLES; n++) {
        struct model m;
        char run_path[FS_PATH];

        printf("# %s\n", families[samples[n].family].name);
        make_model(&m, n, ST_F32, 1, false);
        new_path(run_path);
        CHECK_I64(run(import_command, "import", m.path, run_path, NULL, NULL), ==, 0);
        CHECK_NEAR(loss_of(run_path), samples[n].loss, 3e-6 * samples[n].loss);
        drop_model(&m);
    }
}

static void export_gives_back_what_was_read(void)
{
    static const int types[] = { ST_F32, ST_BF16, ST_F16, ST_F64 };

    for (int n = 0; n < SAMPLES; n++)
        for (int t = 0; t < 4; t++) {
            struct model m;
            char run_path[FS_PATH], back[FS_PATH];

            make_model(&m, n, types[t], 1 + t % 3, t % 2 == 1);
            new_path(run_path);
            new_path(back);
            CHECK_I64(run(import_command, "import", m.path, run_path, NULL, NULL), ==, 0);
            CHECK_I64(run(export_command, "export", run_path, back, NULL, NULL), ==, 0);
            check_same_tensors(m.path, back);
            check_same_file(m.path, back, "tokenizer.json", true);
            check_same_file(m.path, back, "tokenizer.model", true);
            check_same_file(m.path, back, "pytorch_model.bin", false);
            if (t == 0) check_same_file(m.path, back, "config.json", true);
            drop_model(&m);
        }
}

/* A new config.json describes the same model, and small shards with an index hold it. */
static void a_run_without_origin_is_described_anew(void)
{
    for (int n = 0; n < SAMPLES; n++) {
        struct model m;
        char run_path[FS_PATH], hf[FS_PATH], back[FS_PATH], again[FS_PATH];

        make_model(&m, n, ST_F32, 1, true);
        new_path(run_path);
        new_path(back);
        new_path(again);
        CHECK_I64(run(import_command, "import", m.path, run_path, NULL, NULL), ==, 0);
        rig_must(fs_path(hf, "%s/hf", run_path));
        rig_must(fs_remove_tree(hf));
        CHECK_I64(run(export_command, "export", run_path, back, "--shard-size", "1"), ==,
                  0);
        check_same_tensors(m.path, back);
        check_same_file(m.path, back, "tokenizer.json", true); /* the run's */
        check_same_file(m.path, back, "tokenizer.model", false);
        CHECK_I64(run(import_command, "import", back, again, NULL, NULL), ==, 0);
        CHECK_NEAR(loss_of(again), samples[n].loss, 3e-6 * samples[n].loss);
        drop_model(&m);
    }
}

static void another_dtype_is_rounded_once(void)
{
    struct model m;
    char run_path[FS_PATH], back[FS_PATH], text[FS_PATH], *config = NULL;
    struct st_file f;
    size_t n;

    make_model(&m, 0, ST_F32, 1, false);
    new_path(run_path);
    new_path(back);
    CHECK_I64(run(import_command, "import", m.path, run_path, NULL, NULL), ==, 0);
    CHECK_I64(run(export_command, "export", run_path, back, "--dtype", "bf16"), ==, 0);
    rig_must(fs_path(text, "%s/%s", back, ST_SINGLE));
    CHECK(st_open(&f, text) == KR_OK);
    for (int i = 0; i < m.count; i++) {
        const struct st_tensor *t =
            &f.header.list[st_header_find(&f.header, m.part[i].name)];
        float x;

        CHECK(t->type == ST_BF16);
        CHECK(st_read(&f, t, 3, 1, &x) == KR_OK);
        CHECK_NEAR(x, element(&m, &m.part[i], 3), fabs((double)x) / 256);
    }
    st_close(&f);
    rig_must(fs_path(text, "%s/config.json", back));
    CHECK(fs_read_all(text, &config, &n, 1 << 20) == KR_OK);
    CHECK(config && strstr(config, "bfloat16") && strstr(config, "resid_pdrop"));
    mem_free(config);
    drop_model(&m);
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void every_tensor_is_accounted_for(void)
{
    struct model m;
    struct hf_entry *e;

    make_model(&m, 0, ST_F32, 1, false);
    m.count--; /* ln_f.bias */
    write_file(&m, ST_SINGLE, 0, 1);
    check_refused(m.path, NULL, NULL, "has no tensor ln_f.bias");
    m.count++;
    strcpy(m.part[3].name, "h.0.attn.bias"); /* a mask's name: it is no weight */
    write_file(&m, ST_SINGLE, 0, 1);
    check_refused(m.path, NULL, NULL, "has no tensor h.0.ln_1.bias");
    strcpy(m.part[3].name, "h.0.ln_1.bias");
    strcpy(m.part[m.count].name, "h.2.ln_1.bias");
    m.part[m.count++].entry = m.part[3].entry;
    write_file(&m, ST_SINGLE, 0, 1);
    check_refused(m.path, NULL, NULL, "h.2.ln_1.bias: no such tensor is in this model");
    m.count--;
    e = (struct hf_entry *)(uintptr_t)m.part[4].entry; /* c_attn, stored (out, in) */
    e->shape[0] = 72;
    e->shape[1] = 24;
    write_file(&m, ST_SINGLE, 0, 1);
    check_refused(m.path, NULL, NULL, "h.0.attn.c_attn.weight: its shape is not 24 x 72");
    drop_model(&m);
}

/* Masks of old files are passed over, and a head that is a copy comes back as one. */
static void buffers_and_copies_are_known(void)
{
    struct model m;
    char run_path[FS_PATH], back[FS_PATH];

    make_model(&m, 0, ST_F32, 1, true);
    m.part[m.count] = m.part[0];
    strcpy(m.part[m.count++].name, "lm_head.weight");
    write_file(&m, ST_SINGLE, 0, 1);
    new_path(run_path);
    new_path(back);
    CHECK_I64(run(import_command, "import", m.path, run_path, NULL, NULL), ==, 0);
    CHECK_I64(run(export_command, "export", run_path, back, NULL, NULL), ==, 0);
    check_same_tensors(m.path, back);
    m.part[m.count - 1].number = 77; /* another matrix of that name */
    write_file(&m, ST_SINGLE, 0, 1);
    check_refused(m.path, NULL, NULL, "lm_head.weight: tie_word_embeddings is true");
    m.part[m.count - 1] = m.part[3];
    strcpy(m.part[m.count - 1].name, "transformer.h.0.attn.masked_bias");
    write_file(&m, ST_SINGLE, 0, 1);
    new_path(run_path);
    CHECK_I64(run(import_command, "import", m.path, run_path, NULL, NULL), ==, 0);
    drop_model(&m);
}

/* ChatGLM2 and 3 mean different things by rope_ratio, so an import says which it took. */
static void a_ratio_of_chatglm_is_told(void)
{
    struct model m;
    char *config = strdup(samples[SAMPLES - 1].config), out[FS_PATH];
    char *ratio = strstr(config, "\"rope_ratio\":1");

    make_model(&m, SAMPLES - 1, ST_F32, 1, false);
    ratio[strlen("\"rope_ratio\":")] = '7';
    put(m.path, "config.json", config);
    forget();
    new_path(out);
    CHECK_I64(run(import_command, "import", m.path, out, NULL, NULL), ==, 0);
    CHECK(strstr(said, "rope_ratio 7 multiplies") && strstr(said, "model.rope_factor=7"));
    forget();
    new_path(out);
    CHECK_I64(run(import_command, "import", m.path, out, "--rope-theta", "1e4"), ==, 0);
    CHECK(said[0] == '\0');
    free(config);
    drop_model(&m);
}

static void what_is_there_is_not_overwritten(void)
{
    struct model m;
    char out[FS_PATH];

    make_model(&m, 0, ST_F32, 1, false);
    forget();
    CHECK_I64(run(import_command, "import", m.path, m.path, NULL, NULL), ==, 2);
    CHECK(strstr(said, "is there already and not empty"));
    new_path(out);
    rig_must(fs_mkdir(out));
    CHECK_I64(run(import_command, "import", m.path, out, NULL, NULL), ==, 0);
    forget();
    CHECK_I64(run(export_command, "export", out, out, NULL, NULL), ==, 2);
    CHECK(strstr(said, "is there already and not empty"));
    drop_model(&m);
}

/* Every tensor by its name, and from its parameter. */
static void a_deep_model_is_planned_quickly(void)
{
    struct model_shape shape = {
        .family = &families[FAMILY_LLAMA], 8000, 4, 1, 1, 4, 4, 4, 4
    };
    clock_t begin = clock(); /* of this process: others may be busy */
    struct params params;
    struct hf_plan plan;
    int32_t seen = 0;

    rig_must(params_build(&params, &shape));
    rig_must(hf_plan_build(&plan, FAMILY_LLAMA, &params, &shape, true));
    CHECK_I64(plan.count, ==, 9 * 8000 + 3);
    for (int32_t i = 0; i < plan.count; i++)
        if (hf_plan_find(&plan, plan.list[i].name) != &plan.list[i])
            CHECK_STR(plan.list[i].name, "found");
    for (int32_t i = 0; i < params.count; i++)
        for (int32_t k = plan.first[i]; k >= 0; k = plan.list[k].next) {
            CHECK_I64(plan.list[k].param, ==, i);
            seen++;
        }
    CHECK_I64(seen, ==, plan.count);
    CHECK(!hf_plan_find(&plan, "model.layers.8000.mlp.up_proj.weight"));
    CHECK_I64((clock() - begin) / CLOCKS_PER_SEC, <, 3); /* 0.1; one by one, 30 */
    hf_plan_free(&plan);
    params_free(&params);
}

int main(void)
{
    begin("hf");
    RUN(an_imported_model_has_the_golden_loss);
    RUN(export_gives_back_what_was_read);
    RUN(a_run_without_origin_is_described_anew);
    RUN(another_dtype_is_rounded_once);
    RUN(every_tensor_is_accounted_for);
    RUN(buffers_and_copies_are_known);
    RUN(a_ratio_of_chatglm_is_told);
    RUN(what_is_there_is_not_overwritten);
    RUN(a_deep_model_is_planned_quickly);
    rig_must(fs_remove_tree(root));
    return check_done();
}
