/* step.c - one optimizer step. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "trainer/run/batch.h"
#include "trainer/run/exchange.h"
#include "trainer/run/lr.h"

/* Sequences of micro-batch number `leaf`; of -1, nothing that counts. */
static kr_status fill_batch(struct trainer *t, int64_t step, int64_t leaf, double *labels)
{
    const struct settings *s = &t->set;

    *labels = 0;
    for (int64_t i = 0; i < s->micro_batch; i++) {
        int64_t n = step * s->batch + leaf * s->micro_batch + i, here;
        struct dataset_row row = batch_row(t, i);

        if (leaf < 0) {
            batch_blank(t, i);
            continue;
        }
        TRY(dataset_sample(t->train, (uint64_t)s->data_seed, n, &row, &here));
        *labels += (double)here;
    }
    return KR_OK;
}

/* This rank's i-th micro-batch of a step: forward and backward. */
static kr_status train_leaf(struct trainer *t, int64_t step, int64_t i, double *loss,
                            double *labels)
{
    const struct settings *s = &t->set;
    double scale = 1.0 / (double)(s->batch * s->context);
    int64_t leaf = part_leaf(shard_deal((int)s->shard), settings_leaves(s),
                             comm_size(t->comm), comm_rank(t->comm), i);
    struct batch b;

    pulse_phase(t->pulse, PULSE_READING);
    TRY(fill_batch(t, step, leaf, labels));
    TRY(batch_upload(t, t->train, &b));
    shard_leaf(t->shard, i);
    pulse_phase(t->pulse, PULSE_COMPUTING);
    return model_train(t->model, shard_weights(t->shard), &b, scale, loss);
}

/* A view of n elements of an array, from element `first`. */
static struct kern_mat piece(void *array, int64_t first, int64_t n, enum kern_dtype type)
{
    if (!array) return kern_none;
    return kern_mat((char *)array + (size_t)first * kern_dtype_bytes(type), 1, n, type);
}

/* Rounding of a unit's moments: its elements are numbered as in its flat array. */
static struct kern_round moment_round(const struct settings *s, int unit, int64_t step,
                                      int64_t first)
{
    uint64_t key = shard_round_key((uint64_t)s->seed, step, unit, ROUND_MOMENTS);

    return (struct kern_round){ key, 0, first };
}

/* Where the run of parameters that begins with number i ends: they lie one behind the other
 * and decay alike, *count of them.  Gaps between them are zeros, which AdamW leaves alone. */
static int64_t run_end(const struct params *p, int32_t i, int32_t *count)
{
    const struct param *first = &p->list[i], *last = first;

    while (last + 1 < p->list + p->count && last[1].unit == first->unit &&
           last[1].decay == first->decay)
        last++;
    *count = (int32_t)(last - first) + 1;
    return last->offset + last->rows * last->cols;
}

/* AdamW on the own part of every run of parameters. */
static kr_status update(struct trainer *t, int64_t step, const struct kern_adamw *p)
{
    enum kern_dtype type = kern_device_type(t->device),
                    wide = kern_device_wide(t->device);
    int count;
    const struct shard_own *own = shard_own(t->shard, &count);

    for (int32_t i = t->params.first, more; i < t->params.count; i += more) {
        const struct param *par = &t->params.list[i];
        const struct shard_own *o = &own[par->unit];
        struct span here = { par->offset, run_end(&t->params, i, &more) };
        struct span both = part_meet(o->span, here);
        int64_t at = both.begin - o->span.begin, n = both.end - both.begin;
        struct kern_adamw mine = *p;

        if (n == 0) continue;
        if (!par->decay) mine.weight_decay = 0;
        mine.round = moment_round(&t->set, par->unit, step, both.begin);
        TRY(kern_adamw(t->q, piece(o->w, at, n, wide), piece(o->m, at, n, t->moments),
                       piece(o->v, at, n, t->moments), piece(o->g, at, n, t->grads),
                       piece(o->copy, at, n, type), &mine));
    }
    return KR_OK;
}

/* Gradients are those of the mean over batch * context places; `labels` of them count. */
static struct kern_adamw plan_update(const struct settings *s, int64_t step, double norm,
                                     double to_mean)
{
    double clip = s->clip > 0 && norm > s->clip ? s->clip / norm : 1;

    return (struct kern_adamw){
        .lr = lr_at(s, step),
        .beta1 = s->beta1,
        .beta2 = s->beta2,
        .eps = s->eps,
        .weight_decay = s->weight_decay,
        .correct1 = 1 - pow(s->beta1, (double)(step + 1)),
        .correct2 = 1 - pow(s->beta2, (double)(step + 1)),
        .grad_scale = clip * to_mean,
    };
}

kr_status trainer_step(struct trainer *t, int64_t step, struct step_words words,
                       struct step_stats *stats, struct step_words *out)
{
    const struct settings *s = &t->set;
    int64_t turns = part_leaf_count(shard_deal((int)s->shard), settings_leaves(s),
                                    comm_size(t->comm), comm_rank(t->comm));
    double places = (double)(s->batch * s->context), to_mean, norm;
    struct exchange_sums sums;
    struct kern_adamw plan;
    double *labels = NULL;
    kr_status st;

    TRY(mem_alloc(&labels, (size_t)turns, sizeof *labels, "label counts"));
    t->step = step + 1;
    shard_begin(t->shard, step);
    for (int64_t i = 0; i < turns; i++)
        TRY_OR(st, train_leaf(t, step, i, t->loss + i, &labels[i]), done);
    pulse_phase(t->pulse, PULSE_REDUCING);
    TRY_OR(st, shard_finish(t->shard), done);
    TRY_OR(st, exchange(t, labels, words, true, &sums, out), done);
    to_mean = places / sums.labels;
    norm = sqrt(sums.squares) * to_mean;
    *stats = (struct step_stats){ sums.loss / sums.labels, norm, lr_at(s, step),
                                  s->batch * s->context };
    st = isfinite(sums.loss) && isfinite(norm) ? KR_OK : KR_ERR_NUMERIC;
    if (st != KR_OK) goto done;
    pulse_phase(t->pulse, PULSE_UPDATING);
    if (t->hold) TRY_OR(st, t->hold(t->holder, t->q), done);
    plan = plan_update(s, step, norm, to_mean);
    TRY_OR(st, update(t, step, &plan), done);
    TRY_OR(st, shard_publish(t->shard, false), done);
done:
    mem_free(labels);
    return st;
}
