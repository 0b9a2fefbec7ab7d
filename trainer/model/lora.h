/*
 * lora.h - low-rank adapters beside frozen matrices (Hu et al. 2021).
 *
 *   y = x W^T + b + (alpha / rank) (x A^T) B^T     A (rank, in)   B (rows of W, rank)
 *
 * A site is a matrix of a block as other programs have it, for that is what their adapters
 * stand beside: queries, keys and values are one matrix in some families and three in
 * others, and ours is always one.  So a site is some rows of one of our four matrices.
 */
#ifndef TRAIN_LORA_H
#define TRAIN_LORA_H

#include "kernels/kernels.h"

struct family;
struct model_shape;

/* The matrices of a block. */
enum block_matrix { BLOCK_QKV, BLOCK_OUT, BLOCK_UP, BLOCK_DOWN, BLOCK_MATRICES };

enum lora_site {
    LORA_QKV,
    LORA_Q,
    LORA_K,
    LORA_V,
    LORA_OUT,
    LORA_GATE_UP,
    LORA_GATE,
    LORA_UP,
    LORA_DOWN,
    LORA_SITES
};

struct lora {
    int64_t rank; /* 0: no adapters, everything is trained */
    double alpha;
    unsigned sites; /* bit i: site i has an adapter */
};

static inline bool lora_has(const struct lora *l, int site)
{
    return l->rank > 0 && (l->sites >> site & 1);
}

const char *lora_name(int site); /* "q" */
enum block_matrix lora_matrix(int site);

/* Rows of our matrix that the site is, and the columns of that matrix. */
void lora_rows(const struct model_shape *s, int site, int64_t *first, int64_t *rows);
int64_t lora_inputs(const struct model_shape *s, int site);

/* All sites of a family, and those of a list such as "q,v", or "all"; 0: it names something
 * that the family has not. */
unsigned lora_sites(const struct family *f);
unsigned lora_parse(const struct family *f, const char *text);

/* "q,v"; the order of the enum. */
enum { LORA_TEXT = 48 };
const char *lora_print(unsigned sites, char out[LORA_TEXT]);

/* One adapter; or gradients of one, wide. */
struct lora_pair {
    struct kern_mat a, b;
};

/* What both directions need besides: room for (N, rank), twice in the backward. */
struct lora_env {
    struct kern_queue *q;
    double scale; /* alpha / rank */
    struct kern_mat low, d_low;
};

/* [queued] y (N, rows) += scale (x a^T) b^T. */
kr_status lora_fwd(const struct lora_env *e, const struct lora_pair *w, struct kern_mat y,
                   struct kern_mat x);

/* [queued] dx += what comes through the adapter; g [+]= gradients, as `add` says. */
kr_status lora_bwd(const struct lora_env *e, const struct lora_pair *w,
                   const struct lora_pair *g, bool add, struct kern_mat dx,
                   struct kern_mat dy, struct kern_mat x);

#endif
