/* cores.h - the cores a process may run on.  For comm/ itself. */
#ifndef COMM_CORES_H
#define COMM_CORES_H

#include <sched.h>

/* This process's affinity mask; empty if the system does not say. */
static inline void comm_cores(cpu_set_t *mask)
{
    if (sched_getaffinity(0, sizeof *mask, mask) != 0) CPU_ZERO(mask);
}

/* How many they are, at least 1. */
static inline int comm_cores_mine(void)
{
    cpu_set_t mask;

    comm_cores(&mask);
    return CPU_COUNT(&mask) > 0 ? CPU_COUNT(&mask) : 1;
}

#endif
