/* huge.c - the whole, then its last rows again, and a comparison of bytes. */
#include "tests/device/huge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

enum { MATS = 6, CHUNK = 100003 /* numbers, again and again; a prime */ };
enum { OUT, A, B, C, D, E };

struct huge {
    struct kern_device *device;
    struct kern_queue *q;
    enum kern_dtype type, wide;
    struct kern_mat m[MATS];
    int32_t *labels;
    struct kern_heads heads;
    int64_t rows, last; /* of the result; of them those that are made again */
};

static void must(kr_status st)
{
    if (st == KR_OK) return;
    printf("# huge: %s\n", kr_status_text(st));
    exit(99);
}

/* ---- operands ------------------------------------------------------------------------- */

static struct kern_mat normal(struct huge *h, int64_t rows, int64_t cols,
                              enum kern_dtype type)
{
    static float chunk[CHUNK];
    static int64_t begin; /* no two operands are alike */
    struct kern_mat m = kern_mat(NULL, rows, cols, type);
    struct kern_mat flat = kern_mat(NULL, 1, rows * cols, type), from;
    void *at = NULL;

    for (int i = 0; i < CHUNK && chunk[CHUNK - 1] == 0; i++)
        chunk[i] = (float)rng_normal(1, RNG_TEST, 0, (uint64_t)i);
    must(kern_alloc(h->device, &m.at, (size_t)flat.cols * kern_dtype_bytes(type),
                    "huge operand"));
    must(kern_alloc(h->device, &at, sizeof chunk, "numbers"));
    must(kern_upload(h->q, at, chunk, sizeof chunk));
    flat.at = m.at;
    begin = (begin + 7919) % CHUNK;
    for (int64_t k = 0, c = begin; k < flat.cols; k += from.cols, c = 0) {
        int64_t n = flat.cols - k < CHUNK - c ? flat.cols - k : CHUNK - c;

        from = kern_mat((float *)at + c, 1, n, KERN_F32);
        must(kern_copy(h->q, kern_cols(flat, k, n), from));
    }
    must(kern_queue_sync(h->q));
    kern_free(h->device, at);
    return m;
}

static void make_labels(struct huge *h, int64_t rows, int64_t below)
{
    int32_t *host = NULL;

    must(mem_alloc(&host, (size_t)rows, sizeof *host, "labels"));
    for (int64_t i = 0; i < rows; i++)
        host[i] = (int32_t)(i * 7919 % below);
    must(kern_alloc(h->device, &h->labels, (size_t)rows * sizeof *host, "labels"));
    must(kern_upload(h->q, h->labels, host, (size_t)rows * sizeof *host));
    must(kern_queue_sync(h->q));
    mem_free(host);
}

/* ---- cases ---------------------------------------------------------------------------- */

/* Operands for a result of `rows` rows; then rows first .. first + n of it. */
struct huge_case {
    const char *name;
    int64_t cols;
    void (*make)(struct huge *h, int64_t rows);
    kr_status (*call)(struct huge *h, int64_t first, int64_t n);
    bool hopper;
};

enum { COLS = 2048, VOCAB = 32000, INNER = 64 };

static void make_three(struct huge *h, int64_t rows)
{
    for (int k = OUT; k <= B; k++)
        h->m[k] = normal(h, rows, COLS, h->type);
}
static kr_status call_copy(struct huge *h, int64_t first, int64_t n)
{
    return kern_copy(h->q, kern_rows(h->m[OUT], first, n), kern_rows(h->m[A], first, n));
}
static kr_status call_add(struct huge *h, int64_t first, int64_t n)
{
    return kern_add(h->q, kern_rows(h->m[OUT], first, n), kern_rows(h->m[A], first, n),
                    kern_rows(h->m[B], first, n));
}
static kr_status call_gelu(struct huge *h, int64_t first, int64_t n)
{
    return kern_act_fwd(h->q, KERN_GELU_TANH, kern_rows(h->m[OUT], first, n),
                        kern_rows(h->m[A], first, n));
}

static void make_norm(struct huge *h, int64_t rows)
{
    make_three(h, rows);
    h->m[C] = normal(h, 1, COLS, h->type);
    h->m[D] = normal(h, 2, rows, h->wide);
}
static kr_status call_norm(struct huge *h, int64_t first, int64_t n)
{
    return kern_norm_fwd(h->q, KERN_RMSNORM, kern_rows(h->m[OUT], first, n),
                         kern_cols(h->m[D], first, n), kern_rows(h->m[A], first, n),
                         h->m[C], kern_none, 1e-5);
}
static kr_status call_norm_bwd(struct huge *h, int64_t first, int64_t n)
{
    return kern_norm_bwd(h->q, KERN_RMSNORM, kern_rows(h->m[OUT], first, n), false,
                         kern_none, kern_none, true, kern_rows(h->m[A], first, n),
                         kern_rows(h->m[B], first, n), h->m[C],
                         kern_cols(h->m[D], first, n));
}

static void make_linear(struct huge *h, int64_t rows)
{
    h->m[OUT] = normal(h, rows, COLS, h->type);
    h->m[A] = normal(h, rows, INNER, h->type);
    h->m[B] = normal(h, COLS, INNER, h->type);
    h->m[C] = normal(h, INNER, COLS, h->type);
}
static kr_status call_linear(struct huge *h, int64_t first, int64_t n)
{
    return kern_linear_fwd(h->q, kern_rows(h->m[OUT], first, n),
                           kern_rows(h->m[A], first, n), h->m[B], kern_none, kern_none);
}
static kr_status call_linear_x(struct huge *h, int64_t first, int64_t n)
{
    return kern_linear_bwd_x(h->q, kern_rows(h->m[OUT], first, n),
                             kern_rows(h->m[A], first, n), h->m[C], false);
}
static void make_linear_w(struct huge *h, int64_t rows)
{
    h->m[OUT] = normal(h, rows, COLS, h->wide);
    h->m[A] = normal(h, INNER, rows, h->type);
    h->m[B] = normal(h, INNER, COLS, h->type);
}
static kr_status call_linear_w(struct huge *h, int64_t first, int64_t n)
{
    return kern_linear_bwd_w(h->q, kern_rows(h->m[OUT], first, n), kern_none,
                             kern_cols(h->m[A], first, n), h->m[B], false);
}

static void make_loss(struct huge *h, int64_t rows)
{
    h->m[OUT] = normal(h, rows, VOCAB, h->type);
    h->m[A] = normal(h, rows, VOCAB, h->type);
    h->m[B] = normal(h, 1, rows, h->wide);
    make_labels(h, rows, VOCAB);
}
static kr_status call_loss(struct huge *h, int64_t first, int64_t n)
{
    return kern_cross_entropy(h->q, kern_cols(h->m[B], first, n),
                              kern_rows(h->m[OUT], first, n),
                              kern_rows(h->m[A], first, n), h->labels + first, 0.5);
}

enum { HEADS = 8, KV = 2, SIZE = 128, ATTENTION_COLS = (HEADS + 2 * KV) * SIZE };

/* qkv is the huge one; in the backward its gradient. */
static void make_attention(struct huge *h, int64_t rows)
{
    const int64_t out = (int64_t)HEADS * SIZE;

    h->heads = (struct kern_heads){ .heads = HEADS,
                                    .kv_heads = KV,
                                    .head_dim = SIZE,
                                    .seq = h->last,
                                    .scale = 1 / sqrt((double)SIZE) };
    h->m[OUT] = normal(h, rows, ATTENTION_COLS, h->type);
    h->m[A] = normal(h, rows, ATTENTION_COLS, h->type);
    h->m[B] = normal(h, rows, out, h->type);
    h->m[C] = normal(h, rows, out, h->type);
    h->m[D] = normal(h, HEADS, rows, h->wide);
    h->m[E] = normal(h, HEADS, rows, h->wide);
}
/* Both ways: what the forward makes decides the bits of the gradient. */
static kr_status call_attention(struct huge *h, int64_t first, int64_t n)
{
    struct kern_mat out = kern_rows(h->m[B], first, n),
                    qkv = kern_rows(h->m[A], first, n);
    struct kern_mat lse = kern_cols(h->m[D], first, n);

    TRY(kern_attention_fwd(h->q, out, lse, qkv, &h->heads));
    return kern_attention_bwd(h->q, kern_rows(h->m[OUT], first, n),
                              kern_cols(h->m[E], first, n), kern_rows(h->m[C], first, n),
                              qkv, out, lse, &h->heads);
}

static const struct huge_case list[] = {
    { "copy", COLS, make_three, call_copy, false },
    { "add", COLS, make_three, call_add, false },
    { "act_fwd", COLS, make_three, call_gelu, false },
    { "norm_fwd", COLS, make_norm, call_norm, false },
    { "norm_bwd", COLS, make_norm, call_norm_bwd, false },
    { "linear_fwd", COLS, make_linear, call_linear, true },
    { "linear_bwd_x", COLS, make_linear, call_linear_x, true },
    { "linear_bwd_w", COLS, make_linear_w, call_linear_w, true },
    { "cross_entropy", VOCAB, make_loss, call_loss, false },
    { "attention", ATTENTION_COLS, make_attention, call_attention, true },
};

/* ---- comparing ------------------------------------------------------------------------ */

static struct kern_mat last_rows(const struct huge *h)
{
    return kern_rows(h->m[OUT], h->rows - h->last, h->last);
}

/* Rows first .. first + n, over a pattern: what the last rows are then. */
static unsigned char *run(struct huge *h, const struct huge_case *c, int64_t first,
                          int64_t n, int pattern)
{
    const struct kern_mat m = last_rows(h);
    const size_t bytes = (size_t)(m.rows * m.cols) * kern_dtype_bytes(m.type);
    unsigned char *out = NULL;

    must(mem_alloc(&out, bytes, 1, "result"));
    memset(out, pattern, bytes);
    must(kern_upload(h->q, m.at, out, bytes));
    must(c->call(h, first, n));
    must(kern_download(h->q, out, m.at, bytes));
    must(kern_queue_sync(h->q));
    return out;
}

/* Two patterns, so that what is written neither time differs. */
static bool is_alike(struct huge *h, const struct huge_case *c)
{
    unsigned char *whole = run(h, c, 0, h->rows, 0x55);
    unsigned char *alone = run(h, c, h->rows - h->last, h->last, 0x2a);
    const struct kern_mat m = last_rows(h);
    bool alike =
        memcmp(whole, alone, (size_t)(m.rows * m.cols) * kern_dtype_bytes(m.type)) == 0;

    mem_free(alone);
    mem_free(whole);
    return alike;
}

static bool one(struct huge *h, const struct huge_case *c, int64_t elements, int number)
{
    bool ok;

    h->last = c->call == call_attention && elements > 1 << 20 ? 512 : 64; /* a sequence */
    h->rows = (elements / c->cols / h->last + 1) * h->last;
    if (h->rows < 2 * h->last) h->rows = 2 * h->last;
    c->make(h, h->rows);
    ok = is_alike(h, c);
    printf("%s %d - %-8s huge %-14s (%lld, %lld)%s\n", ok ? "ok" : "not ok", number,
           kern_device_name(h->device), c->name, (long long)h->rows, (long long)c->cols,
           ok ? "" : "  # the last rows have other bits alone, or are not written");
    fflush(stdout);
    for (int k = 0; k < MATS; k++)
        kern_free(h->device, h->m[k].at);
    kern_free(h->device, h->labels);
    memset(h->m, 0, sizeof h->m);
    h->labels = NULL;
    return ok;
}

int huge_check(struct lab_side *s, int64_t elements, bool hopper, int *cases)
{
    struct huge h = { .device = s->device,
                      .q = s->q,
                      .type = kern_device_type(s->device),
                      .wide = kern_device_wide(s->device) };
    int bad = 0;

    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].hopper || !hopper) bad += !one(&h, &list[i], elements, ++*cases);
    return bad;
}
