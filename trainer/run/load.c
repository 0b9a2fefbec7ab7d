/* load.c - settings from the checkpoint, weights into a trainer that does not train. */
#include "trainer/run/load.h"

#include <string.h>

#include "base/mem.h"
#include "trainer/run/base.h"
#include "trainer/run/resume.h"
#include "trainer/run/speech.h"

kr_status load_check_sets(char *const *sets, int set_count, struct settings *set)
{
    TRY(cfg_defaults(settings_table, set));
    for (int i = 0; i < set_count; i++) {
        TRY(cfg_set(settings_table, set, sets[i], "--set"));
        if (strncmp(sets[i] + strspn(sets[i], " "), "model.", 6) == 0 ||
            strncmp(sets[i] + strspn(sets[i], " "), "lora.", 5) == 0)
            return KR_FAIL(KR_ERR_ARG, "--set %s: the checkpoint says what model it is",
                           sets[i]);
    }
    return KR_OK;
}

static kr_status load_weights(struct loaded *l, struct comm *c, struct ckpt *k)
{
    struct state s = { 0 };
    kr_status st;

    l->set.shard = 1;
    TRY(settings_check_together(&l->set, c));
    TRY(comm_agree(c, trainer_open(&l->trainer, &l->set, c, false)));
    TRY_OR(st, base_load(&l->trainer), done);
    TRY_OR(st, comm_agree(c, state_open(&s, &l->trainer)), done);
    TRY_OR(st, ckpt_read(k, l->trainer.q, &s.view), done);
    st = shard_publish(l->trainer.shard, true);
done:
    state_close(&s);
    return st;
}

kr_status load_model(struct loaded *out, struct comm *c, const char *path,
                     char *const *sets, int set_count)
{
    struct ckpt_config config = { .run = path, .keep = 1, .read_only = true };
    struct ckpt_info info = { 0 };
    struct ckpt *k = NULL;
    kr_status st;

    TRY(ckpt_open(&k, c, &config));
    TRY_OR(st, resume_settings(k, c, path, &info, &out->set), done);
    out->step = info.step;
    TRY_OR(st, speech_find(&out->set, path), done);
    for (int i = 0; i < set_count; i++)
        TRY_OR(st, cfg_set(settings_table, &out->set, sets[i], "--set"), done);
    st = load_weights(out, c, k);
done:
    mem_free(info.settings);
    ckpt_close(k);
    return st;
}

void load_close(struct loaded *l) { trainer_close(&l->trainer); }
