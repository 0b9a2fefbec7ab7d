/* shard_write.c - plain writes at the offsets that HDF5 chose, a checksum per block. */
#include "checkpoints/shard_write.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "checkpoints/shard_file.h"
#include "checkpoints/shard_read.h"

kr_status shard_job_fill(struct shard_job *job, const struct ckpt_state *s, int32_t shard,
                         const char *from)
{
    struct ckpt_tensor *tensors = NULL;

    TRY(mem_alloc(&tensors, (size_t)s->tensor_count, sizeof *tensors, "tensors"));
    memcpy(tensors, s->tensors, (size_t)s->tensor_count * sizeof *tensors);
    job->tensors = tensors;
    TRY(mem_alloc(&job->ranges, (size_t)s->piece_count, sizeof *job->ranges, "ranges"));
    TRY(mem_alloc(&job->bytes, (size_t)s->piece_count, sizeof *job->bytes, "ranges"));
    for (int32_t i = 0; i < s->piece_count; i++) {
        const struct ckpt_piece *p = &s->pieces[i];

        job->ranges[i] = (struct ckpt_range){
            .tensor = p->tensor, .shard = shard, .begin = p->begin, .count = p->count
        };
        job->bytes[i] = from;
        from += piece_bytes(s, i);
    }
    job->count = s->piece_count;
    return KR_OK;
}

void shard_job_free(struct shard_job *job)
{
    for (int32_t i = 0; job->ranges && i < job->count; i++)
        mem_free(job->ranges[i].blocks);
    mem_free(job->ranges);
    mem_free(job->bytes);
    mem_free((void *)(uintptr_t)job->tensors);
    *job = (struct shard_job){ 0 };
}

static kr_status write_range(struct shard_job *job, int fd, int32_t i)
{
    struct ckpt_range *r = &job->ranges[i];
    const struct ckpt_tensor *t = &job->tensors[r->tensor];
    uint64_t bytes = (uint64_t)r->count * kern_dtype_bytes(t->type);
    int64_t blocks = manifest_blocks(t, r->count);
    const char *at = NULL;

    if (job->bytes)
        at = job->bytes[i];
    else
        TRY(job->ask(job->self, i, &at));
    TRY(mem_alloc(&r->blocks, (size_t)blocks, sizeof *r->blocks, "checksums"));
    for (int64_t b = 0; b < blocks; b++) {
        uint64_t from = (uint64_t)b * CKPT_BLOCK;
        size_t n = bytes - from < CKPT_BLOCK ? (size_t)(bytes - from) : CKPT_BLOCK;

        TRY(fs_pwrite(fd, job->path, at + from, n, r->offset + from));
        fs_start_flush(fd, r->offset + from, n);
        r->blocks[b] = hash64(at + from, n);
    }
    return KR_OK;
}

static kr_status write_ranges(struct shard_job *job, int fd)
{
    for (int32_t i = 0; i < job->count; i++)
        TRY(write_range(job, fd, i));
    TRY(fs_size(fd, job->path, &job->shard.bytes));
    TRY(shard_frame(fd, job->path, job->shard.bytes, job->tensors, job->ranges,
                    job->count, job->ranges ? job->ranges[0].shard : 0,
                    &job->shard.frame));
    return fs_fsync(fd, job->path);
}

kr_status shard_write(struct shard_job *job)
{
    kr_status st, closed;
    int fd;

    TRY(shard_file_create(job->path, job->tensors, job->ranges, job->count));
    TRY(fs_open(&fd, job->path, O_RDWR));
    st = write_ranges(job, fd);
    closed = fs_close(fd, job->path);
    return st == KR_OK ? closed : st;
}

/* ---- parts of the manifest -------------------------------------------------------------- */

kr_status shard_part_print(const struct shard_job *job, char **text)
{
    struct mem_text t = { 0 };

    mem_printf(&t, "%s %" PRIu64 " %" PRIx64 " %" PRId32 "\n", job->shard.file,
               job->shard.bytes, job->shard.frame, job->count);
    for (int32_t i = 0; i < job->count; i++) {
        const struct ckpt_range *r = &job->ranges[i];

        mem_printf(&t, "%" PRId32 " %" PRId64 " %" PRId64 " %" PRIu64, r->tensor,
                   r->begin, r->count, r->offset);
        for (int64_t b = 0; b < manifest_blocks(&job->tensors[r->tensor], r->count); b++)
            mem_printf(&t, " %" PRIx64, r->blocks[b]);
        mem_printf(&t, "\n");
    }
    if (t.failed) {
        mem_text_free(&t);
        return KR_FAIL(KR_ERR_MEM, "no memory for a part of the manifest");
    }
    *text = t.at;
    return KR_OK;
}

/* Next number in *at. */
static uint64_t take(const char **at, int base)
{
    char *end;
    uint64_t v = strtoull(*at, &end, base);

    *at = end;
    return v;
}

static kr_status join_range(const char **at, int32_t shard, struct manifest *m)
{
    struct ckpt_range *r = &m->ranges[m->range_count];
    int64_t blocks;

    r->tensor = (int32_t)take(at, 10);
    r->shard = shard;
    r->begin = (int64_t)take(at, 10);
    r->count = (int64_t)take(at, 10);
    r->offset = take(at, 10);
    blocks = manifest_blocks(&m->tensors[r->tensor], r->count);
    TRY(mem_alloc(&r->blocks, (size_t)blocks, sizeof *r->blocks, "checksums"));
    m->range_count++;
    for (int64_t b = 0; b < blocks; b++)
        r->blocks[b] = take(at, 16);
    return KR_OK;
}

static kr_status join_part(const char **at, int32_t shard, struct manifest *m)
{
    struct ckpt_shard *s = &m->shards[shard];
    struct ckpt_range *more;
    int32_t count;
    int used = 0;

    if (sscanf(*at, "%127s %" SCNu64 " %" SCNx64 " %" SCNd32 "%n", s->file, &s->bytes,
               &s->frame, &count, &used) != 4)
        return KR_FAIL(KR_ERR_DATA, "a rank sent no part of the manifest");
    *at += used;
    more = realloc(m->ranges, (size_t)(m->range_count + count + 1) * sizeof *more);
    if (!more) return KR_FAIL(KR_ERR_MEM, "no memory for the manifest");
    m->ranges = more;
    m->shard_count++;
    for (int32_t i = 0; i < count; i++)
        TRY(join_range(at, shard, m));
    *at += strlen(*at) + 1;
    return KR_OK;
}

static int by_element(const void *a, const void *b)
{
    const struct ckpt_range *x = a, *y = b;

    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

kr_status shard_parts_join(const char *parts, int32_t ranks, struct manifest *m)
{
    TRY(mem_alloc(&m->shards, (size_t)ranks, sizeof *m->shards, "list of shards"));
    for (int32_t r = 0; r < ranks; r++)
        TRY(join_part(&parts, r, m));
    if (m->range_count)
        qsort(m->ranges, (size_t)m->range_count, sizeof *m->ranges, by_element);
    return KR_OK;
}
