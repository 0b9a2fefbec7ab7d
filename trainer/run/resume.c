/* resume.c - try checkpoints from the newest on. */
#include "trainer/run/resume.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/mem.h"

static kr_status parse(const struct ckpt_info *info, struct settings *out)
{
    TRY(cfg_defaults(settings_table, out));
    return cfg_read_text(settings_table, out, info->settings, info->path);
}

/* Rank 0 compares, so that the differences are told once. */
static kr_status same_settings(const struct trainer *t, const struct ckpt_info *info)
{
    struct settings theirs;
    kr_status st = KR_OK;

    if (comm_rank(t->comm) == 0) {
        st = parse(info, &theirs);
        if (st == KR_OK && cfg_diff_fixed(settings_table, &theirs, &t->set, info->path,
                                          "these settings") > 0)
            st = KR_ERR_ARG;
    }
    return comm_agree(t->comm, st);
}

/* Load what ckpt_next found. */
static kr_status load(struct ckpt *k, struct trainer *t, const struct state *s,
                      const struct ckpt_info *info)
{
    TRY(same_settings(t, info));
    TRY(ckpt_read(k, t->q, &s->view));
    return shard_publish(t->shard, true);
}

kr_status resume(struct ckpt *k, struct trainer *t, const struct state *s, int64_t *step)
{
    for (;;) {
        struct ckpt_info info;
        kr_status st;

        TRY(ckpt_next(k, &info));
        if (info.step < 0) {
            *step = 0;
            return trainer_init(t);
        }
        st = load(k, t, s, &info);
        mem_free(info.settings);
        if (st == KR_OK) {
            *step = info.step;
            return KR_OK;
        }
        if (st != KR_ERR_DATA && st != KR_ERR_IO) return st;
        if (comm_rank(t->comm) == 0)
            LOG_WARNING("%s is damaged; trying the one before", info.path);
    }
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
