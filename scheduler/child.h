/*
 * child.h - commands that chaos starts, with a limit on every wait.
 */
#ifndef SCHED_CHILD_H
#define SCHED_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/status.h"

/* Start argv[0] (searched in PATH); output: descriptor for its standard output and error.
 * It gets SIGTERM when this process dies. */
kr_status child_begin(char *const argv[], int output, pid_t *pid);

/* Has it ended?  *code: exit status or 128 + signal. */
bool child_ended(pid_t pid, int32_t *code);

/* Wait for it; its code.  When it takes longer: SIGKILL, and 124, though some seconds later
 * the kernel has not let it go. */
int32_t child_await(pid_t pid, double seconds);

/* What a command prints, by way of a file, cut to size; false: it failed or took longer. */
bool child_answer(char *const argv[], const char *file, double seconds, char *out,
                  size_t size);

#endif
