/*
 * meminfo.h - how much memory this process may still take on its host.
 *
 * The least of what Linux calls available and of the room in every control group above
 * the process (versions 2 and 1; Slurm and containers set them).  Pages that a group
 * would give back at once (inactive file cache) count as room.
 */
#ifndef BASE_MEMINFO_H
#define BASE_MEMINFO_H

#include <stdint.h>

/* Bytes; 0: the host does not tell.  root: "" , or a folder with another /proc and /sys for
 * tests.  total: of the host or the narrowest group. */
void meminfo_read(const char *root, uint64_t *total, uint64_t *available);

/* Processes that the kernel of this host has killed for want of memory, since it started;
 * 0: none, or it does not tell. */
uint64_t meminfo_killed(const char *root);

#endif
