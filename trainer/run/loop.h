/*
 * loop.h - the command `train`: open or resume a run, steps, evaluations, checkpoints.
 */
#ifndef TRAIN_LOOP_H
#define TRAIN_LOOP_H

#include "comm/comm.h"
#include "trainer/run/settings.h"

struct loop_request {
    const char *run;    /* the run directory */
    const char *config; /* INI text or NULL */
    const char *config_name;
    char *const *sets; /* "section.key=value" */
    int set_count;
};

/* [collective] Train.  Returns a code of scheduler/exitcode.h. */
int loop_main(struct comm *c, const struct loop_request *request);

/* The exit code of a status. */
int exit_code_of(kr_status st);

#endif
