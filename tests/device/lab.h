/*
 * lab.h - one operation on two devices: the one under test and the reference.
 *
 * A tensor of the lab is a box inside a bigger array.  Everything outside the box, gaps
 * between rows included, holds a pattern that reads as NaN; outputs hold it inside, too.
 * Both devices get the same bytes.  After the operation the pattern outside must be
 * untouched, and inside the two must agree.
 */
#ifndef TESTS_LAB_H
#define TESTS_LAB_H

#include "kernels/kernels.h"

enum { LAB_TENSORS = 12, LAB_INTS = 2, LAB_PARAMS = 12 };

/* LAB_CHANGE: read, then overwritten.  LAB_BITS: an output that holds no numbers. */
enum lab_use { LAB_IN, LAB_OUT, LAB_CHANGE, LAB_BITS };

struct lab_tensor {
    enum lab_use use;
    enum kern_dtype type;
    int64_t rows, cols, ld, lead; /* lead: elements before the box */
    size_t bytes;
    unsigned char *image; /* what both devices begin with */
    void *at[2];          /* device arrays: under test, reference */
    unsigned char *result[2];
};

struct lab_side {
    struct kern_device *device;
    struct kern_queue *q;
};

struct lab {
    struct lab_side side[2]; /* under test, reference */
    uint64_t seed, drawn;    /* random numbers of this case */
    int64_t most;            /* largest dimension that cases draw */
    int threads;             /* that make operands */
    bool ragged;             /* rows of this case's tensors begin anywhere */
    int count;
    struct lab_tensor t[LAB_TENSORS];
    int32_t *ints_host[LAB_INTS], *ints[LAB_INTS][2];
    float *slopes[2];      /* device, or NULL */
    int64_t n[LAB_PARAMS]; /* what a case chose: shapes, flags */
    double slack;          /* what a case adds to its tolerance for this shape */
    char shape[96];        /* for messages */
};

enum kern_dtype lab_type(const struct lab *l);
enum kern_dtype lab_wide(const struct lab *l);

/* Uniform in 0 .. below - 1. */
int64_t lab_draw(struct lab *l, int64_t below);
bool lab_flip(struct lab *l);
/* A dimension from 1 to the most there may be: awkward ones, whole tiles and their
 * neighbours. */
int64_t lab_dim(struct lab *l);

/* Add a tensor: values are normal times `size` around `mean`.  Returns its number. */
int lab_tensor(struct lab *l, enum lab_use use, enum kern_dtype type, int64_t rows,
               int64_t cols, double mean, double size);
/* The box on one side; a number < 0 is kern_none. */
struct kern_mat lab_mat(const struct lab *l, int side, int number);
/* count integers below `below`, one of ten KERN_IGNORE if ignore. */
void lab_ints(struct lab *l, int number, int64_t count, int64_t below, bool ignore);
void lab_slopes(struct lab *l, int64_t heads);

/* Take what a tensor holds on the reference as its image: inputs that depend on others. */
void lab_adopt(struct lab *l, int number);

/* All images to a device; all arrays of a device to result[side]. */
void lab_send(struct lab *l, int side);
void lab_fetch(struct lab *l, int side);

/* Worst error of all outputs, relative to the norm of the reference; NaN if any element
 * is, infinite if a byte outside a box has changed. */
double lab_error(const struct lab *l);
/* Lines with # on each output of which elements are off by more than `tol` of a typical one:
 * how many, between which rows and columns, and the first of them. */
void lab_explain(const struct lab *l, double tol);
bool lab_same_bits(const struct lab *l, int number_of_tensor, const unsigned char *other);

void lab_clear(struct lab *l); /* after a case */

#endif
