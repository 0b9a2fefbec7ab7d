/*
 * eval.c - mean loss on data.
 *
 * Rows of the data follow each other without overlap from its start.  They are dealt
 * out in rounds that look like steps: each round has the micro-batches of one batch, so
 * the exchange and the order of its sums are those of training.
 */
#include "base/mem.h"
#include "trainer/run/batch.h"
#include "trainer/run/exchange.h"

/* The micro-batch that begins with this window; rows past the last one are blank. */
static kr_status load_leaf(struct trainer *t, const struct dataset *data, int64_t window,
                           int64_t windows, double *labels)
{
    *labels = 0;
    for (int64_t i = 0; i < t->set.micro_batch; i++) {
        struct dataset_row row = batch_row(t, i);
        int64_t here = 0;

        if (window + i < windows)
            TRY(dataset_window(data, window + i, &row, &here));
        else
            batch_blank(t, i);
        *labels += (double)here;
    }
    return KR_OK;
}

static kr_status eval_leaf(struct trainer *t, const struct dataset *data, double *loss)
{
    struct batch b;

    TRY(batch_upload(t, data, &b));
    shard_forward(t->shard);
    return model_eval(t->model, shard_weights(t->shard), &b, loss);
}

/* One round: windows round * batch ... */
static kr_status eval_round(struct trainer *t, const struct dataset *data, int64_t round,
                            int64_t windows, double *labels, struct exchange_sums *out)
{
    const struct settings *s = &t->set;
    enum part_deal deal = shard_deal((int)s->shard);
    int32_t size = comm_size(t->comm), rank = comm_rank(t->comm);
    int64_t leaves = settings_leaves(s);

    for (int64_t i = 0; i < part_leaf_count(deal, leaves, size, rank); i++) {
        int64_t leaf = part_leaf(deal, leaves, size, rank, i);
        int64_t window = leaf < 0 ? windows : round * s->batch + leaf * s->micro_batch;

        TRY(load_leaf(t, data, window, windows, &labels[i]));
        TRY(eval_leaf(t, data, t->loss + i));
    }
    return exchange(t, labels, (struct step_words){ 0 }, false, out, NULL);
}

kr_status trainer_eval(struct trainer *t, const struct dataset *data, int64_t batches,
                       double *loss, int64_t *tokens)
{
    int64_t windows = dataset_windows(data);
    int64_t rounds = (windows + t->set.batch - 1) / t->set.batch;
    double sum = 0, count = 0, *labels = NULL;
    kr_status st = KR_OK;

    if (batches > 0 && batches < rounds) rounds = batches;
    TRY(mem_alloc(&labels, (size_t)settings_leaves(&t->set), sizeof *labels, "labels"));
    for (int64_t r = 0; r < rounds; r++) {
        struct exchange_sums got;

        TRY_OR(st, eval_round(t, data, r, windows, labels, &got), done);
        sum += got.loss;
        count += got.labels;
    }
    *loss = sum / count;
    if (tokens) *tokens = (int64_t)count;
done:
    mem_free(labels);
    return st;
}
