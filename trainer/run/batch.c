/* batch.c - rows side by side; starts count from the row in the data, then in the batch. */
#include "trainer/run/batch.h"

struct dataset_row batch_row(const struct trainer *t, int64_t row)
{
    int64_t at = row * t->set.context;

    return (struct dataset_row){ t->token_host + at, t->label_host + at,
                                 t->start_host + at };
}

void batch_blank(const struct trainer *t, int64_t row)
{
    struct dataset_row r = batch_row(t, row);

    for (int64_t k = 0; k < t->set.context; k++) {
        r.token[k] = 0;
        r.label[k] = KERN_IGNORE;
        r.start[k] = 0;
    }
}

kr_status batch_upload(struct trainer *t, const struct dataset *data, struct batch *out)
{
    bool starts = dataset_has_starts(data);
    size_t bytes = (size_t)(starts ? 3 : 2) * (size_t)t->rows * sizeof(int32_t);
    int32_t *to = starts ? t->start : t->label,
            *from = starts ? t->start_host : t->label_host;

    for (int64_t k = 0; starts && k < t->rows; k++)
        t->start_host[k] += (int32_t)(k / t->set.context * t->set.context);
    TRY(kern_upload(t->q, to, from, bytes));
    *out = (struct batch){ .token = t->token,
                           .label = t->label,
                           .sequences = t->set.micro_batch,
                           .seq = t->set.context,
                           .start = starts ? t->start : NULL };
    return KR_OK;
}
