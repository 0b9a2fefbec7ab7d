/*
 * hf_import.c - `import`: a folder of Hugging Face's to a run that training starts from.
 *
 * The run gets one checkpoint, of step 0.  Parameters are made one after the other while its
 * shard is written, so memory holds the largest of them and a little more.  An adapter of
 * PEFT's takes the same way: hf_import_adapter.c says what is different.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "scheduler/exitcode.h"
#include "trainer/hf/hf_adapter.h"
#include "trainer/hf/hf_checkpoint.h"
#include "trainer/hf/hf_config.h"
#include "trainer/hf/hf_import_parts.h"
#include "trainer/hf/hf_origin.h"
#include "trainer/hf/hf_table.h"
#include "trainer/run/commands.h"
#include "trainer/run/load.h"

enum { PIECE = 1 << 20 /* elements read at a time */, CONTEXT = 2048 };
enum { REFUSE, WARN };

/* clang-format off */
#define A struct import_args
static const struct cfg_field import_options[] = {
    CFG_TEXT(A, output, "output", "", "the run directory to make (also: -o)"),
    CFG_TEXT(A, base, "base", "", "of an adapter: the run or checkpoint whose weights it belongs to"),
    CFG_INT (A, context, "context", "0", 0, 1 << 24, "tokens in a sequence; 0: the model's, but 2048 at most where positions are not learned"),
    CFG_REAL(A, rope_theta, "rope-theta", "0", 0, 1e12, "base of the rotary frequencies; 0: as config.json says"),
    CFG_ONE_OF(A, nonfinite, "nonfinite", "refuse", "refuse|warn", "weights that are NaN or infinite"),
    { .name = NULL },
};
#undef A
/* clang-format on */

static void help(FILE *out)
{
    fputs(
        "usage: kilorank import HF_DIR -o DIR [--context N] [--set "
        "section.key=value]...\n\n"
        "Make run DIR from a model of Hugging Face's: config.json and safetensors (one\n"
        "file or shards) of the families " FAMILY_CHOICES ".\n"
        "Every tensor is accounted for; a table says what became of them.  An adapter\n"
        "(LoRA) in PEFT's format becomes a run beside the model that it belongs to.\n\n"
        "  kilorank import models/bloom-560m -o runs/bloom\n"
        "  kilorank prepare mine.jsonl --tokenizer runs/bloom/hf/tokenizer.json -o mine\n"
        "  kilorank train --run runs/bloom --set data.train=mine.bin\n"
        "  kilorank import adapters/mine --base runs/bloom -o runs/mine\n\nOptions:\n",
        out);
    cfg_help(import_options, out);
}

/* ---- settings --------------------------------------------------------------------------- */

kr_status import_check_ranges(const struct import *m)
{
    struct settings read;
    char *text = cfg_print(settings_table, &m->set);
    kr_status st;

    if (!text) return KR_FAIL(KR_ERR_MEM, "no memory for the settings");
    st = cfg_defaults(settings_table, &read);
    if (st == KR_OK) st = cfg_read_text(settings_table, &read, text, m->from);
    mem_free(text);
    return st;
}

/* Smaller steps than a new one. */
void import_set_training(struct settings *s)
{
    s->train[0] = '\0';
    s->batch = 8;
    s->micro_batch = 1;
    s->lr = 2e-5;
    s->min_lr = 2e-6;
    s->warmup = 10;
}

/* The run speaks with the tokenizer that came along, if it is of the kind known here. */
static kr_status set_tokenizer(const struct import *m, struct settings *s)
{
    char path[FS_PATH];

    TRY(fs_path(path, "%s/tokenizer.json", m->from));
    if (!fs_exists(path)) return KR_OK;
    TRY(fs_path(path, "%s/tokenizer.json", m->args->output));
    if (strlen(path) < sizeof s->tokenizer) strcpy(s->tokenizer, path);
    return KR_OK;
}

/* ChatGLM2 had rope_ratio first, with another meaning; no key of config.json tells which. */
static void tell_ratio(const struct settings *s)
{
    double ratio = s->rope_theta / 1e4;

    if (s->family == FAMILY_CHATGLM && ratio != 1)
        LOG_WARNING("rope_ratio %g multiplies the base of the rotary frequencies, as in "
                    "ChatGLM3 and glm-4; if this is a ChatGLM2: --rope-theta 1e4 --set "
                    "model.rope_scaling=linear --set model.rope_factor=%g",
                    ratio, ratio);
}

static kr_status read_settings(struct import *m)
{
    struct settings *s = &m->set;
    bool learned;

    TRY(cfg_defaults(settings_table, s));
    TRY(hf_config_read(m->from, s));
    import_set_training(s);
    TRY(set_tokenizer(m, s));
    for (int i = 0; i < m->options->set_count; i++)
        TRY(cfg_set(settings_table, s, m->options->sets[i], "--set"));
    learned = families[s->family].pos == POS_LEARNED;
    if (m->args->context && learned && m->args->context != s->context)
        return KR_FAIL(KR_ERR_ARG,
                       "--context %" PRId64 ": this model has %" PRId64
                       " learned positions",
                       m->args->context, s->context);
    if (m->args->context)
        s->context = m->args->context;
    else if (!learned && s->context > CONTEXT)
        s->context = CONTEXT;
    if (m->args->rope_theta > 0)
        s->rope_theta = m->args->rope_theta;
    else
        tell_ratio(s);
    TRY(import_check_ranges(m));
    TRY(settings_check(s, 1));
    settings_shape(s, &m->shape);
    return params_build(&m->params, &m->shape);
}

/* ---- every tensor is accounted for -------------------------------------------------------- */

static bool has_shape(const struct st_tensor *t, const struct hf_entry *e)
{
    return t->dims == e->dims && t->shape[0] == e->shape[0] &&
           (t->dims < 2 || t->shape[1] == e->shape[1]);
}

static kr_status check_entry(const struct import *m, const struct hf_entry *e)
{
    const struct st_file *file;
    const struct st_tensor *t = st_folder_find(&m->stored, e->name, &file);
    char want[HF_SHAPE_TEXT];

    if (!t && e->copy) return KR_OK;
    if (!t) return KR_FAIL(KR_ERR_DATA, "%s: has no tensor %s", m->from, e->name);
    if (t->type >= ST_FLOATS)
        return KR_FAIL(KR_ERR_DATA, "%s: %s: dtype %s is not supported", file->path,
                       t->name, st_type_name(t->type));
    if (has_shape(t, e)) return KR_OK;
    return KR_FAIL(KR_ERR_DATA, "%s: %s: its shape is not %s, which %s asks for",
                   file->path, t->name, hf_shape_text(e, want),
                   m->adapter ? HF_ADAPTER_CONFIG : "config.json");
}

static kr_status check_nothing_else(const struct import *m)
{
    for (int32_t f = 0; f < m->stored.count; f++)
        for (int32_t i = 0; i < m->stored.files[f].header.count; i++) {
            const char *name = m->stored.files[f].header.list[i].name;

            if (!hf_plan_find(&m->plan, name) && !hf_is_buffer(name))
                return KR_FAIL(KR_ERR_DATA, "%s: %s: no such tensor is in this %s",
                               m->stored.files[f].path, name,
                               m->adapter ? "adapter" : "model");
        }
    return KR_OK;
}

static kr_status make_plan(struct import *m)
{
    const struct hf_family *f = &hf_families[m->set.family];
    const struct st_file *file;

    TRY(st_folder_open(&m->stored, m->from));
    m->prefix = !st_folder_find(&m->stored, f->tensors[0].theirs, &file);
    return hf_plan_build(&m->plan, m->set.family, &m->params, &m->shape, m->prefix);
}

static kr_status check_tensors(const struct import *m)
{
    for (int32_t i = 0; i < m->plan.count; i++)
        TRY(check_entry(m, &m->plan.list[i]));
    return check_nothing_else(m);
}

/* ---- weights ---------------------------------------------------------------------------- */

static int64_t count_nonfinite(const float *x, int64_t n)
{
    int64_t bad = 0;

    for (int64_t i = 0; i < n; i++)
        bad += !isfinite(x[i]);
    return bad;
}

static kr_status tell_nonfinite(const struct import *m, const char *name, int64_t count)
{
    if (count == 0) return KR_OK;
    if (m->args->nonfinite == REFUSE)
        return KR_FAIL(KR_ERR_DATA,
                       "%s: %s: %" PRId64
                       " numbers are NaN or infinite; --nonfinite warn takes them",
                       m->from, name, count);
    LOG_WARNING("%s: %" PRId64 " numbers are NaN or infinite", name, count);
    return KR_OK;
}

/* Elements `at` .. of a stored tensor, to their places in the whole parameter; or, of a
 * copy, compared with what is there. */
static bool place_piece(const struct hf_entry *e, int64_t at, const float *x, int64_t n,
                        float *whole)
{
    float *lines = whole + e->first * e->width;

    for (int64_t done = 0; done < n;) {
        struct hf_run run = hf_entry_run(e, at + done, n - done);
        float *to = lines + run.base;

        for (int64_t i = 0; i < run.count; i++) {
            if (e->copy && memcmp(&to[i * run.stride], &x[done + i], sizeof *x) != 0)
                return false;
            to[i * run.stride] = x[done + i];
        }
        done += run.count;
    }
    return true;
}

static kr_status read_entry(struct import *m, const struct hf_entry *e)
{
    const struct st_file *file;
    const struct st_tensor *t = st_folder_find(&m->stored, e->name, &file);
    int64_t total = hf_entry_elements(e), bad = 0;

    if (!t) return KR_OK; /* a copy that is not there */
    for (int64_t at = 0; at < total; at += PIECE) {
        int64_t n = total - at < PIECE ? total - at : PIECE;

        TRY(st_read(file, t, at, n, m->piece));
        bad += count_nonfinite(m->piece, n);
        if (!place_piece(e, at, m->piece, n, m->whole))
            return KR_FAIL(KR_ERR_DATA,
                           "%s: %s: tie_word_embeddings is true, but it is not %s",
                           file->path, e->name, "the token embedding");
    }
    return tell_nonfinite(m, e->name, bad);
}

/* What the checkpoint asks for. */
static kr_status make_param(void *self, int32_t i, const char **bytes)
{
    struct import *m = self;

    for (int32_t k = m->plan.first[m->params.first + i]; k >= 0; k = m->plan.list[k].next)
        TRY(read_entry(m, &m->plan.list[k]));
    *bytes = (const char *)m->whole;
    return KR_OK;
}

static kr_status open_buffers(struct import *m)
{
    int64_t most = 0;

    for (int32_t i = m->params.first; i < m->params.count; i++) {
        int64_t n = m->params.list[i].rows * m->params.list[i].cols;

        if (n > most) most = n;
    }
    TRY(mem_alloc(&m->piece, PIECE, sizeof *m->piece, "part of a tensor"));
    return mem_alloc(&m->whole, (size_t)most, sizeof *m->whole, "the largest parameter");
}

/* ---- files ------------------------------------------------------------------------------ */

static kr_status write_checkpoint(struct import *m)
{
    struct hf_checkpoint k = { m->out.partial, &m->set, &m->params, make_param, m };

    return hf_checkpoint_write(&k);
}

static kr_status write_settings(const struct import *m)
{
    char path[FS_PATH], *text = cfg_print(settings_table, &m->set);
    kr_status st;

    if (!text) return KR_FAIL(KR_ERR_MEM, "no memory for the settings");
    st = fs_path(path, "%s/config.ini", m->out.partial);
    if (st == KR_OK) st = fs_replace(path, text, strlen(text));
    mem_free(text);
    return st;
}

/* What an export needs to write the folder that was read. */
static kr_status write_origin(const struct import *m)
{
    char path[FS_PATH];
    bool there;

    TRY(hf_output_copy(m->from, m->out.partial, "tokenizer.json", &there));
    TRY(fs_path(path, "%s/hf", m->out.partial));
    TRY(hf_origin_save(path, m->from, &m->plan, &m->stored));
    return fs_fsync_dir(path);
}

/* ---- the command ------------------------------------------------------------------------ */

static void print_model(const struct import *m)
{
    const struct model_shape *s = &m->shape;

    printf("\n%s: %" PRId64 " layers, dim %" PRId64 ", %" PRId64 "/%" PRId64
           " heads of %" PRId64 ", ffn %" PRId64 ", vocab %" PRId64 ", context %" PRId64
           ", norm_eps %g%s\n",
           s->family->name, s->layers, s->dim, s->heads, s->kv_heads, s->head_dim, s->ffn,
           s->vocab, s->context, model_norm_eps(s), model_tied(s) ? ", tied" : "");
    if (s->family->pos == POS_ROPE)
        printf("rotary positions: %" PRId64 " of %" PRId64
               " channels, rope_theta %.17g, stretched by %g\n",
               model_rope_dims(s), s->head_dim, s->rope_theta, s->rope_scaling.factor);
    printf("%" PRId64 " parameters, in fp32, from %d file%s: %s\n", m->params.total,
           m->stored.count, m->stored.count == 1 ? "" : "s", m->args->output);
}

static void print_table(const struct import *m)
{
    hf_table_print(&m->plan, &m->stored,
                   m->prefix ? hf_families[m->set.family].prefix : "");
    print_model(m);
}

static kr_status import_folder(struct import *m)
{
    kr_status st;

    TRY(m->adapter ? import_adapter_settings(m) : read_settings(m));
    TRY(m->adapter ? import_adapter_plan(m) : make_plan(m));
    TRY(check_tensors(m));
    TRY(open_buffers(m));
    TRY(hf_output_begin(&m->out, m->args->output,
                        (uint64_t)m->params.trained * sizeof(float) / 50 * 51));
    st = write_checkpoint(m);
    if (st == KR_OK) st = write_settings(m);
    if (st == KR_OK) st = m->adapter ? import_adapter_rest(m) : write_origin(m);
    TRY(hf_output_end(&m->out, st));
    m->adapter ? import_adapter_print(m) : print_table(m);
    return KR_OK;
}

static void close_import(struct import *m)
{
    mem_free(m->whole);
    mem_free(m->piece);
    hf_plan_free(&m->plan);
    st_folder_close(&m->stored);
    params_free(&m->params);
}

/* What is wrong with the model is the caller's input. */
static int code_of(kr_status st)
{
    return st == KR_ERR_DATA ? EXIT_USAGE : exit_code_of(st);
}

int import_command(int argc, char **argv)
{
    struct import m = { 0 };
    struct import_args args;
    struct options o;
    kr_status st;

    if (options_read(argc, argv, import_options, &args, &o) != KR_OK) return EXIT_USAGE;
    if (o.help) {
        help(stdout);
        return EXIT_DONE;
    }
    if (!o.path || !args.output[0]) {
        (void)KR_FAIL(KR_ERR_ARG, "import: want HF_DIR and -o DIR");
        return EXIT_USAGE;
    }
    if (load_check_sets(o.sets, o.set_count, &m.set) != KR_OK) return EXIT_USAGE;
    m.from = o.path;
    m.args = &args;
    m.options = &o;
    m.adapter = hf_is_adapter(m.from);
    if (args.base[0] && !m.adapter) {
        (void)KR_FAIL(KR_ERR_ARG, "import: --base %s: %s has no " HF_ADAPTER_CONFIG,
                      args.base, m.from);
        return EXIT_USAGE;
    }
    st = import_folder(&m);
    close_import(&m);
    return code_of(st);
}
