/*
 * hf_export.c - `export`: a checkpoint to a folder that other programs load.
 *
 * Tensors are made one after the other while the files are written: of those that lie as
 * ours only their lines are read, of others the whole parameter, so memory holds the
 * largest of them and a little more.  An imported run gives back the names, types and
 * small files that it came with.  Adapters are merged into the weights, or, with --adapter,
 * written alone as PEFT has them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/options.h"
#include "checkpoints/catalog.h"
#include "scheduler/exitcode.h"
#include "trainer/hf/hf_adapter.h"
#include "trainer/hf/hf_config.h"
#include "trainer/hf/hf_origin.h"
#include "trainer/hf/hf_output.h"
#include "trainer/hf/hf_speech.h"
#include "trainer/hf/hf_weights.h"
#include "trainer/run/commands.h"
#include "trainer/run/load.h"
#include "trainer/run/origin.h"

enum { PIECE = 1 << 20 /* elements written at a time */, HEADER_ROOM = 1 << 20 };
enum { AS_IMPORTED, FP32, BF16, FP16 };

struct export_args {
    char output[FS_PATH], like[FS_PATH];
    int dtype;
    int64_t shard_size;
    bool adapter;
};

/* clang-format off */
#define A struct export_args
static const struct cfg_field export_options[] = {
    CFG_TEXT  (A, output, "output", "", "the folder to make (also: -o)"),
    CFG_ONE_OF(A, dtype, "dtype", "imported", "imported|fp32|bf16|fp16", "of the weights; imported: as each was read, else fp32"),
    CFG_INT   (A, shard_size, "shard-size", "5000", 1, 1e9, "most MB (10^6 bytes) of a file of weights"),
    CFG_TEXT  (A, like, "like", "", "an imported run whose names, types and small files are taken; empty: the run's own"),
    CFG_FLAG  (A, adapter, "adapter", "false", "only the adapters (lora.rank), in PEFT's format; false: merged into the weights"),
    { .name = NULL },
};
#undef A
/* clang-format on */

static void help(FILE *out)
{
    fputs("usage: kilorank export DIR -o HF_DIR [--dtype bf16] ...\n\n"
          "Write the newest valid checkpoint of run DIR, or checkpoint DIR, as a folder\n"
          "that transformers and serving engines load: safetensors, config.json,\n"
          "generation_config.json, and the tokenizer with its chat template.\n\n"
          "  kilorank export runs/bloom -o models/mine --dtype bf16\n"
          "  kilorank export runs/lora -o adapters/mine --adapter\n\nOptions:\n",
          out);
    cfg_help(export_options, out);
}

struct export
{
    const struct export_args *args;
    char folder[FS_PATH];      /* the checkpoint */
    char origin_path[FS_PATH]; /* empty: there is none */
    struct hf_weights w;
    struct hf_origin origin;
    struct hf_plan plan;
    struct st_header *shards; /* of each file to write */
    int32_t shard_count;
    struct hf_output out;
    float *whole, *piece; /* lines of a parameter; part of a stored tensor */
};

/* ---- the checkpoint --------------------------------------------------------------------- */

static kr_status find_newest(struct export *x, const char *run)
{
    struct catalog c;
    kr_status st = KR_OK;

    TRY(catalog_open(&c, run));
    if (c.count == 0)
        st = KR_FAIL(KR_ERR_ARG, "%s: no checkpoint there", run);
    else if (c.valid == 0)
        st = KR_FAIL(KR_ERR_NO_CKPT, "%s: no checkpoint of it is valid", run);
    else
        st = fs_path(x->folder, "%s", c.list[0].path);
    catalog_close(&c);
    return st;
}

/* Of --like or of the run that the checkpoint belongs to. */
static kr_status find_origin(struct export *x)
{
    const char *like = x->args->like;

    if (origin_find(like[0] ? like : x->folder, x->origin_path))
        return hf_origin_open(&x->origin, x->origin_path);
    if (like[0]) return KR_FAIL(KR_ERR_ARG, "--like %s: is no imported run", like);
    x->origin_path[0] = '\0';
    return KR_OK;
}

/* DIR is a checkpoint or a run. */
static kr_status find_checkpoint(struct export *x, const char *dir)
{
    char path[FS_PATH];

    TRY(fs_path(path, "%s/manifest.json", dir));
    if (fs_exists(path))
        TRY(fs_path(x->folder, "%s", dir));
    else
        TRY(find_newest(x, dir));
    return find_origin(x);
}

/* ---- names and types --------------------------------------------------------------------- */

static int type_of(const struct export *x, const char *name)
{
    static const int types[] = { [FP32] = ST_F32, [BF16] = ST_BF16, [FP16] = ST_F16 };
    int kept = hf_origin_type(&x->origin, name);

    if (x->args->dtype != AS_IMPORTED) return types[x->args->dtype];
    return kept < 0 ? ST_F32 : kept;
}

/* Whether an origin has the names of this model, each of them, with this prefix. */
static const char *missing_name(const struct export *x, const struct hf_plan *p)
{
    for (int32_t i = 0; i < p->count; i++)
        if (!p->list[i].copy && hf_origin_type(&x->origin, p->list[i].name) < 0)
            return p->list[i].name;
    return NULL;
}

static kr_status plan_adapter(struct export *x)
{
    if (x->w.params.frozen == 0)
        return KR_FAIL(KR_ERR_ARG, "--adapter: %s has none (lora.rank = 0)", x->folder);
    return hf_adapter_plan(&x->plan, x->w.set.family, &x->w.params, &x->w.shape);
}

static kr_status make_plan(struct export *x)
{
    const char *first = hf_families[x->w.set.family].tensors[0].theirs, *missing;
    bool prefix = hf_origin_type(&x->origin, first) < 0;

    TRY(hf_plan_build(&x->plan, x->w.set.family, &x->w.params, &x->w.shape, prefix));
    missing = x->origin_path[0] ? missing_name(x, &x->plan) : NULL;
    if (missing)
        return KR_FAIL(KR_ERR_DATA, "%s: is of another model: it has no %s",
                       x->origin_path, missing);
    return KR_OK;
}

/* A copy of the embedding is written if it was there. */
static bool is_written(const struct export *x, const struct hf_entry *e)
{
    return !e->copy || hf_origin_type(&x->origin, e->name) >= 0;
}

static void describe(const struct export *x, const struct hf_entry *e,
                     struct st_tensor *t)
{
    *t = (struct st_tensor){ .type = type_of(x, e->name), .dims = e->dims };
    strcpy(t->name, e->name);
    t->shape[0] = e->shape[0];
    if (e->dims == 2) t->shape[1] = e->shape[1];
}

/* Fill files up to the limit, in the order of the plan; a tensor above it has its own. */
static kr_status make_shards(struct export *x)
{
    uint64_t most = (uint64_t)x->args->shard_size * 1000000, used = 0;
    size_t room = (size_t)x->plan.count;

    TRY(mem_alloc(&x->shards, room, sizeof *x->shards, "list of files"));
    for (int32_t i = 0; i < x->plan.count; i++) {
        struct st_tensor t;
        struct st_header *h;

        if (!is_written(x, &x->plan.list[i])) continue;
        describe(x, &x->plan.list[i], &t);
        if (x->shard_count == 0 || (used + st_bytes(&t) > most && !x->args->adapter)) {
            h = &x->shards[x->shard_count];
            TRY(mem_alloc(&h->list, room - (size_t)i, sizeof *h->list,
                          "list of tensors"));
            x->shard_count++;
            used = 0;
        }
        h = &x->shards[x->shard_count - 1];
        h->list[h->count++] = t;
        used += st_bytes(&t);
    }
    for (int32_t s = 0; s < x->shard_count; s++)
        st_header_lay_out(&x->shards[s]);
    return KR_OK;
}

static uint64_t bytes_of(const struct export *x)
{
    uint64_t bytes = HEADER_ROOM;

    for (int32_t s = 0; s < x->shard_count; s++)
        bytes += x->shards[s].bytes;
    return bytes;
}

/* ---- weights ---------------------------------------------------------------------------- */

static kr_status open_buffers(struct export *x)
{
    int64_t most = 0;

    for (int32_t i = 0; i < x->plan.count; i++)
        if (hf_entry_elements(&x->plan.list[i]) > most)
            most = hf_entry_elements(&x->plan.list[i]);
    TRY(mem_alloc(&x->whole, (size_t)most, sizeof *x->whole, "the largest tensor"));
    return mem_alloc(&x->piece, PIECE, sizeof *x->piece, "part of a tensor");
}

static void gather(const struct export *x, const struct hf_entry *e, int64_t at,
                   int64_t n)
{
    for (int64_t done = 0; done < n;) {
        struct hf_run run = hf_entry_run(e, at + done, n - done);

        for (int64_t i = 0; i < run.count; i++)
            x->piece[done + i] = x->whole[run.base + i * run.stride];
        done += run.count;
    }
}

static kr_status write_tensor(struct export *x, struct st_writer *w,
                              const struct st_tensor *t)
{
    const struct hf_entry *e = hf_plan_find(&x->plan, t->name);
    int64_t total = hf_entry_elements(e);

    TRY(hf_weights_read(&x->w, e, x->whole));
    for (int64_t at = 0; at < total; at += PIECE) {
        int64_t n = total - at < PIECE ? total - at : PIECE;

        gather(x, e, at, n);
        TRY(st_write(w, t->type, x->piece, n));
    }
    return KR_OK;
}

static void name_shard(const struct export *x, int32_t s, char out[ST_FILE_NAME])
{
    if (x->shard_count == 1)
        snprintf(out, ST_FILE_NAME, "%s",
                 x->args->adapter ? HF_ADAPTER_MODEL : ST_SINGLE);
    else
        snprintf(out, ST_FILE_NAME, "model-%05d-of-%05d.safetensors", s + 1,
                 x->shard_count);
}

static kr_status write_shard(struct export *x, int32_t s)
{
    char path[FS_PATH], name[ST_FILE_NAME];
    struct st_writer w;
    kr_status st = KR_OK;

    name_shard(x, s, name);
    TRY(fs_path(path, "%s/%s", x->out.partial, name));
    TRY(st_create(&w, path, &x->shards[s]));
    for (int32_t i = 0; i < x->shards[s].count && st == KR_OK; i++)
        st = write_tensor(x, &w, &x->shards[s].list[i]);
    return st_finish(&w, st);
}

/* ---- the other files --------------------------------------------------------------------- */

static kr_status put_text(const struct export *x, const char *name, const char *text)
{
    char path[FS_PATH];

    TRY(fs_path(path, "%s/%s", x->out.partial, name));
    return fs_replace(path, text, strlen(text));
}

static kr_status write_index(const struct export *x)
{
    struct mem_text t = { 0 };
    kr_status st;

    if (x->shard_count == 1) return KR_OK;
    mem_printf(&t,
               "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64
               "\n  },\n  \"weight_map\": {",
               bytes_of(x) - HEADER_ROOM);
    for (int32_t s = 0; s < x->shard_count; s++)
        for (int32_t i = 0; i < x->shards[s].count; i++) {
            char file[ST_FILE_NAME];

            name_shard(x, s, file);
            mem_printf(&t, "%s\n    \"%s\": \"%s\"", s || i ? "," : "",
                       x->shards[s].list[i].name, file);
        }
    mem_printf(&t, "\n  }\n}\n");
    st = t.failed ? KR_FAIL(KR_ERR_MEM, "no memory for the index")
                  : put_text(x, ST_INDEX, t.at);
    mem_text_free(&t);
    return st;
}

/* The name that transformers has for the type of the first tensor. */
static const char *torch_name(const struct export *x)
{
    static const char *const names[] = { "float64", "float32", "float16", "bfloat16" };

    return names[type_of(x, x->plan.list[0].name)];
}

/* The origin's config.json must be that of this model: training changes no sizes. */
static kr_status check_config(const struct export *x)
{
    struct settings theirs = x->w.set;

    TRY(hf_config_read(x->origin_path, &theirs));
    theirs.context = x->w.set.context;
    theirs.rope_theta = x->w.set.rope_theta; /* import may have been told another, */
    if (x->w.set.family == FAMILY_CHATGLM) { /* and what a ratio means */
        theirs.rope_scaling = x->w.set.rope_scaling;
        theirs.rope_factor = x->w.set.rope_factor;
    }
    if (cfg_diff(settings_table, &x->w.set, &theirs, x->folder, x->origin_path,
                 "the origin is of another model") == 0)
        return KR_OK;
    return KR_ERR_ARG;
}

static kr_status write_config(const struct export *x)
{
    char *text = NULL;
    kr_status st;

    if (x->origin_path[0]) {
        TRY(check_config(x));
        TRY(hf_config_copy(x->origin_path, torch_name(x), &text));
    } else {
        TRY(hf_config_print(&x->w.set, torch_name(x), &text));
    }
    st = put_text(x, "config.json", text);
    mem_free(text);
    return st;
}

/* The model is called as its folder here: PEFT is given one when it loads. */
static kr_status write_adapter_config(const struct export *x)
{
    char *text = NULL;
    kr_status st;

    TRY(hf_adapter_print(x->w.set.family, &x->w.shape.lora, x->w.set.init, &text));
    st = put_text(x, HF_ADAPTER_CONFIG, text);
    mem_free(text);
    return st;
}

/* Small files of the origin, or of what a run here learnt to speak with. */
static kr_status write_speech(const struct export *x)
{
    char path[FS_PATH];

    if (!x->origin_path[0]) return hf_speech_write(x->out.partial, x->folder, &x->w.set);
    TRY(hf_origin_carry(x->origin_path, x->out.partial));
    TRY(fs_path(path, "%s/generation_config.json", x->out.partial));
    if (fs_exists(path)) return KR_OK;
    return put_text(x, "generation_config.json",
                    "{\n  \"_from_model_config\": true\n}\n");
}

static kr_status write_others(const struct export *x)
{
    if (x->args->adapter) return write_adapter_config(x);
    TRY(write_index(x));
    TRY(write_config(x));
    return write_speech(x);
}

/* ---- the command ------------------------------------------------------------------------ */

static kr_status write_all(struct export *x)
{
    for (int32_t s = 0; s < x->shard_count; s++)
        TRY(write_shard(x, s));
    return write_others(x);
}

static kr_status export_model(struct export *x, const struct options *o)
{
    int32_t tensors = 0;

    TRY(find_checkpoint(x, o->path));
    TRY(hf_weights_open(&x->w, x->folder, o));
    TRY(x->args->adapter ? plan_adapter(x) : make_plan(x));
    TRY(make_shards(x));
    TRY(open_buffers(x));
    TRY(hf_output_begin(&x->out, x->args->output, bytes_of(x)));
    TRY(hf_output_end(&x->out, write_all(x)));
    for (int32_t s = 0; s < x->shard_count; s++)
        tensors += x->shards[s].count;
    printf("%s: %s of step %" PRId64 ", %d tensors in %d file%s, %.1f MB%s\n",
           x->args->output, x->w.shape.family->name, x->w.own.m.step, tensors,
           x->shard_count, x->shard_count == 1 ? "" : "s",
           (double)(bytes_of(x) - HEADER_ROOM) / 1e6,
           x->args->adapter    ? ", adapters alone"
           : x->origin_path[0] ? ", with the files of its origin"
                               : "");
    return KR_OK;
}

static void close_export(struct export *x)
{
    for (int32_t s = 0; s < x->shard_count; s++)
        st_header_free(&x->shards[s]);
    mem_free(x->shards);
    mem_free(x->whole);
    mem_free(x->piece);
    hf_plan_free(&x->plan);
    hf_origin_close(&x->origin);
    hf_weights_close(&x->w);
}

int export_command(int argc, char **argv)
{
    struct export x = { 0 };
    struct export_args args;
    struct settings set;
    struct options o;
    kr_status st;

    if (options_read(argc, argv, export_options, &args, &o) != KR_OK) return EXIT_USAGE;
    if (o.help) {
        help(stdout);
        return EXIT_DONE;
    }
    if (!o.path || !args.output[0]) {
        (void)KR_FAIL(KR_ERR_ARG, "export: want DIR and -o HF_DIR");
        return EXIT_USAGE;
    }
    /* train.init matters beside adapters, and KILORANK_DEVICE comes as one */
    if (load_check_sets(o.sets, o.set_count, &set) != KR_OK) return EXIT_USAGE;
    x.args = &args;
    st = export_model(&x, &o);
    close_export(&x);
    return st == KR_ERR_DATA ? EXIT_NO_CHECKPOINT : exit_code_of(st);
}
