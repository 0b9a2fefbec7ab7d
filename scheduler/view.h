/*
 * view.h - what `kilorank status` shows; here what it also knows of a run whose supervisor
 * is gone.
 */
#ifndef SCHED_VIEW_H
#define SCHED_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"

/* Prometheus's metrics of a run's life.  run: absolute. */
void view_life(struct mem_text *out, const char *run, bool is_supervised, int64_t step,
               int64_t faults);

#endif
