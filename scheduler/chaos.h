/*
 * chaos.h - `kilorank chaos`: does this cluster keep a run alive?
 *
 * Runs a training twice under the supervisor: DIR/calm without faults, then DIR/chaos under
 * random ones, one after the other, each after the run has gone on from the last.  Reports
 * for each kind how long it took until the fault was seen and until the next step was done,
 * how many steps were done again, the effective training time ratio (chaos_record.h) and
 * whether both runs end in the same bits.
 *
 * Faults are injected by what is documented and no back door: processes found in `kilorank
 * status --json` are signalled through the shell of their node.
 */
#ifndef SCHED_CHAOS_H
#define SCHED_CHAOS_H

int chaos_main(int argc, char **argv);

#endif
