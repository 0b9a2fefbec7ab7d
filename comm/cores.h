/* cores.h - where a process runs: node, cores, GPUs.  For comm/ itself. */
#ifndef COMM_CORES_H
#define COMM_CORES_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"

/* The host's name, or what KILORANK_NODE says; nothing that a file name could not hold. */
static inline void comm_node_here(char out[256])
{
    const char *name = getenv("KILORANK_NODE");

    memset(out, 0, 256);
    if (name && *name)
        snprintf(out, 256, "%s", name);
    else if (gethostname(out, 255) != 0)
        snprintf(out, 256, "node");
    for (char *c = out; *c; c++)
        if (*c == '/' || (unsigned char)*c <= 32) *c = '_';
}

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

/* Ranks with the same number here were shown the same GPUs. */
static inline uint64_t comm_visible_gpus(void)
{
    const char *gpus = getenv("CUDA_VISIBLE_DEVICES");

    return gpus ? hash64(gpus, strlen(gpus)) : 0;
}

#endif
