/* shard_read.c - blocks, frames, whole shards. */
#include "checkpoints/shard_read.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"

enum {
    PART = 1 << 18, /* bytes read, then checked while the cache has them */
    READERS = 4     /* threads, at most */
};

/* What reading needs besides the place to read to. */
struct desk {
    char *block; /* the largest block there is, once one is needed in part */
    struct hash *hash;
};

static void clear_desk(struct desk *d)
{
    mem_free(d->block);
    hash_close(d->hash);
}

static kr_status set_desk(struct desk *d)
{
    *d = (struct desk){ .hash = hash_open() };
    return d->hash ? KR_OK : KR_FAIL(KR_ERR_MEM, "no memory for a checksum");
}

/* `bytes`: of the largest range whose blocks are to fit. */
static kr_status need_block(struct desk *d, uint64_t bytes)
{
    if (d->block) return KR_OK;
    return mem_alloc(&d->block, bytes < CKPT_BLOCK ? bytes : CKPT_BLOCK, 1, "a block");
}

static uint64_t range_bytes(const struct ckpt_tensor *tensors, const struct ckpt_range *r)
{
    return (uint64_t)r->count * kern_dtype_bytes(tensors[r->tensor].type);
}

static kr_status open_shard(const struct manifest *m, const char *folder, int32_t shard,
                            char path[FS_PATH], int *fd)
{
    uint64_t bytes;
    kr_status st;

    TRY(fs_path(path, "%s/%s", folder, m->shards[shard].file));
    TRY(fs_open(fd, path, O_RDONLY));
    st = fs_size(*fd, path, &bytes);
    if (st == KR_OK && bytes != m->shards[shard].bytes)
        st = KR_FAIL(KR_ERR_DATA, "%s: %" PRIu64 " bytes, want %" PRIu64, path, bytes,
                     m->shards[shard].bytes);
    if (st != KR_OK) close(*fd);
    return st;
}

/* ---- blocks ----------------------------------------------------------------------------- */

/* Read block b of range r into buf, which has room for it, and check it. */
static kr_status read_block(int fd, const char *path, const struct ckpt_range *r,
                            uint64_t bytes, int64_t b, char *buf, struct hash *h)
{
    uint64_t from = (uint64_t)b * CKPT_BLOCK;
    size_t n = bytes - from < CKPT_BLOCK ? (size_t)(bytes - from) : CKPT_BLOCK;

    hash_begin(h);
    for (size_t at = 0; at < n; at += PART) {
        size_t part = n - at < PART ? n - at : PART;

        TRY(fs_pread(fd, path, buf + at, part, r->offset + from + at));
        hash_add(h, buf + at, part);
    }
    if (hash_end(h) == r->blocks[b]) return KR_OK;
    return KR_FAIL(KR_ERR_DATA, "%s: bytes at %" PRIu64 " differ from their checksum",
                   path, r->offset + from);
}

/* The part of [begin, end) (bytes of the range) that block b holds, to `out`, which
 * stands for byte `begin`. */
static void take(char *out, const char *buf, uint64_t begin, uint64_t end, int64_t b)
{
    uint64_t lo = (uint64_t)b * CKPT_BLOCK, hi = lo + CKPT_BLOCK;
    uint64_t from = lo > begin ? lo : begin, to = hi < end ? hi : end;

    memcpy(out + (from - begin), buf + (from - lo), (size_t)(to - from));
}

/* Bytes [begin, end) of range r, whose blocks some threads share out among themselves. */
struct span {
    const struct ckpt_range *range;
    uint64_t bytes, begin, end; /* of the whole range; those wanted */
    char *out;
    char path[FS_PATH];
    int fd;
    atomic_llong next; /* block that nobody has taken yet */
    atomic_int status;
};

static kr_status span_block(struct span *s, int64_t b, struct desk *d)
{
    uint64_t lo = (uint64_t)b * CKPT_BLOCK;
    uint64_t hi = lo + CKPT_BLOCK < s->bytes ? lo + CKPT_BLOCK : s->bytes;

    if (lo >= s->begin && hi <= s->end)
        return read_block(s->fd, s->path, s->range, s->bytes, b, s->out + (lo - s->begin),
                          d->hash);
    TRY(need_block(d, s->bytes));
    TRY(read_block(s->fd, s->path, s->range, s->bytes, b, d->block, d->hash));
    take(s->out, d->block, s->begin, s->end, b);
    return KR_OK;
}

static void *span_thread(void *arg)
{
    struct span *s = arg;
    int64_t b, last = (int64_t)((s->end - 1) / CKPT_BLOCK);
    struct desk d;
    kr_status st = set_desk(&d);

    while (st == KR_OK && atomic_load(&s->status) == KR_OK &&
           (b = atomic_fetch_add(&s->next, 1)) <= last)
        st = span_block(s, b, &d);
    clear_desk(&d);
    if (st != KR_OK) atomic_store(&s->status, (int)st);
    return NULL;
}

static kr_status read_span(struct span *s)
{
    int64_t blocks = (int64_t)((s->end - 1) / CKPT_BLOCK - s->begin / CKPT_BLOCK) + 1;
    long most = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t others[READERS - 1];
    int n = 0;

    if (most > READERS) most = READERS;
    if (most > blocks) most = blocks;
    while (n + 1 < most && pthread_create(&others[n], NULL, span_thread, s) == 0)
        n++;
    (void)span_thread(s);
    while (n > 0)
        pthread_join(others[--n], NULL);
    return (kr_status)atomic_load(&s->status);
}

static kr_status read_range(const struct manifest *m, const char *folder,
                            const struct ckpt_range *r, uint64_t begin, uint64_t end,
                            char *out)
{
    struct span s = { .range = r,
                      .bytes = range_bytes(m->tensors, r),
                      .begin = begin,
                      .end = end,
                      .out = out };
    kr_status st;

    atomic_init(&s.next, (long long)(begin / CKPT_BLOCK));
    atomic_init(&s.status, KR_OK);
    TRY(open_shard(m, folder, r->shard, s.path, &s.fd));
    st = read_span(&s);
    close(s.fd);
    return st;
}

/* First range of a tensor; they are sorted. */
static int32_t first_range(const struct manifest *m, int32_t tensor)
{
    int32_t low = 0, high = m->range_count;

    while (low < high) {
        int32_t mid = low + (high - low) / 2;

        if (m->ranges[mid].tensor < tensor)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

kr_status shard_read(const struct manifest *m, const char *folder, int32_t tensor,
                     int64_t begin, int64_t count, void *out)
{
    uint64_t elem = kern_dtype_bytes(m->tensors[tensor].type);
    int64_t end = begin + count;
    kr_status st = KR_OK;

    for (int32_t i = first_range(m, tensor);
         i < m->range_count && m->ranges[i].tensor == tensor && st == KR_OK; i++) {
        const struct ckpt_range *r = &m->ranges[i];
        int64_t from = r->begin > begin ? r->begin : begin;
        int64_t to = r->begin + r->count < end ? r->begin + r->count : end;

        if (from >= to) continue;
        st = read_range(m, folder, r, (uint64_t)(from - r->begin) * elem,
                        (uint64_t)(to - r->begin) * elem,
                        (char *)out + (uint64_t)(from - begin) * elem);
    }
    return st;
}

/* ---- frames ----------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const struct ckpt_range *x = *(const struct ckpt_range *const *)a;
    const struct ckpt_range *y = *(const struct ckpt_range *const *)b;

    return (x->offset > y->offset) - (x->offset < y->offset);
}

static kr_status add_bytes(struct hash *h, int fd, const char *path, uint64_t from,
                           uint64_t to)
{
    char buf[4096];

    while (from < to) {
        size_t n = to - from < sizeof buf ? (size_t)(to - from) : sizeof buf;

        TRY(fs_pread(fd, path, buf, n, from));
        hash_add(h, buf, n);
        from += n;
    }
    return KR_OK;
}

kr_status shard_frame(int fd, const char *path, uint64_t bytes,
                      const struct ckpt_tensor *tensors, const struct ckpt_range *ranges,
                      int32_t count, int32_t shard, uint64_t *out)
{
    const struct ckpt_range **list = NULL;
    struct hash *h = hash_open();
    uint64_t at = 0;
    int32_t n = 0;
    kr_status st;

    if (!h) return KR_FAIL(KR_ERR_MEM, "no memory for a checksum");
    TRY_OR(st, mem_alloc(&list, (size_t)count, sizeof *list, "list of ranges"), done);
    for (int32_t i = 0; i < count; i++)
        if (ranges[i].shard == shard) list[n++] = &ranges[i];
    if (n) qsort(list, (size_t)n, sizeof *list, by_offset);
    for (int32_t i = 0; i < n; i++) {
        TRY_OR(st, add_bytes(h, fd, path, at, list[i]->offset), done);
        at = list[i]->offset + range_bytes(tensors, list[i]);
    }
    TRY_OR(st, add_bytes(h, fd, path, at, bytes), done);
    *out = hash_end(h);
done:
    mem_free(list);
    hash_close(h);
    return st;
}

kr_status shard_check_frame(const struct manifest *m, const char *folder, int32_t shard)
{
    char path[FS_PATH];
    uint64_t got = 0;
    kr_status st;
    int fd = -1;

    TRY(open_shard(m, folder, shard, path, &fd));
    st = shard_frame(fd, path, m->shards[shard].bytes, m->tensors, m->ranges,
                     m->range_count, shard, &got);
    close(fd);
    if (st == KR_OK && got != m->shards[shard].frame)
        st = KR_FAIL(KR_ERR_DATA, "%s: metadata differs from its checksum", path);
    return st;
}

kr_status shard_verify(const struct manifest *m, const char *folder, int32_t shard)
{
    char path[FS_PATH];
    struct desk d;
    kr_status st;
    int fd = -1;

    TRY(shard_check_frame(m, folder, shard));
    TRY(set_desk(&d));
    TRY_OR(st, need_block(&d, CKPT_BLOCK), done);
    TRY_OR(st, open_shard(m, folder, shard, path, &fd), done);
    for (int32_t i = 0; i < m->range_count && st == KR_OK; i++) {
        const struct ckpt_range *r = &m->ranges[i];
        uint64_t bytes = range_bytes(m->tensors, r);

        if (r->shard != shard) continue;
        for (int64_t b = 0; (uint64_t)b * CKPT_BLOCK < bytes && st == KR_OK; b++)
            st = read_block(fd, path, r, bytes, b, d.block, d.hash);
    }
done:
    if (fd >= 0) close(fd);
    clear_desk(&d);
    return st;
}
