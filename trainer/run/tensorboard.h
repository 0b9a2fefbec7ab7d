/*
 * tensorboard.h - TensorBoard event files.
 *
 * RUN/tensorboard/events.out.tfevents.SECONDS.HOST.PID; a resumed run starts another one
 * beside it and TensorBoard merges them by step.  Records are length, masked CRC-32C of
 * the length, bytes, masked CRC-32C of the bytes; the bytes are a protobuf Event with one
 * simple_value per tag.  Failures to write are one warning, then silence.
 */
#ifndef TRAIN_TENSORBOARD_H
#define TRAIN_TENSORBOARD_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct tensorboard; /* opaque */

kr_status tensorboard_open(struct tensorboard **out, const char *folder);
void tensorboard_close(struct tensorboard *t); /* NULL is fine, here and below */

struct tensorboard_scalar {
    const char *tag;
    double value;
};

/* One event with `count` scalars; reaches the file before the call returns. */
void tensorboard_add(struct tensorboard *t, double wall, int64_t step,
                     const struct tensorboard_scalar *scalars, int count);

/* The bytes of one record, for the writer and for tests: returns their number, at most
 * room; 0 if they do not fit.  scalars NULL: the first record, with the version. */
size_t tensorboard_record(uint8_t *out, size_t room, double wall, int64_t step,
                          const struct tensorboard_scalar *scalars, int count);

#endif
