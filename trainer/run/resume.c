/* resume.c - try checkpoints from the newest on. */
#include "trainer/run/resume.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

enum { ROWS = 128 /* more than settings_table has */ };

static kr_status parse(const struct ckpt_info *info, struct settings *out)
{
    TRY(cfg_defaults(settings_table, out));
    return cfg_read_text(settings_table, out, info->settings, info->path);
}

/* The rows that bind a run that goes on from a checkpoint.  Before the first step only the
 * model is there: no sample was seen, no length of them is part of it. */
static void binding_rows(int64_t step, struct cfg_field out[ROWS])
{
    int n = 0;

    for (const struct cfg_field *f = settings_table; f->name && n < ROWS - 1; f++)
        if (step > 0 || strncmp(f->name, "lora.", 5) == 0 ||
            (strncmp(f->name, "model.", 6) == 0 && strcmp(f->name, "model.context") != 0))
            out[n++] = *f;
    out[n] = (struct cfg_field){ .name = NULL };
}

/* Rank 0 compares, so that the differences are told once. */
static kr_status same_settings(const struct trainer *t, const struct ckpt_info *info)
{
    struct cfg_field rows[ROWS];
    struct settings theirs;
    kr_status st = KR_OK;

    if (comm_rank(t->comm) == 0) {
        binding_rows(info->step, rows);
        st = parse(info, &theirs);
        if (st == KR_OK &&
            cfg_diff_fixed(rows, &theirs, &t->set, info->path, "these settings") > 0)
            st = KR_ERR_ARG;
    }
    return comm_agree(t->comm, st);
}

static kr_status clear_piece(struct trainer *t, const struct ckpt_tensor *tensor,
                             const struct ckpt_piece *p)
{
    static const char zeros[1 << 16];
    size_t bytes = (size_t)p->count * kern_dtype_bytes(tensor->type);

    for (size_t at = 0; at < bytes; at += sizeof zeros)
        TRY(kern_upload(t->q, (char *)p->at + at, zeros,
                        bytes - at < sizeof zeros ? bytes - at : sizeof zeros));
    return KR_OK;
}

/* A checkpoint of step 0 holds weights alone: the moments are what they are before any
 * step, also if an attempt to load a newer one has left something there. */
static kr_status read_first(struct ckpt *k, struct trainer *t, const struct state *s)
{
    struct ckpt_state weights = s->view;

    weights.tensor_count = t->params.count - t->params.first;
    weights.piece_count = 0;
    for (int32_t i = 0; i < s->view.piece_count; i++) {
        const struct ckpt_piece *p = &s->pieces[i];

        if (p->tensor < weights.tensor_count)
            weights.piece_count++;
        else
            TRY(clear_piece(t, &s->tensors[p->tensor], p));
    }
    return ckpt_read(k, t->q, &weights);
}

/* Load what ckpt_next found. */
static kr_status load(struct ckpt *k, struct trainer *t, const struct state *s,
                      const struct ckpt_info *info)
{
    TRY(same_settings(t, info));
    TRY(info->step > 0 ? ckpt_read(k, t->q, &s->view) : read_first(k, t, s));
    return shard_publish(t->shard, true);
}

/* A new run that starts from the weights of another. */
static kr_status init_from(struct trainer *t)
{
    struct ckpt_config config = { .run = t->set.init, .keep = 1, .read_only = true };
    struct settings theirs;
    struct ckpt_info info = { 0 };
    struct state weights = { 0 };
    struct ckpt *k = NULL;
    kr_status st;

    TRY_OR(st, ckpt_open(&k, t->comm, &config), done);
    TRY_OR(st, resume_settings(k, t->comm, t->set.init, &info, &theirs), done);
    TRY_OR(st, comm_agree(t->comm, state_open_weights(&weights, t)), done);
    TRY_OR(st, ckpt_read(k, t->q, &weights.view), done);
    if (comm_rank(t->comm) == 0)
        LOG_NOTE("weights of %s, step %" PRId64, info.path, info.step);
    st = shard_publish(t->shard, true);
done:
    mem_free(info.settings);
    state_close(&weights);
    ckpt_close(k);
    return st;
}

/* ---- memory ------------------------------------------------------------------------ */

static void say_why_not(const struct snapshot_found *f, int64_t disk)
{
    if (f->seen > disk)
        LOG_WARNING("the snapshot of step %" PRId64
                    " in node memory is not whole: parts of "
                    "%d ranks are lost",
                    f->seen, f->lost);
    else if (f->seen < 0 && f->was_on)
        LOG_WARNING("the nodes hold no snapshot of this run in memory any more");
}

/* From a whole snapshot later than checkpoint `disk`.  *used: it was, and is loaded. */
static kr_status from_memory(struct snapshot *m, struct trainer *t,
                             const struct ckpt_info *disk, bool *used,
                             struct resumed *out)
{
    struct snapshot_found found;
    kr_status st;

    *used = false;
    TRY(snapshot_find(m, disk->step, disk->generation, &found));
    if (found.step < 0) {
        if (comm_rank(t->comm) == 0) say_why_not(&found, disk->step);
        return KR_OK;
    }
    st = snapshot_load(m, t->q);
    if (st == KR_ERR_DATA || st == KR_ERR_IO) {
        if (comm_rank(t->comm) == 0)
            LOG_WARNING("the snapshot of step %" PRId64 " cannot be loaded", found.step);
        return KR_OK;
    }
    if (st == KR_OK) st = shard_publish(t->shard, true);
    *used = st == KR_OK;
    *out =
        (struct resumed){ .step = found.step, .world = found.world, .from_memory = true };
    return st;
}

/* ---- disk -------------------------------------------------------------------------- */

/* From the checkpoint that was found, or the first good one before it. */
static kr_status from_disk(struct ckpt *k, struct trainer *t, const struct state *s,
                           struct ckpt_info *info, struct resumed *out)
{
    for (;;) {
        kr_status st;

        if (info->step < 0) {
            *out = (struct resumed){ .is_new = true };
            TRY(trainer_clear(t)); /* this may be no first start */
            return t->set.init[0] && !t->params.frozen ? init_from(t) : trainer_init(t);
        }
        st = load(k, t, s, info);
        mem_free(info->settings);
        info->settings = NULL;
        if (st == KR_OK) {
            *out = (struct resumed){ .step = info->step,
                                     .world = info->step > 0 ? info->world : 0 };
            return KR_OK;
        }
        if (st != KR_ERR_DATA && st != KR_ERR_IO) return st;
        if (comm_rank(t->comm) == 0)
            LOG_WARNING("%s is damaged; trying the one before", info->path);
        TRY(ckpt_next(k, info));
    }
}

kr_status resume(struct ckpt *k, struct snapshot *m, struct trainer *t,
                 const struct state *s, struct resumed *out)
{
    struct ckpt_info info = { .step = -1 };
    kr_status st = ckpt_next(k, &info), memory;
    bool used = false;

    if (m && (st == KR_OK || st == KR_ERR_NO_CKPT)) {
        memory = from_memory(m, t, &info, &used, out);
        if (used || memory != KR_OK) {
            mem_free(info.settings);
            return memory;
        }
    }
    return st == KR_OK ? from_disk(k, t, s, &info, out) : st;
}

kr_status resume_settings(struct ckpt *k, const struct comm *c, const char *path,
                          struct ckpt_info *info, struct settings *out)
{
    kr_status st;

    TRY(ckpt_next(k, info));
    if (info->step < 0)
        return comm_rank(c) ? KR_ERR_ARG
                            : KR_FAIL(KR_ERR_ARG, "%s: no checkpoint there", path);
    st = parse(info, out);
    if (st != KR_OK) mem_free(info->settings);
    return st;
}
