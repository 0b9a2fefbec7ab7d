/*
 * check.h - is this node fit to carry ranks?
 *
 * Some tens of milliseconds: a loop of integer and floating-point arithmetic with a known
 * result, a pattern through some memory, free memory, node memory (/dev/shm) that can be
 * written, and the run directory, which must be writable from here.  That the link to the
 * supervisor carries messages is proved by the answer arriving.
 *
 * For tests KILORANK_CHECK_FAULT=NAME,... makes the named check fail on the nodes whose
 * agent has it: arithmetic, memory, shm, disk.
 */
#ifndef SCHED_CHECK_H
#define SCHED_CHECK_H

#include <stddef.h>
#include <stdint.h>

/* *trouble: what is wrong, in words; empty when the node is well. */
void check_node(const char *run, const char *node, char *trouble, size_t size);

uint64_t check_free_memory(void); /* bytes; 0: the system does not say */

#endif
