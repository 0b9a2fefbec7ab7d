/* cpu16.h - the table of the back end "cpu16"; see cpu16.c. */
#ifndef KERN_CPU16_H
#define KERN_CPU16_H

#include "kernels/kernels.h"

extern const struct kern_ops cpu16_table;

#endif
