/*
 * trace.h - the devices of this program, whose operations can be timed one by one.
 *
 * While it is on, each operation runs alone: the queue is empty before and after.
 */
#ifndef TESTS_SPEED_TRACE_H
#define TESTS_SPEED_TRACE_H

#include <stdbool.h>
#include <stdint.h>

/* What is known of one kind of operation: FLOP and bytes as its operands have them. */
struct trace_row {
    const char *name;
    int64_t calls;
    double seconds, flops, bytes;
};

void trace_init(void); /* first of all */
void trace_on(bool on);
void trace_clear(void);
/* Rows with calls in them, the longest first. */
int trace_rows(const struct trace_row **out);

#endif
