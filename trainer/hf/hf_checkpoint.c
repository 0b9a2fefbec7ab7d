/* hf_checkpoint.c - one shard, one process, no MPI: the modules that training writes with. */
#include "trainer/hf/hf_checkpoint.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "checkpoints/commit.h"
#include "checkpoints/shard_read.h"
#include "checkpoints/shard_write.h"
#include "trainer/run/commands.h"

/* Ranges of whole parameters, in one shard. */
static kr_status plan_shard(const struct hf_checkpoint *k, struct commit_job *c,
                            struct shard_job *s)
{
    int32_t first = k->params->first, count = k->params->count - first;
    struct manifest *mf = &c->manifest;

    TRY(mem_alloc(&mf->tensors, (size_t)count, sizeof *mf->tensors, "tensors"));
    TRY(mem_alloc(&s->ranges, (size_t)count, sizeof *s->ranges, "ranges"));
    for (int32_t i = 0; i < count; i++) {
        const struct param *p = &k->params->list[first + i];

        snprintf(mf->tensors[i].name, sizeof mf->tensors[i].name, "weight/%s", p->name);
        mf->tensors[i].rows = p->rows;
        mf->tensors[i].cols = p->cols;
        mf->tensors[i].type = KERN_F32;
        s->ranges[i] = (struct ckpt_range){ .tensor = i, .count = p->rows * p->cols };
    }
    mf->tensor_count = s->count = count;
    s->tensors = mf->tensors;
    s->ask = k->ask;
    s->self = k->self;
    snprintf(s->shard.file, sizeof s->shard.file, "shard-00000.h5");
    return fs_path(s->path, "%s/%s", c->attempt, s->shard.file);
}

static kr_status plan_commit(const struct hf_checkpoint *k, struct commit_job *c)
{
    c->manifest = (struct manifest){ .world = 1 };
    TRY(fs_path(c->run, "%s", k->run));
    TRY(fs_path(c->attempt, "%s/checkpoints/.attempt-import", k->run));
    TRY(fs_path(c->final, "%s/checkpoints/step-00000000", k->run));
    TRY(fs_mkdirs(c->attempt));
    TRY(lease_take(&c->lease, c->run, 0));
    c->manifest.generation = lease_generation(c->lease);
    TRY(commit_place(c));
    c->manifest.settings = cfg_print(settings_table, k->set);
    TRY(mem_alloc(&c->manifest.about, strlen(about_program) + 1, 1, "settings"));
    strcpy(c->manifest.about, about_program);
    return c->manifest.settings ? KR_OK
                                : KR_FAIL(KR_ERR_MEM, "no memory for the settings");
}

static kr_status write_and_verify(struct commit_job *c, struct shard_job *s)
{
    struct manifest read;
    char *part = NULL;
    kr_status st;

    TRY(shard_write(s));
    TRY(shard_part_print(s, &part));
    st = shard_parts_join(part, 1, &c->manifest);
    mem_free(part);
    if (st == KR_OK) st = commit(c);
    if (st == KR_OK) st = manifest_read(&read, c->place);
    if (st != KR_OK) return st;
    st = shard_verify(&read, c->place, 0);
    manifest_free(&read);
    return st;
}

kr_status hf_checkpoint_write(const struct hf_checkpoint *k)
{
    struct commit_job c = { .lease = NULL };
    struct shard_job s = { .count = 0 };
    kr_status st;

    st = plan_commit(k, &c);
    if (st == KR_OK) st = plan_shard(k, &c, &s);
    if (st == KR_OK) st = write_and_verify(&c, &s);
    lease_give_back(c.lease);
    for (int32_t i = 0; s.ranges && i < s.count; i++)
        mem_free(s.ranges[i].blocks);
    mem_free(s.ranges);
    manifest_free(&c.manifest);
    return st;
}
