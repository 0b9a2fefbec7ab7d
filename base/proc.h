/* proc.h - which process is meant.  Numbers are used again; number and start time are not. */
#ifndef BASE_PROC_H
#define BASE_PROC_H

#include <stdint.h>

enum { PROC_STAT = 1024 };

/* What the kernel tells of a process from its state (one letter) on, in text; NULL: there is
 * none. */
const char *proc_fields(int64_t pid, char text[PROC_STAT]);

/* Start time of a process in clock ticks since boot, -1 if there is none or it is a
 * zombie. */
int64_t proc_started(int64_t pid);

#endif
