/* commands.h - the worker's commands; each returns a code of scheduler/exitcode.h. */
#ifndef TRAIN_COMMANDS_H
#define TRAIN_COMMANDS_H

#include "comm/comm.h"
#include "trainer/run/settings.h"

int train_command(int argc, char **argv); /* argv[0] is the name of the command */
int eval_command(int argc, char **argv);
int generate_command(int argc, char **argv);
int bench_command(int argc, char **argv);
int import_command(int argc, char **argv); /* trainer/hf */
int export_command(int argc, char **argv);

/* "kilorank 0.1.0" */
extern const char *const about_program;

/* The exit code of a status. */
int exit_code_of(kr_status st);

/* Start communication as the settings say; from here on lines carry the rank if there is
 * more than one, and all ranks speak. */
kr_status start_comm(struct comm **out, const struct settings *set);

/* End: alone, return the code; in a group that failed in the middle, end all ranks. */
int end_comm(struct comm *c, kr_status st, bool agreed, int code);

#endif
