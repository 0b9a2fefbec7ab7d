/*
 * shard_replica.c - what all ranks hold alike: its checksum, and a flipped bit in it.
 *
 * The device makes a number of each array; only these come to the host.
 */
#include "base/hash.h"
#include "trainer/run/shard_parts.h"

/* Is all optimizer state on every rank? */
static bool keeps_all(const struct shard *s)
{
    return s->config.stage == 0 && s->config.train;
}

static kr_status sum_array(struct shard *s, int *n, char *at, int64_t len,
                           enum kern_dtype type)
{
    return kern_checksum(s->q, s->sums + (*n)++, kern_mat(at, 1, len, type));
}

static kr_status sum_unit(struct shard *s, int *n, const struct unit *u)
{
    TRY(kern_event_wait(u->published, s->q));
    if (!u->paged) TRY(sum_array(s, n, u->w, u->len, s->type));
    if (!keeps_all(s) || u->frozen) return KR_OK;
    if (s->mixed) TRY(sum_array(s, n, u->master, u->len, s->wide));
    TRY(sum_array(s, n, u->m, u->len, s->config.moments));
    return sum_array(s, n, u->v, u->len, s->config.moments);
}

kr_status shard_checksum_start(struct shard *s)
{
    int n = 0;

    for (int i = 0; i < s->count; i++)
        TRY(sum_unit(s, &n, &s->units[i]));
    s->sum_count = n;
    return kern_download(s->q, s->sums_host, s->sums, (size_t)n * sizeof *s->sums);
}

uint64_t shard_checksum(const struct shard *s)
{
    uint64_t sum = hash64(s->sums_host, (size_t)s->sum_count * sizeof *s->sums_host);

    return sum ? sum : 1;
}

kr_status shard_flip(struct shard *s, int bit)
{
    const struct unit *u = &s->units[0];
    int64_t middle = (u->paged ? u->chunk : u->len) / 2;
    char *at = keeps_all(s) && u->master ? shard_shift(u->master, middle, s->wide)
                                         : shard_shift(u->w, middle, s->type);
    char byte;

    at += bit / 8;
    TRY(kern_event_wait(u->published, s->q));
    TRY(kern_download(s->q, &byte, at, 1));
    TRY(kern_queue_sync(s->q));
    byte = (char)(byte ^ 1 << bit % 8);
    TRY(kern_upload(s->q, at, &byte, 1));
    return kern_queue_sync(s->q);
}
