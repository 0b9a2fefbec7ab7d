/*
 * shard_parts.h - the insides of a shard, for shard.c (life, publication), shard_grads.c
 * (sums of gradients), shard_pages.c (gathered weights) and shard_room.c (what messages take).
 */
#ifndef TRAIN_SHARD_PARTS_H
#define TRAIN_SHARD_PARTS_H

#include "kernels/kernels.h"
#include "trainer/run/shard.h"

/* Arrays of a unit hold whole padded units (size * chunk elements), so that collectives see
 * equal counts, or this rank's chunk of them. */
struct unit {
    int64_t len, chunk;     /* elements */
    bool frozen, paged;     /* paged: stage 3 keeps its chunk of the weights only */
    char *w;                /* device, what the model computes with; paged: the chunk */
    char *master, *m, *v;   /* stage 0: whole, else the chunk; frozen: none */
    char *slot[TREE_DEPTH]; /* sums of gradients; slot[0] ends up with the whole sum */
    struct tree_node stack[TREE_DEPTH];
    int depth;                    /* nodes on the stack = slots in use */
    struct work *work;            /* where its gradient is made or under way, or NULL */
    struct kern_event *computed;  /* compute queue: gradient final */
    struct kern_event *reduced;   /* comm queue: gradient summed over ranks */
    struct kern_event *updated;   /* compute queue: own weights are new */
    struct kern_event *published; /* comm queue: all weights are new */
};

/* Room for the gradient of one micro-batch of any unit, where units keep less than that:
 * free, being computed, or under way to its owners. */
struct work {
    char *at;        /* wide */
    char *narrow;    /* bf16 of it to send, or NULL */
    char *got;       /* chunks of a round that is no node, or NULL */
    int unit;        /* -1: free */
    bool under_way;  /* the reduction has begun */
    int64_t round;   /* of it */
    uint64_t number; /* which reduction it was, the oldest is settled first */
};

/* A gathered unit in stage 3. */
struct page {
    char *at;
    int unit;                    /* -1: nothing */
    int holds;                   /* acquired and not released */
    uint64_t number;             /* which gather it was */
    struct kern_event *gathered; /* comm queue */
    struct kern_event *used;     /* compute queue: released for the last time */
};

/* The units in the order in which a pass acquires them. */
struct trace {
    int *unit;
    int len, at;
    bool whole; /* len is that of a pass from begin to end */
};

/* SHARD_TRACE: a pass acquires a unit at most so often, about. */
enum { SHARD_WORKS = 3, SHARD_PAGES = 3, SHARD_TRACE = 4 };

struct shard {
    const struct params *params;
    struct comm *comm;
    struct kern_queue *q;
    struct kern_device *device;
    struct shard_config config;
    struct weights face;
    struct unit *units;
    struct shard_own *own, *share;
    int count;
    int64_t step, turn; /* turn: which own micro-batch of the step runs */
    struct shard_bytes bytes;
    enum kern_dtype type, wide; /* of the device */
    bool mixed;                 /* they differ: weights exist twice */
    struct work work[SHARD_WORKS];
    struct page page[SHARD_PAGES];
    int works, pages; /* in use */
    uint64_t numbers;
    uint64_t *sums, *sums_host; /* of arrays that all ranks hold alike; NULL: one rank */
    int sum_count;
    struct trace traces[2], *trace; /* forward; forward and backward; that of this pass */
    int64_t passes; /* of the same kind that follow before weights change */
};

/* What a configuration holds of a unit of `len` elements, in elements. */
struct shard_sizes {
    int64_t chunk, padded;
    int64_t w, held, slot; /* of weights; of master weights and moments; of one slot */
};

struct shard_sizes shard_sizes(const struct shard_config *c, int32_t size,
                               const struct params *p, int unit);

/* Room for one checksum of each array: w, master, m and v of every unit. */
static inline size_t shard_checksum_bytes(const struct params *p, int32_t size)
{
    return size == 1 ? 0 : 4 * (size_t)p->units * sizeof(uint64_t);
}

static inline bool shard_is_paged(const struct shard_config *c, const struct params *p,
                                  int unit)
{
    return c->stage == 3 && (p->frozen == 0 || unit < p->frozen);
}

/* How many slots a unit needs, rooms for gradients and pages there are; have rooms `got`? */
int shard_slots(const struct shard_config *c, int32_t size);
int shard_works(const struct shard_config *c, enum kern_dtype wide,
                const struct params *p);
int shard_pages(const struct shard_config *c, const struct params *p);
bool shard_needs_got(const struct shard_config *c, int32_t size);

/* Do the `count` micro-batches from `first` on make one node of the tree? */
static inline bool shard_is_node(int64_t leaves, int64_t count, int64_t first)
{
    struct tree_node nodes[TREE_DEPTH];

    return first + count <= leaves &&
           tree_cover(leaves, (struct tree_node){ first, count }, nodes) == 1;
}

static inline char *shard_shift(char *array, int64_t elements, enum kern_dtype type)
{
    return array + (size_t)elements * kern_dtype_bytes(type);
}

static inline int64_t shard_padded(const struct shard *s, const struct unit *u)
{
    return u->chunk * comm_size(s->comm);
}

/* Micro-batches, or rounds, of this rank in a step. */
int64_t shard_turns(const struct shard *s);

/* The calls of weights.h. */
kr_status shard_grads(void *self, int unit, void **out, bool *add);
kr_status shard_grads_ready(void *self, int unit);
kr_status shard_acquire(void *self, int unit, void **out);
void shard_release(void *self, int unit);

/* [collective] [queued] The compute queue waits for every gather; what pages hold is old
 * from here on. */
kr_status shard_forget_pages(struct shard *s);

#endif
