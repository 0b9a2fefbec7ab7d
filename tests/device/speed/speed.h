/*
 * speed.h - between the parts of the speed program: operands, timing, what a rival did.
 *
 * A time is that of a block of calls between two synchronisations, over their number; a
 * row is the median of the rounds.  Rivals take turns, block by block.
 */
#ifndef TESTS_SPEED_H
#define TESTS_SPEED_H

#include <stdio.h>

#include "kernels/kernels.h"

enum { MOST_ROUNDS = 99 };

struct speed {
    bool small; /* tiny shapes, one call a block */
    int rounds;
    enum kern_hopper hopper; /* kernels.hopper */
    const char *peer;        /* file of rows of scripts/gpu-peer.py, or NULL */
    const char *model;       /* the only one of the steps, or NULL */
    struct kern_device *device;
    struct kern_queue *q;
    enum kern_dtype type, wide;
    double peak; /* FLOP/s of the card in this type; 0: not known */
    double copy; /* bytes/s of a copy, once memory() has measured it */
};
extern struct speed speed;

void must(kr_status st); /* ends the program */

/* Normal numbers: `sets` matrices, one behind the other; the first is returned. */
struct kern_mat random_mat(int64_t sets, int64_t rows, int64_t cols,
                           enum kern_dtype type);
void drop(struct kern_mat m);

/* Sets of operands of so many bytes that do not fit in a cache together. */
int64_t sets_of(double bytes);

struct job {
    kr_status (*run)(const struct job *j);
    struct kern_mat m[6];
    int64_t sets; /* of all of them; each call takes the next (0: there is one) */
    struct kern_heads heads;
    struct kern_adamw adamw;
    int32_t *labels;
    const void *other; /* of a rival */
};

/* Seconds of one call: in a block of so many; the median of the rounds. */
double seconds(const struct job *j, int calls);
int calls_of(const struct job *j); /* a block of about a fiftieth of a second */
double time_of(const struct job *j);
/* The same of two that take turns. */
void duel(const struct job *a, const struct job *b, double *time_a, double *time_b);

/* What scripts/gpu-peer.py measured under that name; NaN: nothing. */
double peer(const char *name);

/* Measures speed.copy, unless that is known. */
void measure_copy(void);

/* The tables, one after the other. */
void speed_products(void);
void speed_attention(void);
void speed_memory(void);
void speed_steps(const char *device);

#endif
