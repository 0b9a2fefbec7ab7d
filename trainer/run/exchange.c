/* exchange.c - pack, gather, add up in one order. */
#include "trainer/run/exchange.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

enum { WORDS = 7 };

/* Own micro-batches of any rank fit in this many places. */
static int64_t leaf_room(const struct trainer *t)
{
    int64_t size = comm_size(t->comm);

    return (settings_leaves(&t->set) + size - 1) / size;
}

static int64_t row_len(const struct trainer *t)
{
    return WORDS + 2 * leaf_room(t) + t->block_room;
}

size_t exchange_row_bytes(const struct trainer *t)
{
    return (size_t)row_len(t) * sizeof(double);
}

size_t exchange_words_bytes(void) { return WORDS * sizeof(double); }

size_t exchange_loss_bytes(const struct trainer *t)
{
    return (size_t)leaf_room(t) * sizeof(double);
}

static int64_t blocks_in(int64_t elements)
{
    return (elements + KERN_SUM_BLOCK - 1) / KERN_SUM_BLOCK;
}

/* Blocks of one rank's chunk of a unit that is trained; the same on all ranks. */
static int64_t unit_blocks(const struct trainer *t, int unit)
{
    return blocks_in(part_chunk(t->params.unit_len[unit], comm_size(t->comm)));
}

/* Blocks that a rank does not have stay zero. */
static kr_status open_sums(struct trainer *t, size_t leaves, size_t blocks)
{
    size_t bytes = blocks * sizeof(double);

    TRY(kern_alloc_host(t->device, &t->loss_host, leaves * sizeof(double), "losses"));
    TRY(kern_alloc(t->device, &t->loss, leaves * sizeof(double), "losses"));
    TRY(kern_alloc_host(t->device, &t->blocks_host, bytes, "block sums"));
    TRY(kern_alloc(t->device, &t->blocks, bytes, "block sums"));
    TRY(kern_upload(t->q, t->blocks, t->blocks_host, bytes));
    return kern_queue_sync(t->q);
}

kr_status exchange_open(struct trainer *t)
{
    size_t leaves = (size_t)leaf_room(t), ranks = (size_t)comm_size(t->comm), row;

    if (t->training)
        for (int u = t->params.frozen; u < t->params.units; u++)
            t->block_room += unit_blocks(t, u);
    row = (size_t)row_len(t);
    TRY(open_sums(t, leaves, (size_t)t->block_room));
    TRY(mem_alloc(&t->mine, row, sizeof(double), "the step's message"));
    return mem_alloc(&t->all, row * ranks, sizeof(double), "the step's messages");
}

void exchange_close(struct trainer *t)
{
    mem_free(t->mine);
    mem_free(t->all);
    if (!t->device) return;
    kern_free_host(t->device, t->loss_host);
    kern_free_host(t->device, t->blocks_host);
    kern_free(t->device, t->loss);
    kern_free(t->device, t->blocks);
}

/* Sums of squares of this rank's share of the gradient, on their way to the host. */
static kr_status own_blocks(struct trainer *t)
{
    int count;
    const struct shard_own *share = shard_share(t->shard, &count);
    int64_t at = 0;

    for (int u = t->params.frozen; u < count; u++) {
        int64_t n = share[u].span.end - share[u].span.begin;

        if (n > 0)
            TRY(kern_sumsq(t->q, t->blocks + at, kern_mat(share[u].g, 1, n, t->grads)));
        at += unit_blocks(t, u);
    }
    return kern_download(t->q, t->blocks_host, t->blocks,
                         (size_t)t->block_room * sizeof(double));
}

double exchange_sum(const double *x, int64_t n)
{
    if (n <= 8) {
        double sum = 0;

        for (int64_t i = 0; i < n; i++)
            sum += x[i];
        return sum;
    }
    return exchange_sum(x, n / 2) + exchange_sum(x + n / 2, n - n / 2);
}

static const double *row_of(const struct trainer *t, int32_t rank)
{
    return t->all + row_len(t) * rank;
}

/* Loss and labels in the order of micro-batches. */
static void sum_leaves(const struct trainer *t, struct exchange_sums *out)
{
    enum part_deal deal = shard_deal((int)t->set.shard);
    int64_t leaves = settings_leaves(&t->set);

    for (int64_t leaf = 0; leaf < leaves; leaf++) {
        struct part_home h = part_home(deal, leaves, comm_size(t->comm), leaf);
        const double *loss = row_of(t, h.rank) + WORDS, *labels = loss + leaf_room(t);

        out->loss += loss[h.index];
        out->labels += labels[h.index];
    }
}

/* The blocks of one unit lie one rank after the other; only those that exist are added,
 * so the padding, which depends on the number of ranks, does not matter. */
static double sum_unit(const struct trainer *t, int unit, int64_t at, double *scratch)
{
    int64_t each = unit_blocks(t, unit), there = blocks_in(t->params.unit_len[unit]);
    const int64_t blocks_at = WORDS + 2 * leaf_room(t);

    for (int64_t b = 0; b < there; b++)
        scratch[b] = row_of(t, (int32_t)(b / each))[blocks_at + at + b % each];
    return exchange_sum(scratch, there);
}

static kr_status sum_blocks(const struct trainer *t, double *squares)
{
    double *scratch = NULL, sum = 0;
    int64_t at = 0, most = 0;

    for (int u = t->params.frozen; u < t->params.units; u++)
        if (blocks_in(t->params.unit_len[u]) > most)
            most = blocks_in(t->params.unit_len[u]);
    TRY(mem_alloc(&scratch, (size_t)most, sizeof *scratch, "block sums"));
    for (int u = t->params.frozen; u < t->params.units; u++) {
        sum += sum_unit(t, u, at, scratch);
        at += unit_blocks(t, u);
    }
    mem_free(scratch);
    *squares = sum;
    return KR_OK;
}

/* A double holds 53 bits: a checksum goes as two. */
static void put_words(double row[WORDS], const struct step_words *w)
{
    row[0] = w->stop;
    row[1] = w->phase;
    row[2] = (double)w->memory;
    row[3] = w->stall;
    row[4] = w->step_seconds;
    row[5] = (double)(w->replica >> 32);
    row[6] = (double)(w->replica & UINT32_MAX);
}

static struct step_words get_words(const double row[WORDS])
{
    return (struct step_words){ .stop = (int)row[0],
                                .phase = (int)row[1],
                                .memory = (int64_t)row[2],
                                .stall = row[3],
                                .step_seconds = row[4],
                                .replica = (uint64_t)row[5] << 32 | (uint64_t)row[6] };
}

static void pack(struct trainer *t, const double *labels, struct step_words words)
{
    int64_t turns =
        part_leaf_count(shard_deal((int)t->set.shard), settings_leaves(&t->set),
                        comm_size(t->comm), comm_rank(t->comm));
    double *loss = t->mine + WORDS, *count = loss + leaf_room(t);

    put_words(t->mine, &words);
    for (int64_t i = 0; i < turns; i++) {
        loss[i] = t->loss_host[i];
        count[i] = labels[i];
    }
    if (t->block_room)
        memcpy(count + leaf_room(t), t->blocks_host,
               (size_t)t->block_room * sizeof(double));
}

static kr_status gather(struct trainer *t)
{
    double begin = clock_now();

    pulse_phase(t->pulse, PULSE_REDUCING);
    TRY(comm_all_gather_bytes(t->comm, t->mine, exchange_row_bytes(t), t->all));
    t->waited += clock_now() - begin;
    return KR_OK;
}

kr_status exchange(struct trainer *t, const double *labels, struct step_words words,
                   bool gradient, struct exchange_sums *out, struct step_words *words_all)
{
    struct exchange_sums sums = { 0 };

    TRY(kern_download(t->q, t->loss_host, t->loss,
                      (size_t)leaf_room(t) * sizeof(double)));
    if (gradient) TRY(own_blocks(t));
    TRY(kern_queue_sync(t->q)); /* the step's only one */
    if (words.replica) words.replica = shard_checksum(t->shard);
    if (gradient)
        t->loss_host[0] =
            fault_loss(&t->fault, t->step, comm_rank(t->comm), t->loss_host[0]);
    pack(t, labels, words);
    TRY(gather(t));
    for (int32_t r = 0; words_all && r < comm_size(t->comm); r++)
        words_all[r] = get_words(row_of(t, r));
    sum_leaves(t, &sums);
    if (gradient) TRY(sum_blocks(t, &sums.squares));
    *out = sums;
    return KR_OK;
}
