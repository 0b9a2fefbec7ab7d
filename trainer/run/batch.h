/* batch.h - one micro-batch on its way from the data to the device. */
#ifndef TRAIN_BATCH_H
#define TRAIN_BATCH_H

#include "trainer/run/trainer.h"

/* [local] Where row `row` of the micro-batch lies on the host. */
struct dataset_row batch_row(const struct trainer *t, int64_t row);

/* [local] A row without labels. */
void batch_blank(const struct trainer *t, int64_t row);

/* [local] Copy the micro-batch of rows of `data` to the device. */
kr_status batch_upload(struct trainer *t, const struct dataset *data, struct batch *out);

#endif
