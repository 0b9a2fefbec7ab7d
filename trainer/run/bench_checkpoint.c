/*
 * bench_checkpoint.c - `bench checkpoint`: GB/s beside plain files of the same bytes.
 *
 *   write   a shard: create as HDF5, data, checksums, fsync      plain: write + fsync
 *   read    the shard with all its checks                        plain: read
 *
 * Both reads come from the page cache: what is compared is our work, not the disk's.
 * Rounds are interleaved; medians.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"
#include "checkpoints/shard_read.h"
#include "checkpoints/shard_write.h"
#include "trainer/run/bench.h"

enum { MAX_ROUNDS = 1000, TENSORS = 16 };

struct files {
    char folder[FS_PATH], plain[FS_PATH];
    struct ckpt_tensor tensors[TENSORS];
    struct ckpt_range ranges[TENSORS];
    const char *bytes[TENSORS];
    struct shard_job job;
    char *data, *back;
    size_t total;
};

static void free_blocks(struct files *f)
{
    for (int i = 0; i < TENSORS; i++) {
        mem_free(f->ranges[i].blocks);
        f->ranges[i].blocks = NULL;
    }
}

static kr_status open_files(struct files *f, const struct bench_args *a)
{
    int64_t each = (int64_t)(a->mib * 1048576 / TENSORS / 4);

    TRY(fs_path(f->folder, "%s/kilorank-bench-%d", a->dir, (int)getpid()));
    TRY(fs_mkdirs(f->folder));
    TRY(fs_path(f->plain, "%s/plain", f->folder));
    f->total = (size_t)each * 4 * TENSORS;
    TRY(mem_alloc(&f->data, f->total, 1, "data"));
    TRY(mem_alloc(&f->back, f->total, 1, "data"));
    for (size_t i = 0; i + 8 <= f->total; i += 8) {
        uint64_t x = i * 0x9E3779B97F4A7C15u;

        memcpy(f->data + i, &x, 8);
    }
    for (int i = 0; i < TENSORS; i++) {
        snprintf(f->tensors[i].name, sizeof f->tensors[i].name, "weight/t%d", i);
        f->tensors[i].rows = 1;
        f->tensors[i].cols = each;
        f->ranges[i] = (struct ckpt_range){ .tensor = i, .count = each };
        f->bytes[i] = f->data + (size_t)i * (size_t)each * 4;
    }
    return KR_OK;
}

static kr_status write_ours(struct files *f)
{
    free_blocks(f);
    f->job = (struct shard_job){ .tensors = f->tensors,
                                 .ranges = f->ranges,
                                 .bytes = f->bytes,
                                 .count = TENSORS,
                                 .shard = { .file = "shard-00000.h5" } };
    TRY(fs_path(f->job.path, "%s/shard-00000.h5", f->folder));
    (void)unlink(f->job.path);
    return shard_write(&f->job);
}

static kr_status write_plain(struct files *f)
{
    kr_status st;
    int fd;

    (void)unlink(f->plain);
    TRY(fs_open(&fd, f->plain, O_WRONLY | O_CREAT | O_TRUNC));
    st = fs_pwrite(fd, f->plain, f->data, f->total, 0);
    if (st == KR_OK) st = fs_fsync(fd, f->plain);
    close(fd);
    return st;
}

static kr_status read_ours(struct files *f)
{
    struct ckpt_shard shard = f->job.shard;
    struct manifest m = { .tensors = f->tensors,
                          .ranges = f->ranges,
                          .shards = &shard,
                          .tensor_count = TENSORS,
                          .range_count = TENSORS,
                          .shard_count = 1 };

    TRY(shard_check_frame(&m, f->folder, 0));
    for (int i = 0; i < TENSORS; i++)
        TRY(shard_read(&m, f->folder, i, 0, f->tensors[i].cols,
                       f->back + (f->bytes[i] - f->data)));
    return KR_OK;
}

static kr_status read_plain(struct files *f)
{
    kr_status st;
    int fd;

    TRY(fs_open(&fd, f->plain, O_RDONLY));
    st = fs_pread(fd, f->plain, f->back, f->total, 0);
    close(fd);
    return st;
}

static kr_status measure(struct files *f, int64_t rounds)
{
    static const struct {
        const char *name;
        kr_status (*run)(struct files *f);
    } ways[] = { { "write", write_ours },
                 { "write", write_plain },
                 { "read", read_ours },
                 { "read", read_plain } };
    static double times[4][MAX_ROUNDS];

    for (int64_t i = -1; i < rounds; i++)
        for (int w = 0; w < 4; w++) {
            double start = clock_now();

            TRY(ways[w].run(f));
            if (i >= 0) times[w][i] = clock_now() - start;
        }
    if (memcmp(f->back, f->data, f->total) != 0)
        return KR_FAIL(KR_ERR_DATA, "read back other bytes");
    printf("%.0f MiB in %s, median of %lld interleaved rounds\n"
           "GB/s: bytes of tensors / time, 1 GB = 1e9 bytes, writes to the end of fsync\n"
           "ours: a shard, every block's checksum taken or checked; plain: the same "
           "bytes\n\n"
           "%-8s %12s %12s %8s\n",
           (double)f->total / 0x1p20, f->folder, (long long)rounds, "", "ours GB/s",
           "plain GB/s", "ratio");
    for (int w = 0; w < 4; w += 2) {
        double a = (double)f->total / bench_median(times[w], rounds) / 1e9;
        double b = (double)f->total / bench_median(times[w + 1], rounds) / 1e9;

        printf("%-8s %12.3f %12.3f %8.3f\n", ways[w].name, a, b, a / b);
    }
    return KR_OK;
}

kr_status bench_checkpoint(struct comm *c, const struct bench_args *a)
{
    struct files *f = NULL;
    kr_status st;

    if (comm_rank(c) != 0) return KR_OK;
    TRY(mem_alloc(&f, 1, sizeof *f, "files"));
    st = open_files(f, a);
    if (st == KR_OK) st = measure(f, a->rounds);
    free_blocks(f);
    mem_free(f->data);
    mem_free(f->back);
    if (f->folder[0]) (void)fs_remove_tree(f->folder);
    mem_free(f);
    return st;
}
