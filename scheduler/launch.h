/* launch.h - `kilorank launch`: start a run, and keep it going. */
#ifndef SCHED_LAUNCH_H
#define SCHED_LAUNCH_H

int launch_main(int argc, char **argv);

#endif
