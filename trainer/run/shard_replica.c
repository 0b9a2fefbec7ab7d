/* shard_replica.c - what all ranks hold alike: its checksum, and a flipped bit in it. */
#include "base/hash.h"
#include "base/mem.h"
#include "trainer/run/shard_parts.h"

enum { HASH_PIECE = 4 << 20 /* bytes downloaded at a time */ };

static kr_status hash_array(struct shard *s, struct hash *h, const char *at, int64_t len,
                            enum kern_dtype type, char *buf)
{
    for (size_t from = 0, bytes = (size_t)len * kern_dtype_bytes(type); from < bytes;
         from += HASH_PIECE) {
        size_t n = bytes - from < HASH_PIECE ? bytes - from : HASH_PIECE;

        TRY(kern_download(s->q, buf, at + from, n));
        TRY(kern_queue_sync(s->q));
        hash_add(h, buf, n);
    }
    return KR_OK;
}

/* Is all optimizer state on every rank? */
static bool keeps_all(const struct shard *s)
{
    return s->config.stage == 0 && s->config.train;
}

static kr_status hash_units(struct shard *s, struct hash *h, char *buf)
{
    for (int i = 0; i < s->count; i++) {
        const struct unit *u = &s->units[i];

        TRY(kern_event_wait(u->published, s->q));
        if (!u->paged) TRY(hash_array(s, h, u->w, u->len, s->type, buf));
        if (!keeps_all(s) || u->frozen) continue;
        if (s->mixed) TRY(hash_array(s, h, u->master, u->len, s->wide, buf));
        TRY(hash_array(s, h, u->m, u->len, s->config.moments, buf));
        TRY(hash_array(s, h, u->v, u->len, s->config.moments, buf));
    }
    return KR_OK;
}

kr_status shard_checksum(struct shard *s, uint64_t *out)
{
    struct hash *h = hash_open();
    char *buf = NULL;
    kr_status st = h ? KR_OK : KR_FAIL(KR_ERR_MEM, "no memory for a checksum");

    if (st == KR_OK) st = mem_alloc(&buf, HASH_PIECE, 1, "a piece of the weights");
    if (st == KR_OK) st = hash_units(s, h, buf);
    if (st == KR_OK) *out = hash_end(h) ? hash_end(h) : 1;
    hash_close(h);
    mem_free(buf);
    return st;
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
