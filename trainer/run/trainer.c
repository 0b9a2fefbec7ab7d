/* trainer.c - open, start values, close. */
#include "trainer/run/trainer.h"

#include <inttypes.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "trainer/run/exchange.h"

static int threads_of(const struct settings *set, const struct comm *c)
{
    return set->threads > 0 ? (int)set->threads : comm_threads(c);
}

/* Buffers of one micro-batch. */
static kr_status open_batch(struct trainer *t)
{
    size_t count = 3 * (size_t)t->rows;

    TRY(mem_alloc(&t->start_host, count + 1, sizeof(int32_t), "a batch of tokens"));
    TRY(kern_alloc(t->device, &t->start, count * sizeof(int32_t), "a batch of tokens"));
    t->label_host = t->start_host + t->rows;
    t->token_host = t->label_host + t->rows;
    t->label = t->start + t->rows;
    t->token = t->label + t->rows;
    return KR_OK;
}

static enum kern_dtype storage(const struct trainer *t, int setting)
{
    return setting == STORAGE_BF16 ? KERN_BF16 : kern_device_wide(t->device);
}

static kr_status open_shard(struct trainer *t)
{
    const struct settings *set = &t->set;
    struct shard_config config = { .stage = (int)set->shard,
                                   .canonical = set->reduce == REDUCE_CANONICAL,
                                   .train = t->training,
                                   .leaves = settings_leaves(set),
                                   .moments = storage(t, set->moments),
                                   .grads = storage(t, set->grads),
                                   .seed = (uint64_t)set->seed };

    t->moments = config.moments;
    t->grads = config.grads;
    return shard_open(&t->shard, &t->params, t->comm, t->q, &config);
}

kr_status trainer_open(struct trainer *t, const struct settings *set, struct comm *comm,
                       bool training)
{
    kr_status st = KR_OK;

    *t = (struct trainer){ .set = *set, .comm = comm, .training = training };
    settings_shape(set, &t->shape);
    t->rows = set->micro_batch * set->context;
    TRY_OR(st, fault_read(&t->fault), done);
    TRY_OR(st, params_build(&t->params, &t->shape), done);
    TRY_OR(st,
           kern_device_open(&t->device, settings_device(set), comm_gpu_rank(comm),
                            threads_of(set, comm)),
           done);
    TRY_OR(st, kern_device_matmul(t->device, (enum kern_matmul)set->matmul), done);
    TRY_OR(st, kern_device_hopper(t->device, (enum kern_hopper)set->hopper), done);
    TRY_OR(st, kern_queue_open(&t->q, t->device, KERN_QUEUE_COMPUTE), done);
    TRY_OR(st, comm_bind(comm, t->device), done);
    TRY_OR(st, open_shard(t), done);
    TRY_OR(st,
           model_open(&t->model, &t->shape, &t->params, t->q, set->micro_batch, training,
                      (enum model_recompute)set->recompute),
           done);
    TRY_OR(st, open_batch(t), done);
    TRY_OR(st, exchange_open(t), done);
done:
    if (st != KR_OK) trainer_close(t);
    return st;
}

void trainer_close(struct trainer *t)
{
    if (t->comm && comm_queue(t->comm)) (void)kern_queue_sync(comm_queue(t->comm));
    exchange_close(t);
    mem_free(t->start_host);
    if (t->device) kern_free(t->device, t->start);
    dataset_close(t->train);
    dataset_close(t->valid);
    model_close(t->model);
    shard_close(t->shard);
    kern_queue_close(t->q);
    if (t->comm) comm_unbind(t->comm);
    kern_device_close(t->device);
    params_free(&t->params);
    *t = (struct trainer){ 0 };
}

/* The one default that may be missing on a machine gets advice. */
static kr_status is_there(const char *path)
{
    static const char licences[] = "/usr/share/common-licenses";

    if (!path[0]) return KR_FAIL(KR_ERR_ARG, "data.train is empty");
    if (strcmp(path, licences) != 0 || fs_exists(path)) return KR_OK;
    return KR_FAIL(KR_ERR_ARG,
                   "%s: no such folder (the texts that a run without data.train learns "
                   "from); give your own: --set data.train=PATH",
                   path);
}

static kr_status open_set(struct trainer *t, struct dataset **out, const char *path,
                          enum tokens_part part)
{
    const struct settings *s = &t->set;
    struct dataset_config c = {
        .path = path,
        .part = part,
        .held_out = part == TOKENS_ALL ? 0 : s->held_out,
        .vocab = s->vocab,
        .context = s->context,
        .tokenizer = s->tokenizer,
        .template = s->template,
        .ignore = KERN_IGNORE,
    };

    return dataset_open(out, &c);
}

static kr_status open_valid(struct trainer *t, const char *path)
{
    return open_set(t, &t->valid, path, TOKENS_ALL);
}

static kr_status open_data(struct trainer *t, const char *unused)
{
    const struct settings *s = &t->set;
    bool split = s->valid[0] == '\0';

    (void)unused;
    TRY(is_there(s->train));
    TRY(open_set(t, &t->train, s->train, split ? TOKENS_TRAIN : TOKENS_ALL));
    if (split && s->held_out <= 0) return KR_OK;
    if (!split) return open_valid(t, s->valid);
    return open_set(t, &t->valid, s->train, TOKENS_HELD_OUT);
}

/* Rank 0 looks first, so that what all would say is said once. */
static kr_status first_then_all(struct trainer *t, const char *path,
                                kr_status (*open)(struct trainer *, const char *))
{
    bool first = comm_rank(t->comm) == 0;

    TRY(comm_agree(t->comm, first ? open(t, path) : KR_OK));
    return comm_agree(t->comm, first ? KR_OK : open(t, path));
}

kr_status trainer_open_data(struct trainer *t)
{
    return first_then_all(t, NULL, open_data);
}

kr_status trainer_open_valid(struct trainer *t, const char *path)
{
    return first_then_all(t, path, open_valid);
}

enum { INIT_BLOCK = 1 << 20, INIT_PIECE = 1 << 12 }; /* numbers: at a time, of a thread */

/* n start values of parameter i, from number `begin` of it: each depends on its number alone,
 * so threads share them out. */
static void start_values(const struct trainer *t, int32_t i, int64_t begin, int64_t n,
                         double *wide, float *narrow)
{
    const int threads = threads_of(&t->set, t->comm);

#pragma omp parallel for num_threads(threads) if (n > INIT_PIECE)
    for (int64_t at = 0; at < n; at += INIT_PIECE) {
        int64_t count = n - at < INIT_PIECE ? n - at : INIT_PIECE;

        params_init(&t->params, i, (uint64_t)t->set.seed, begin + at, count, wide + at);
        for (int64_t k = at; k < at + count; k++)
            narrow[k] = (float)wide[k];
    }
}

/* Start values of what own and parameter i share, written through a host buffer. */
static kr_status init_param(struct trainer *t, const struct shard_own *own, int32_t i,
                            double *wide, float *narrow)
{
    const struct param *p = &t->params.list[i];
    struct span here = { p->offset, p->offset + p->rows * p->cols };
    struct span both = part_meet(own->span, here);
    enum kern_dtype type = kern_device_wide(t->device);
    size_t elem = kern_dtype_bytes(type);

    for (int64_t at = both.begin; at < both.end; at += INIT_BLOCK) {
        int64_t n = both.end - at < INIT_BLOCK ? both.end - at : INIT_BLOCK;
        char *to = (char *)own->w + (size_t)(at - own->span.begin) * elem;

        start_values(t, i, at - p->offset, n, wide, narrow);
        TRY(kern_upload(t->q, to, type == KERN_F64 ? (void *)wide : (void *)narrow,
                        (size_t)n * elem));
    }
    return KR_OK;
}

kr_status trainer_clear(struct trainer *t)
{
    int count;
    const struct shard_own *own = shard_own(t->shard, &count);

    for (int i = t->params.frozen; i < count && t->training; i++) {
        int64_t n = own[i].span.end - own[i].span.begin;

        TRY(kern_fill(t->q, kern_mat(own[i].m, 1, n, t->moments), 0));
        TRY(kern_fill(t->q, kern_mat(own[i].v, 1, n, t->moments), 0));
    }
    return KR_OK;
}

kr_status trainer_init(struct trainer *t)
{
    int count;
    const struct shard_own *share = shard_share(t->shard, &count);
    double *wide = NULL;
    float *narrow = NULL;
    kr_status st = KR_OK;

    TRY_OR(st, mem_alloc(&wide, INIT_BLOCK, sizeof *wide, "start values"), done);
    TRY_OR(st, mem_alloc(&narrow, INIT_BLOCK, sizeof *narrow, "start values"), done);
    for (int32_t i = t->params.first; i < t->params.count; i++)
        TRY_OR(st, init_param(t, &share[t->params.list[i].unit], i, wide, narrow), done);
    st = shard_publish(t->shard, true);
done:
    mem_free(wide);
    mem_free(narrow);
    return st;
}
