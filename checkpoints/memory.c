/* memory.c - reserve, write, look, read. */
#include "checkpoints/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

enum { PAGE = 4096 };

static const char magic[8] = "KRMEMORY";
static const double lock_patience = 2; /* seconds */

_Static_assert(sizeof(struct memory_head) == 128, "heads are read by later programs");

struct memory {
    char path[FS_PATH];
    int fd, buffers;
    uint64_t bytes;
    struct memory_head held[MEMORY_BUFFERS]; /* step -1: nothing */
    uint64_t *sums;
};

static uint64_t pages(uint64_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

static uint64_t blocks_of(uint64_t bytes)
{
    return (bytes + CKPT_BLOCK - 1) / CKPT_BLOCK;
}

static uint64_t payload_at(uint64_t bytes)
{
    return PAGE + pages(blocks_of(bytes) * sizeof(uint64_t));
}

/* Bytes of a buffer, and so the place of the second one. */
static uint64_t stride(uint64_t bytes) { return payload_at(bytes) + pages(bytes); }

static uint64_t seal_of(const struct memory_head *h)
{
    return hash64(h, offsetof(struct memory_head, seal));
}

/* ---- the folder ----------------------------------------------------------------------- */

static kr_status is_ours(const char *path)
{
    struct stat s;

    if (lstat(path, &s) != 0) return KR_FAIL(KR_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(s.st_mode) || s.st_uid != geteuid() || (s.st_mode & 077) != 0)
        return KR_FAIL(KR_ERR_IO, "%s: not a folder of ours alone; it is not used", path);
    return KR_OK;
}

static void name_place(char out[64], struct memory_run run)
{
    snprintf(out, 64, "kilorank-%u-%016" PRIx64 "-", (unsigned)geteuid(), run.place);
}

kr_status memory_folder(char out[FS_PATH], const char *dir, struct memory_run run,
                        const char *node)
{
    char place[64];

    name_place(place, run);
    return fs_path(out, "%s/%s%016" PRIx64 "-%s", dir, place, run.identity, node);
}

/* `name` is a folder that an earlier run in this place left on this node. */
static bool is_left(const char *name, const char *place, struct memory_run run,
                    const char *node)
{
    size_t n = strlen(place);
    char *end;

    if (strncmp(name, place, n) != 0) return false;
    return strtoull(name + n, &end, 16) != run.identity && *end == '-' &&
           strcmp(end + 1, node) == 0;
}

static void sweep(const char *dir, struct memory_run run, const char *node)
{
    char place[64], path[FS_PATH], **names;
    size_t count;

    name_place(place, run);
    if (fs_list(dir, &names, &count) != KR_OK) return;
    for (size_t i = 0; i < count; i++)
        if (is_left(names[i], place, run, node) &&
            fs_path(path, "%s/%s", dir, names[i]) == KR_OK && is_ours(path) == KR_OK)
            (void)fs_remove_tree(path);
    fs_free_names(names, count);
}

void memory_remove(const char *dir, struct memory_run run)
{
    char prefix[96], path[FS_PATH], **names;
    size_t count;

    name_place(prefix, run);
    snprintf(prefix + strlen(prefix), 32, "%016" PRIx64 "-", run.identity);
    if (fs_list(dir, &names, &count) != KR_OK) return;
    for (size_t i = 0; i < count; i++)
        if (strncmp(names[i], prefix, strlen(prefix)) == 0 &&
            fs_path(path, "%s/%s", dir, names[i]) == KR_OK && is_ours(path) == KR_OK)
            (void)fs_remove_tree(path);
    fs_free_names(names, count);
}

kr_status memory_prepare(const char *dir, struct memory_run run, const char *node)
{
    char path[FS_PATH];

    TRY(memory_folder(path, dir, run, node));
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return KR_FAIL(KR_ERR_IO, "%s: cannot make this folder: %s", path,
                       strerror(errno));
    TRY(is_ours(path));
    sweep(dir, run, node);
    return KR_OK;
}

/* ---- writing -------------------------------------------------------------------------- */

/* A head that is what it says, wherever it came from. */
static bool is_sealed(const struct memory_head *h)
{
    return memcmp(h->magic, magic, sizeof magic) == 0 && h->version == MEMORY_VERSION &&
           h->block == CKPT_BLOCK && h->seal == seal_of(h) && h->world > 0 &&
           h->rank >= 0 && h->rank < h->world && h->step >= 0 &&
           h->bytes <= UINT64_C(1) << 50;
}

static kr_status lock(int fd, const char *path)
{
    for (double end = clock_now() + lock_patience; flock(fd, LOCK_EX | LOCK_NB) != 0;) {
        if (clock_now() > end)
            return KR_FAIL(KR_ERR_BUSY, "%s: another process writes it", path);
        clock_sleep(0.02);
    }
    return KR_OK;
}

/* All pages now, so that no later write can fail for want of them.  Without room the file
 * stays as it was: it may hold the newest snapshot there is. */
static kr_status reserve(struct memory *m)
{
    uint64_t have, want = stride(m->bytes) * (uint64_t)m->buffers;
    int error = 0;

    TRY(fs_size(m->fd, m->path, &have));
    /* a first buffer stays where it is when the number of buffers changes */
    if (have > want && ftruncate(m->fd, (off_t)want) != 0) error = errno;
    if (error == 0) do
            error = posix_fallocate(m->fd, 0, (off_t)want);
        while (error == EINTR);
    if (error == 0) return KR_OK;
    if (have == 0)
        (void)unlink(m->path);
    else if (have < want)
        (void)!ftruncate(m->fd, (off_t)have);
    return KR_FAIL(KR_ERR_IO, "%s: no room for %" PRIu64 " MiB: %s", m->path, want >> 20,
                   strerror(error));
}

static kr_status learn(struct memory *m)
{
    for (int i = 0; i < m->buffers; i++) {
        TRY(fs_pread(m->fd, m->path, &m->held[i], sizeof m->held[i],
                     stride(m->bytes) * (uint64_t)i));
        if (!is_sealed(&m->held[i]) || m->held[i].bytes != m->bytes)
            m->held[i] = (struct memory_head){ .generation = -1, .step = -1 };
    }
    return KR_OK;
}

kr_status memory_open(struct memory **out, const char *path, uint64_t bytes, int buffers)
{
    struct memory *m = NULL;
    kr_status st;

    TRY(mem_alloc(&m, 1, sizeof *m, "memory of a part"));
    m->fd = -1;
    m->bytes = bytes;
    m->buffers = buffers;
    TRY_OR(st, fs_path(m->path, "%s", path), done);
    TRY_OR(st, fs_open(&m->fd, path, O_RDWR | O_CREAT | O_NOFOLLOW), done);
    TRY_OR(st, lock(m->fd, path), done);
    TRY_OR(st, reserve(m), done);
    TRY_OR(st, mem_alloc(&m->sums, blocks_of(bytes) + 1, sizeof *m->sums, "checksums"),
           done);
    TRY_OR(st, learn(m), done);
    *out = m;
done:
    if (st != KR_OK) memory_close(m);
    return st;
}

void memory_close(struct memory *m)
{
    if (!m) return;
    if (m->fd >= 0) close(m->fd);
    mem_free(m->sums);
    mem_free(m);
}

static kr_status put_head(struct memory *m, int i, const struct memory_head *h)
{
    char page[PAGE] = { 0 };

    if (h) memcpy(page, h, sizeof *h);
    m->held[i] = h ? *h : (struct memory_head){ .generation = -1, .step = -1 };
    return fs_pwrite(m->fd, m->path, page, sizeof page, stride(m->bytes) * (uint64_t)i);
}

static int older(const struct memory *m)
{
    const struct memory_head *a = &m->held[0], *b = &m->held[1];

    if (m->buffers == 1) return 0;
    if (a->generation != b->generation) return a->generation > b->generation;
    return a->step > b->step;
}

static kr_status put_payload(struct memory *m, uint64_t at, const char *payload)
{
    for (uint64_t b = 0; b < blocks_of(m->bytes); b++) {
        uint64_t from = b * CKPT_BLOCK;
        size_t n = m->bytes - from < CKPT_BLOCK ? (size_t)(m->bytes - from) : CKPT_BLOCK;

        TRY(fs_pwrite(m->fd, m->path, payload + from, n, at + from));
        m->sums[b] = hash64(payload + from, n);
    }
    return KR_OK;
}

kr_status memory_write(struct memory *m, struct memory_head *head, const char *payload,
                       bool told)
{
    size_t table = blocks_of(m->bytes) * sizeof(uint64_t);
    int i = older(m);
    uint64_t at = stride(m->bytes) * (uint64_t)i, sums;

    TRY(put_head(m, i, NULL));
    TRY(put_payload(m, at + payload_at(m->bytes), payload));
    sums = hash64(m->sums, table);
    if (told && (head->sums != sums || head->bytes != m->bytes))
        return KR_FAIL(KR_ERR_DATA, "%s: the copy differs from what was sent", m->path);
    memcpy(head->magic, magic, sizeof magic);
    head->version = MEMORY_VERSION;
    head->block = CKPT_BLOCK;
    head->bytes = m->bytes;
    head->sums = sums;
    head->seal = seal_of(head);
    TRY(fs_pwrite(m->fd, m->path, m->sums, table, at + PAGE));
    return put_head(m, i, head);
}

kr_status memory_forget(struct memory *m, int64_t step)
{
    for (int i = 0; i < m->buffers; i++)
        if (m->held[i].step == step) TRY(put_head(m, i, NULL));
    return KR_OK;
}

kr_status memory_void(const char *path, const struct memory_head *head, int32_t buffer)
{
    static const char page[PAGE];
    kr_status st;
    int fd;

    TRY(fs_open(&fd, path, O_RDWR | O_NOFOLLOW));
    st = fs_pwrite(fd, path, page, sizeof page, stride(head->bytes) * (uint64_t)buffer);
    close(fd);
    return st;
}

/* ---- reading -------------------------------------------------------------------------- */

/* The sums of a buffer, checked; the caller frees them. */
static kr_status get_sums(int fd, const char *path, const struct memory_head *h,
                          uint64_t begin, uint64_t **out)
{
    uint64_t count = blocks_of(h->bytes), *sums = NULL;
    kr_status st;

    TRY(mem_alloc(&sums, count + 1, sizeof *sums, "checksums"));
    st = fs_pread(fd, path, sums, count * sizeof *sums, begin + PAGE);
    if (st == KR_OK && hash64(sums, count * sizeof *sums) != h->sums)
        st = KR_FAIL(KR_ERR_DATA, "%s: step %" PRId64 ": checksums are damaged", path,
                     h->step);
    if (st == KR_OK)
        *out = sums;
    else
        mem_free(sums);
    return st;
}

static kr_status read_blocks(int fd, const char *path, const struct memory_head *h,
                             uint64_t begin, uint64_t at, uint64_t bytes, char *out)
{
    uint64_t *sums = NULL, end = at + bytes;
    char *block = NULL;
    kr_status st;

    TRY_OR(st, get_sums(fd, path, h, begin, &sums), done);
    TRY_OR(st, mem_alloc(&block, CKPT_BLOCK, 1, "a block"), done);
    for (uint64_t b = at / CKPT_BLOCK; b * CKPT_BLOCK < end; b++) {
        uint64_t from = b * CKPT_BLOCK, left = h->bytes - from;
        size_t n = left < CKPT_BLOCK ? (size_t)left : CKPT_BLOCK;
        uint64_t lo = at > from ? at : from, hi = end < from + n ? end : from + n;

        TRY_OR(st, fs_pread(fd, path, block, n, begin + payload_at(h->bytes) + from),
               done);
        if (hash64(block, n) != sums[b]) {
            st =
                KR_FAIL(KR_ERR_DATA, "%s: step %" PRId64 ": block %" PRIu64 " is damaged",
                        path, h->step, b);
            goto done;
        }
        if (out) memcpy(out + (lo - at), block + (lo - from), hi - lo);
    }
done:
    mem_free(sums);
    mem_free(block);
    return st;
}

kr_status memory_read(const char *path, const struct memory_head *head, int32_t buffer,
                      uint64_t at, uint64_t bytes, char *out)
{
    kr_status st;
    int fd;

    if (at > head->bytes || bytes > head->bytes - at)
        return KR_FAIL(KR_ERR_DATA, "%s: holds less than is asked for", path);
    if (bytes == 0) return KR_OK;
    TRY(fs_open(&fd, path, O_RDONLY | O_NOFOLLOW));
    st = read_blocks(fd, path, head, stride(head->bytes) * (uint64_t)buffer, at, bytes,
                     out);
    close(fd);
    return st;
}

/* One buffer of an open file.  *good: sealed, and whole if `deep`. */
static kr_status look_at(int fd, const char *path, bool deep, int i, uint64_t size,
                         struct memory_head *h, bool *good)
{
    uint64_t begin = size / 2 * (uint64_t)i;
    static const struct memory_head none;

    *good = false;
    TRY(fs_pread(fd, path, h, sizeof *h, begin));
    if (memcmp(h, &none, sizeof none) == 0) return KR_OK;
    if (!is_sealed(h) || begin + stride(h->bytes) > size ||
        (i == 1 && stride(h->bytes) != begin)) {
        /* the second half of a file with one buffer is payload */
        if (i == 0) LOG_WARNING("%s: buffer %d is no part of a snapshot", path, i);
        return KR_OK;
    }
    *good = !deep || read_blocks(fd, path, h, begin, 0, h->bytes, NULL) == KR_OK;
    if (!*good) LOG_WARNING("%s: step %" PRId64 " there is not used", path, h->step);
    return KR_OK;
}

kr_status memory_look(const char *path, bool deep, struct memory_head *heads,
                      int32_t *buffer, int32_t *count)
{
    uint64_t size;
    int32_t n = 0;
    kr_status st;
    int fd;

    TRY(fs_open(&fd, path, O_RDONLY | O_NOFOLLOW));
    st = fs_size(fd, path, &size);
    for (int i = 0; i < MEMORY_BUFFERS && st == KR_OK; i++) {
        bool good = false;

        if (size / 2 * (uint64_t)i + sizeof *heads > size) break;
        st = look_at(fd, path, deep, i, size, &heads[n], &good);
        if (good) buffer[n++] = i;
    }
    close(fd);
    if (st == KR_OK) *count = n;
    return st;
}
