/*
 * stop.h - requests to end a run early: signals and a file.
 *
 * SIGTERM, SIGUSR1 and SIGINT ask for: finish the step, save, exit with EXIT_REQUEUE.  A
 * second SIGINT ends the process at once.  A file named "stop" in the run directory asks
 * for the same with EXIT_DONE; rank 0 looks once per step.
 */
#ifndef TRAIN_STOP_H
#define TRAIN_STOP_H

/* The stronger is the larger.  LOST is no request: another job has the run. */
enum stop_wish { STOP_NO, STOP_DONE, STOP_REQUEUE, STOP_LOST };

/* Install the handlers.  Once. */
void stop_setup(void);

/* The signals so far, and the stop file of run directory `run` (NULL: do not look). */
enum stop_wish stop_asked(const char *run);

/* Remove the stop file, so that the next start does not stop again. */
void stop_forget(const char *run);

#endif
