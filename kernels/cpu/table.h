/* table.h - the two tables that kernels/cpu provides; see cpu.h. */
#ifndef KERN_CPU_TABLE_H
#define KERN_CPU_TABLE_H

#include "kernels/kernels.h"

extern const struct kern_ops cpu_table, cpu64_table;

#endif
