/* tool.c - the command `ckpt`. */
#include "checkpoints/tool.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/catalog.h"
#include "checkpoints/lease.h"
#include "checkpoints/shard_read.h"
#include "scheduler/exitcode.h"

enum { PIECE = 1 << 20 /* elements read at a time */ };

static void help(FILE *out)
{
    fputs("usage: kilorank ckpt list|verify|show|hash DIR\n"
          "       kilorank ckpt diff DIR DIR\n"
          "       kilorank ckpt prune DIR [--keep N]\n\n"
          "Look at checkpoints.  DIR is a run directory (its newest valid checkpoint is\n"
          "meant) or one checkpoint.\n\n"
          "  list     every checkpoint of the run\n"
          "  verify   read every byte and check it; exit code 3 if something is wrong\n"
          "  show     tensors and settings\n"
          "  hash     one hash of the logical state: equal hash, equal bits, however it "
          "is\n"
          "           sharded\n"
          "  diff     which tensors differ and by how much; exit code 1 if any does\n"
          "  prune    delete all but the N (2) newest\n\n"
          "  kilorank ckpt hash runs/a\n",
          out);
}

static int code_of(kr_status st)
{
    if (st == KR_OK) return EXIT_DONE;
    if (st == KR_ERR_ARG) return EXIT_USAGE;
    if (st == KR_ERR_BUSY) return EXIT_BUSY;
    return st == KR_ERR_IO ? EXIT_IO : EXIT_NO_CHECKPOINT;
}

/* ---- finding ---------------------------------------------------------------------------- */

struct opened {
    char path[FS_PATH];
    struct manifest m;
};

static bool is_checkpoint(const char *dir)
{
    char path[FS_PATH];

    return fs_path(path, "%s/manifest.json", dir) == KR_OK && fs_exists(path);
}

static kr_status newest_of(const char *run, char path[FS_PATH])
{
    struct catalog c;
    kr_status st = KR_OK;

    TRY(catalog_open(&c, run));
    if (c.count == 0)
        st = KR_FAIL(KR_ERR_ARG, "%s: no checkpoint there", run);
    else if (c.valid == 0)
        st = KR_FAIL(KR_ERR_NO_CKPT, "%s: %d checkpoints, none of them valid", run,
                     c.count);
    else
        st = fs_path(path, "%s", c.list[0].path);
    catalog_close(&c);
    return st;
}

static kr_status open_one(const char *dir, struct opened *out)
{
    if (is_checkpoint(dir))
        TRY(fs_path(out->path, "%s", dir));
    else
        TRY(newest_of(dir, out->path));
    return manifest_read(&out->m, out->path);
}

/* ---- list, show, verify ----------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static kr_status list(const char *dir)
{
    struct catalog c;

    TRY(catalog_open(&c, dir));
    if (c.count == 0) {
        catalog_close(&c);
        return KR_FAIL(KR_ERR_ARG, "%s: no checkpoint there", dir);
    }
    printf("%-24s %10s %11s %6s %10s  %s\n", "checkpoint", "step", "generation", "ranks",
           "MiB", "manifest");
    for (int32_t i = 0; i < c.count; i++) {
        const struct catalog_entry *e = &c.list[i];

        if (e->valid)
            printf("%-24s %10" PRId64 " %11" PRId64 " %6" PRId32 " %10.1f  valid\n",
                   base_name(e->path), e->step, e->generation, e->world,
                   (double)e->bytes / 0x1p20);
        else
            printf("%-24s %10s %11s %6s %10s  invalid\n", base_name(e->path), "-", "-",
                   "-", "-");
    }
    catalog_close(&c);
    return KR_OK;
}

static kr_status show(const char *dir)
{
    static const char *const types[] = { "f32", "f64", "bf16" };
    struct opened o;

    TRY(open_one(dir, &o));
    printf("%s\nstep %" PRId64 ", samples %" PRId64 ", generation %" PRId64
           ", written by %" PRId32 " ranks of %s\n\n%s\n%-44s %12s %12s  %s\n",
           o.path, o.m.step, o.m.samples, o.m.generation, o.m.world, o.m.about,
           o.m.settings, "tensor", "rows", "cols", "type");
    for (int32_t i = 0; i < o.m.tensor_count; i++)
        printf("%-44s %12" PRId64 " %12" PRId64 "  %s\n", o.m.tensors[i].name,
               o.m.tensors[i].rows, o.m.tensors[i].cols, types[o.m.tensors[i].type]);
    manifest_free(&o.m);
    return KR_OK;
}

static kr_status verify_one(const char *path)
{
    struct manifest m;
    kr_status st = KR_OK;
    uint64_t bytes = 0;

    TRY(manifest_read(&m, path));
    for (int32_t i = 0; i < m.shard_count; i++) {
        kr_status one = shard_verify(&m, path, i);

        if (one != KR_OK) st = KR_ERR_NO_CKPT;
        bytes += m.shards[i].bytes;
    }
    if (st == KR_OK)
        printf("%s: step %" PRId64 ", %" PRId32
               " shards, %.1f MiB: every byte is right\n",
               path, m.step, m.shard_count, (double)bytes / 0x1p20);
    manifest_free(&m);
    return st;
}

static kr_status verify(const char *dir)
{
    struct catalog c;
    kr_status st = KR_OK;

    if (is_checkpoint(dir)) return verify_one(dir);
    TRY(catalog_open(&c, dir));
    if (c.count == 0) st = KR_FAIL(KR_ERR_ARG, "%s: no checkpoint there", dir);
    for (int32_t i = 0; i < c.count; i++)
        if (!c.list[i].valid || verify_one(c.list[i].path) != KR_OK) st = KR_ERR_NO_CKPT;
    catalog_close(&c);
    return st;
}

/* ---- hash ------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct ckpt_tensor *x = *(const struct ckpt_tensor *const *)a;
    const struct ckpt_tensor *y = *(const struct ckpt_tensor *const *)b;

    return strcmp(x->name, y->name);
}

/* Name, shape, type and all elements in order. */
static kr_status hash_tensor(const struct opened *o, int32_t i, struct hash *h, char *buf)
{
    const struct ckpt_tensor *t = &o->m.tensors[i];
    int64_t total = t->rows * t->cols, head[3] = { t->rows, t->cols, t->type };

    hash_add(h, t->name, strlen(t->name) + 1);
    hash_add(h, head, sizeof head);
    for (int64_t at = 0; at < total; at += PIECE) {
        int64_t n = total - at < PIECE ? total - at : PIECE;

        TRY(shard_read(&o->m, o->path, i, at, n, buf));
        hash_add(h, buf, (size_t)n * kern_dtype_bytes(t->type));
    }
    return KR_OK;
}

static kr_status hash_all(const struct opened *o, char out[33])
{
    const struct ckpt_tensor **order = NULL;
    int64_t cursor[2] = { o->m.step, o->m.samples };
    struct hash *h = hash_open();
    char *buf = NULL;
    kr_status st;

    if (!h) return KR_FAIL(KR_ERR_MEM, "no memory for a hash");
    TRY_OR(st, mem_alloc(&buf, PIECE, 8, "a buffer"), done);
    TRY_OR(st, mem_alloc(&order, (size_t)o->m.tensor_count, sizeof *order, "names"),
           done);
    for (int32_t i = 0; i < o->m.tensor_count; i++)
        order[i] = &o->m.tensors[i];
    qsort(order, (size_t)o->m.tensor_count, sizeof *order, by_name);
    hash_add(h, cursor, sizeof cursor);
    for (int32_t i = 0; i < o->m.tensor_count; i++)
        TRY_OR(st, hash_tensor(o, (int32_t)(order[i] - o->m.tensors), h, buf), done);
    hash_hex(h, out);
done:
    mem_free(buf);
    mem_free(order);
    hash_close(h);
    return st;
}

static kr_status hash(const char *dir)
{
    struct opened o;
    char hex[33];
    kr_status st;

    TRY(open_one(dir, &o));
    st = hash_all(&o, hex);
    manifest_free(&o.m);
    if (st == KR_OK) puts(hex);
    return st;
}

/* ---- diff ------------------------------------------------------------------------------- */

static double element(const char *buf, enum kern_dtype type, int64_t i)
{
    uint32_t wide;
    float f;

    if (type == KERN_F64) return ((const double *)buf)[i];
    if (type == KERN_F32) return (double)((const float *)buf)[i];
    wide = (uint32_t)((const uint16_t *)buf)[i] << 16;
    memcpy(&f, &wide, sizeof f);
    return (double)f;
}

struct difference {
    int64_t count;
    double most;
};

static kr_status diff_tensor(const struct opened *a, const struct opened *b, int32_t i,
                             int32_t k, char *left, char *right, struct difference *d)
{
    const struct ckpt_tensor *t = &a->m.tensors[i];
    int64_t total = t->rows * t->cols;
    size_t elem = kern_dtype_bytes(t->type);

    for (int64_t at = 0; at < total; at += PIECE) {
        int64_t n = total - at < PIECE ? total - at : PIECE;

        TRY(shard_read(&a->m, a->path, i, at, n, left));
        TRY(shard_read(&b->m, b->path, k, at, n, right));
        for (int64_t e = 0; e < n; e++) {
            double gap = fabs(element(left, t->type, e) - element(right, t->type, e));

            if (memcmp(left + (size_t)e * elem, right + (size_t)e * elem, elem) == 0)
                continue;
            d->count++;
            if (!(gap <= d->most)) d->most = gap;
        }
    }
    return KR_OK;
}

static bool alike(const struct ckpt_tensor *a, const struct ckpt_tensor *b)
{
    return a->rows == b->rows && a->cols == b->cols && a->type == b->type;
}

/* Print what differs; *differ counts tensors. */
static kr_status diff_all(const struct opened *a, const struct opened *b, char *left,
                          char *right, int64_t *differ)
{
    for (int32_t i = 0; i < a->m.tensor_count; i++) {
        const struct ckpt_tensor *t = &a->m.tensors[i];
        int32_t k = manifest_find(&b->m, t->name);
        struct difference d = { 0 };

        if (k < 0 || !alike(t, &b->m.tensors[k])) {
            printf("%-44s %s\n", t->name,
                   k < 0 ? "only in the first" : "other shape or type");
            ++*differ;
            continue;
        }
        TRY(diff_tensor(a, b, i, k, left, right, &d));
        if (d.count == 0) continue;
        printf("%-44s %" PRId64 " of %" PRId64 " elements, largest difference %g\n",
               t->name, d.count, t->rows * t->cols, d.most);
        ++*differ;
    }
    for (int32_t k = 0; k < b->m.tensor_count; k++)
        if (manifest_find(&a->m, b->m.tensors[k].name) < 0) {
            printf("%-44s only in the second\n", b->m.tensors[k].name);
            ++*differ;
        }
    return KR_OK;
}

static kr_status diff(const char *first, const char *second, int64_t *differ)
{
    struct opened a = { 0 }, b = { 0 };
    char *left = NULL, *right = NULL;
    kr_status st;

    TRY_OR(st, open_one(first, &a), done);
    TRY_OR(st, open_one(second, &b), done);
    TRY_OR(st, mem_alloc(&left, PIECE, 8, "a buffer"), done);
    TRY_OR(st, mem_alloc(&right, PIECE, 8, "a buffer"), done);
    if (a.m.step != b.m.step)
        printf("step %" PRId64 " and %" PRId64 "\n", a.m.step, b.m.step);
    *differ += a.m.step != b.m.step;
    TRY_OR(st, diff_all(&a, &b, left, right, differ), done);
    if (*differ == 0) printf("equal, bit for bit\n");
done:
    mem_free(left);
    mem_free(right);
    manifest_free(&a.m);
    manifest_free(&b.m);
    return st;
}

/* ---- prune, main ------------------------------------------------------------------------ */

static kr_status prune(const char *dir, int32_t keep)
{
    struct lease *lease = NULL;
    struct catalog c;
    int32_t removed = 0;
    int64_t newest = 0;
    kr_status st;

    TRY(catalog_open(&c, dir));
    for (int32_t i = 0; i < c.valid; i++)
        if (c.list[i].generation > newest) newest = c.list[i].generation;
    if (c.count == 0)
        st = KR_FAIL(KR_ERR_ARG, "%s: no checkpoint there", dir);
    else
        st = lease_take(&lease, dir, newest);
    catalog_close(&c);
    if (st != KR_OK) return st;
    st = catalog_prune(dir, keep, lease_generation(lease), false, &removed);
    lease_give_back(lease);
    printf("removed %" PRId32 " checkpoints\n", removed);
    return st;
}

static kr_status parse_keep(int argc, char **argv, int32_t *keep)
{
    char *end = NULL;
    long n = 2;

    if (argc > 3) {
        if (argc != 5 || strcmp(argv[3], "--keep") != 0)
            return KR_FAIL(KR_ERR_ARG, "ckpt prune: %s: want DIR [--keep N]", argv[3]);
        n = strtol(argv[4], &end, 10);
        if (end == argv[4] || *end || n < 1 || n > 1000000)
            return KR_FAIL(KR_ERR_ARG,
                           "ckpt prune: --keep %s: want a whole number from 1 to "
                           "1000000",
                           argv[4]);
    }
    *keep = (int32_t)n;
    return KR_OK;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

int ckpt_tool_main(int argc, char **argv)
{
    static const struct {
        const char *name;
        kr_status (*run)(const char *dir);
    } simple[] = {
        { "list", list }, { "show", show }, { "verify", verify }, { "hash", hash }
    };
    const char *what = argc > 1 ? argv[1] : "";
    int64_t differ = 0;
    int32_t keep = 2;
    kr_status st;

    if (wants_help(argc, argv)) {
        help(stdout);
        return EXIT_DONE;
    }
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (argc == 3 && strcmp(what, simple[i].name) == 0)
            return code_of(simple[i].run(argv[2]));
    if (strcmp(what, "diff") == 0 && argc == 4) {
        st = diff(argv[2], argv[3], &differ);
        return st == KR_OK && differ ? EXIT_FAILED : code_of(st);
    }
    if (strcmp(what, "prune") == 0 && argc >= 3) {
        st = parse_keep(argc, argv, &keep);
        return code_of(st == KR_OK ? prune(argv[2], keep) : st);
    }
    (void)KR_FAIL(KR_ERR_ARG,
                  "ckpt: want list, verify, show, hash or prune and a DIR, or "
                  "diff and two (see --help)");
    return EXIT_USAGE;
}
