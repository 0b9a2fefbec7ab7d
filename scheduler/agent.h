/*
 * agent.h - `kilorank agent --run DIR --node NAME`: what the supervisor has on each node.
 *
 * It finds the supervisor through DIR/.token, starts mpirun or Open MPI's daemon when told
 * to, so that a restart needs neither ssh nor the batch system, reads what the ranks of
 * this node show (pulse.h) and tells it once a second, or at once when a rank died.
 *
 * Fences: before it says READY for a generation, nothing that an earlier one started here
 * lives any more.  Everything it started dies with it.  It outlives the supervisor: ranks
 * go on while a new one is started; after `patience` seconds without one it ends them,
 * cleans up and ends.
 */
#ifndef SCHED_AGENT_H
#define SCHED_AGENT_H

int agent_main(int argc, char **argv);

#endif
