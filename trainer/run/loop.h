/*
 * loop.h - the command `train`: open or resume a run, steps, evaluations, checkpoints.
 */
#ifndef TRAIN_LOOP_H
#define TRAIN_LOOP_H

#include "comm/comm.h"
#include "scheduler/pulse.h"
#include "trainer/run/settings.h"

/* [collective] Train the run in directory `run` with these settings; `about` goes into
 * its checkpoints, what it does into `pulse` (may be NULL).  *stopped: it was asked to end
 * early and its state is saved. */
kr_status loop_train(struct comm *c, const struct settings *set, const char *run,
                     const char *about, struct pulse *pulse, bool *stopped);

/* Is this an end that all ranks come to together?  Else the others may be inside a
 * collective, and only ending them all helps. */
bool loop_ends_together(kr_status st);

#endif
