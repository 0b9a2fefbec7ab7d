/*
 * launcher.h - what the program that started this process left in its environment: mpirun,
 * any launcher that speaks PMIx or PMI, Slurm.  Known before MPI starts, and without it.
 */
#ifndef BASE_LAUNCHER_H
#define BASE_LAUNCHER_H

#include <stdbool.h>
#include <stdint.h>

/* Started as one of the ranks of a launcher that MPI can ask. */
bool launcher_found(void);

/* This process's number and how many there are; -1 and 1 where nothing tells. */
int32_t launcher_rank(void);
int32_t launcher_ranks(void);
/* Its number among the ranks of this node; 0 where nothing tells. */
int32_t launcher_local_rank(void);

/* The Slurm job around it; NULL: none. */
const char *launcher_job(void);

#endif
