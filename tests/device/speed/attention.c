/* attention.c - causal attention, against the best of PyTorch's where it was measured. */
#include <math.h>

#include "kernels/cuda/cuda.h"
#include "tests/device/speed/speed.h"

enum { TOKENS = 16384 };

/* m: out, lse, qkv, dqkv, delta, dout */
static kr_status forward(const struct job *j)
{
    return kern_attention_fwd(speed.q, j->m[0], j->m[1], j->m[2], &j->heads);
}
static kr_status backward(const struct job *j)
{
    return kern_attention_bwd(speed.q, j->m[3], j->m[4], j->m[5], j->m[2], j->m[0],
                              j->m[1], &j->heads);
}

static kr_status in_any_order(const struct job *j)
{
    kr_status st;

    cuda_attention_any_order = true;
    st = backward(j);
    cuda_attention_any_order = false;
    return st;
}

/* name: of the row of the peer, "attention-128-2048-forward" */
static void tell(const struct kern_heads *h, const char *way, double flops, double time)
{
    char name[64];
    double theirs;

    snprintf(name, sizeof name, "attention-%lld-%lld-%s", (long long)h->head_dim,
             (long long)h->seq, way);
    theirs = peer(name);
    printf("%3lld/%lld heads of %3lld  T %5lld  %-8s %9.3f ms %6.1f TFLOP/s",
           (long long)h->heads, (long long)h->kv_heads, (long long)h->head_dim,
           (long long)h->seq, way, time * 1e3, flops / time / 1e12);
    if (!isnan(theirs))
        printf("   PyTorch %6.1f  ratio %5.3f", theirs, flops / time / 1e12 / theirs);
    printf("\n");
}

/* What the order of the sums costs, taking turns. */
static void against_any_order(const struct job *j, double flops)
{
    struct job other = *j;
    double ours, free;

    other.run = in_any_order;
    duel(j, &other, &ours, &free);
    tell(&j->heads, "backward", flops, ours);
    printf("    the same with sums in any order, zeroed before: %9.3f ms, %5.3f of the "
           "time\n",
           free * 1e3, free / ours);
}

static void shape(struct kern_heads h)
{
    int64_t rows = speed.small ? h.seq : TOKENS,
            c = (h.heads + 2 * h.kv_heads) * h.head_dim;
    int64_t out = h.heads * h.head_dim;
    double flops = 4.0 * (double)(rows * out) * (double)h.seq / 2;
    struct job j = { .run = forward,
                     .m = { random_mat(1, rows, out, speed.type),
                            random_mat(1, h.heads, rows, speed.wide),
                            random_mat(1, rows, c, speed.type),
                            random_mat(1, rows, c, speed.type),
                            random_mat(1, h.heads, rows, speed.wide),
                            random_mat(1, rows, out, speed.type) },
                     .heads = h };

    j.heads.scale = 1 / sqrt((double)h.head_dim);
    tell(&h, "forward", flops, time_of(&j));
    j.run = backward;
    if (speed.hopper == KERN_HOPPER_ON)
        against_any_order(&j, 2.5 * flops);
    else
        tell(&j.heads, "backward", 2.5 * flops, time_of(&j));
    for (int k = 0; k < 6; k++)
        drop(j.m[k]);
}

void speed_attention(void)
{
    struct kern_heads wide = { .heads = 64, .kv_heads = 8, .head_dim = 128 };
    struct kern_heads slim = { .heads = 32, .kv_heads = 8, .head_dim = 64 };
    struct kern_heads tiny = { .heads = 2, .kv_heads = 1, .head_dim = 64, .seq = 40 };

    printf(
        "\nAttention, causal, %d tokens: FLOP = 2 N H D T forward (half of T x T), 2.5 "
        "times that backward, whatever is computed twice\n",
        TOKENS);
    if (speed.small) shape(tiny);
    for (int64_t t = 2048; t <= TOKENS && !speed.small; t *= 2) {
        wide.seq = slim.seq = t;
        shape(wide);
        shape(slim);
    }
}
