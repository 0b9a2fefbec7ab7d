/*
 * brood.h - processes started here, and all that descend from them.
 *
 * The caller becomes the parent of orphans below it (child subreaper), so nothing that a
 * dying mpirun leaves behind escapes.  Children are killed by the kernel when the caller
 * dies, however it dies.
 */
#ifndef SCHED_BROOD_H
#define SCHED_BROOD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/status.h"

/* From here on orphans come to this process.  Once. */
void brood_adopt(void);

/* Start argv[0] (searched in PATH) in a session of its own, with these variables, each
 * NAME=VALUE, on top of this process's; output: descriptor for its standard output and
 * error, -1: /dev/null.  lives_on: it is not killed with the caller. */
kr_status brood_start(char *const argv[], char *const variables[], int output,
                      bool lives_on, pid_t *pid);

/* Bury one dead child.  False: there is none now.  *code: exit status or 128 + signal. */
bool brood_bury(pid_t *pid, int *code);

/* The letter that /proc has for a process's state, 'T' for one that was stopped; 0: there
 * is no such process. */
char brood_state(int64_t pid);

/* SIGKILL to everything that descends from this process; returns how many there are, dead
 * ones that nobody buried too: /proc calls so a process whose first thread has ended while
 * others run.  Bury, and call again until it is 0. */
int brood_kill(void);

#endif
