/* shard_read.c - blocks, frames, whole shards. */
#include "checkpoints/shard_read.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"

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

/* Read block b of range r into buf (CKPT_BLOCK bytes) and check it. */
static kr_status read_block(int fd, const char *path, const struct ckpt_range *r,
                            uint64_t bytes, int64_t b, char *buf)
{
    uint64_t from = (uint64_t)b * CKPT_BLOCK;
    size_t n = bytes - from < CKPT_BLOCK ? (size_t)(bytes - from) : CKPT_BLOCK;

    TRY(fs_pread(fd, path, buf, n, r->offset + from));
    if (hash64(buf, n) == r->blocks[b]) return KR_OK;
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

/* Bytes [begin, end) of range r. */
static kr_status read_range(const struct manifest *m, const char *folder,
                            const struct ckpt_range *r, uint64_t begin, uint64_t end,
                            char *out, char *buf)
{
    uint64_t bytes = range_bytes(m->tensors, r);
    int64_t last = (int64_t)((end - 1) / CKPT_BLOCK);
    char path[FS_PATH];
    kr_status st = KR_OK;
    int fd = -1;

    TRY(open_shard(m, folder, r->shard, path, &fd));
    for (int64_t b = (int64_t)(begin / CKPT_BLOCK); b <= last && st == KR_OK; b++) {
        bool whole =
            (uint64_t)b * CKPT_BLOCK >= begin && ((uint64_t)b + 1) * CKPT_BLOCK <= end;
        char *to = whole ? out + ((uint64_t)b * CKPT_BLOCK - begin) : buf;

        st = read_block(fd, path, r, bytes, b, to);
        if (st == KR_OK && !whole) take(out, buf, begin, end, b);
    }
    close(fd);
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
    char *buf = NULL;
    kr_status st = KR_OK;

    TRY(mem_alloc(&buf, CKPT_BLOCK, 1, "a block"));
    for (int32_t i = first_range(m, tensor);
         i < m->range_count && m->ranges[i].tensor == tensor && st == KR_OK; i++) {
        const struct ckpt_range *r = &m->ranges[i];
        int64_t from = r->begin > begin ? r->begin : begin;
        int64_t to = r->begin + r->count < end ? r->begin + r->count : end;

        if (from >= to) continue;
        st = read_range(m, folder, r, (uint64_t)(from - r->begin) * elem,
                        (uint64_t)(to - r->begin) * elem,
                        (char *)out + (uint64_t)(from - begin) * elem, buf);
    }
    mem_free(buf);
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
    *out = hash_low(h);
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
    char path[FS_PATH], *buf = NULL;
    kr_status st;
    int fd = -1;

    TRY(shard_check_frame(m, folder, shard));
    TRY(mem_alloc(&buf, CKPT_BLOCK, 1, "a block"));
    TRY_OR(st, open_shard(m, folder, shard, path, &fd), done);
    for (int32_t i = 0; i < m->range_count && st == KR_OK; i++) {
        const struct ckpt_range *r = &m->ranges[i];
        uint64_t bytes = range_bytes(m->tensors, r);

        if (r->shard != shard) continue;
        for (int64_t b = 0; (uint64_t)b * CKPT_BLOCK < bytes && st == KR_OK; b++)
            st = read_block(fd, path, r, bytes, b, buf);
    }
done:
    if (fd >= 0) close(fd);
    mem_free(buf);
    return st;
}
