/* settings.c - the table of settings, and the rules between them. */
#include "trainer/run/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device.h"

#define S struct settings
/* clang-format off */
const struct cfg_field settings_table[] = {
    CFG_ONE_OF_FIXED(S, family, "model.family", "llama", FAMILY_CHOICES,
                     "architecture"),
    CFG_INT_FIXED(S, layers,   "model.layers",   "4",    1, 4096,    "transformer blocks"),
    CFG_INT_FIXED(S, dim,      "model.dim",      "192",  2, 1 << 20, "channels of the residual stream"),
    CFG_INT_FIXED(S, heads,    "model.heads",    "6",    1, 4096,    "query heads"),
    CFG_INT_FIXED(S, kv_heads, "model.kv_heads", "2",    0, 4096,    "key/value heads; 0: as many as heads"),
    CFG_INT_FIXED(S, head_dim, "model.head_dim", "0",    0, 1 << 16, "channels of a head; 0: model.dim / model.heads"),
    CFG_INT_FIXED(S, ffn,      "model.ffn",      "512",  1, 1 << 22, "channels inside the MLP"),
    CFG_INT_FIXED(S, vocab,    "model.vocab",    "257",  2, 1 << 24, "token ids; 257 is bytes and an end token"),
    CFG_INT_FIXED(S, context,  "model.context",  "256",  1, 1 << 24, "tokens in a sequence"),
    CFG_REAL_FIXED(S, norm_eps, "model.norm_eps", "0", 0, 1, "added to the variance in norms; 0: as the family"),
    CFG_ONE_OF_FIXED(S, tied, "model.tied", "family", "family|yes|no",
                     "output matrix is the token embedding; family: as the family"),
    CFG_ONE_OF_FIXED(S, qkv_bias, "model.qkv_bias", "family", "family|yes|no",
                     "bias of queries, keys and values"),
    CFG_ONE_OF_FIXED(S, out_bias, "model.out_bias", "family", "family|yes|no",
                     "bias of the attention's output"),
    CFG_ONE_OF_FIXED(S, mlp_bias, "model.mlp_bias", "family", "family|yes|no",
                     "biases of the MLP"),
    CFG_INT_FIXED(S, rope_dims, "model.rope_dims", "0", 0, 1 << 16, "rotated channels of a head; 0: as the family"),
    CFG_REAL_FIXED(S, rope_theta, "model.rope_theta", "10000", 1, 1e12, "base of the rotary frequencies"),
    CFG_ONE_OF_FIXED(S, rope_scaling, "model.rope_scaling", "llama3", ROPE_CHOICES,
                     "which frequencies model.rope_factor divides: the low ones (llama3, yarn), all (linear), or by model.context (dynamic)"),
    CFG_REAL_FIXED(S, rope_factor, "model.rope_factor", "1", 1, 1024, "stretching of rotary positions; 1: none"),
    CFG_REAL_FIXED(S, rope_low,  "model.rope_low",  "1", 0.01, 1024, "stretched fully below this many turns per old context"),
    CFG_REAL_FIXED(S, rope_high, "model.rope_high", "4", 0.01, 1024, "not stretched above this many turns per old context; usual with yarn: 32"),
    CFG_REAL_FIXED(S, rope_attention, "model.rope_attention", "0", 0, 100, "yarn: cosines and sines are multiplied by it; 0: 0.1 ln(model.rope_factor) + 1"),
    CFG_INT_FIXED(S, rope_old_context, "model.rope_old_context", "8192", 1, 1 << 24, "tokens, the context before stretching"),

    CFG_TEXT(S, train, "data.train", "/usr/share/common-licenses",
             "token file (Megatron, llm.c, nanoGPT), text file, folder of texts, or examples (*.jsonl)"),
    CFG_TEXT(S, valid, "data.valid", "", "the same for evaluation; empty: the held out part of data.train"),
    CFG_REAL_FIXED(S, held_out, "data.held_out", "0.1", 0, 0.5, "share of data.train kept for evaluation if data.valid is empty"),
    CFG_INT_FIXED(S, data_seed, "data.seed", "1", 0, 1e15, "order of the samples"),
    CFG_TEXT(S, tokenizer, "data.tokenizer", "", "tokenizer.json that made the tokens and speaks for the model; byte, or empty: bytes if model.vocab = 257"),
    CFG_ONE_OF(S, template, "data.template", "auto", CHAT_CHOICES,
               "chat template of examples; auto: by the tokenizer's special tokens, else plain"),
    CFG_INT(S, epochs, "data.epochs", "0", 0, 1e9, "passes over data.train, which decide train.steps; 0: train.steps counts"),

    CFG_INT(S, steps, "train.steps", "300", 1, 1e15, "optimizer steps of the whole run"),
    CFG_INT_FIXED(S, batch, "train.batch", "16", 1, 1 << 24, "sequences per optimizer step, over all ranks"),
    CFG_INT_FIXED(S, micro_batch, "train.micro_batch", "4", 1, 1 << 20, "sequences computed at a time by a rank"),
    CFG_INT_FIXED(S, seed, "train.seed", "1", 0, 1e15, "start values of the weights"),
    CFG_TEXT(S, init, "train.init", "", "run or checkpoint whose weights a new run starts from; model.* are taken from it; empty: by train.seed"),
    CFG_ONE_OF(S, on_nan, "train.on_nan", "stop", "stop|rollback|skip", "when loss or gradient is not finite, twice alike: end, go back once, leave the step out"),
    CFG_REAL(S, spike, "train.spike", "6", 0, 1e9, "a loss so many running deviations above the running mean is a spike; 0: not looked for"),
    CFG_ONE_OF(S, on_spike, "train.on_spike", "note", "note|rollback", "say so; or go back once and compute it again"),
    CFG_INT(S, stop_after, "train.stop_after", "0", 0, 1e15, "save and end at this step, the schedule unchanged; 0: at train.steps"),
    CFG_ONE_OF(S, recompute, "train.recompute", "none", "none|selective|full",
               "activations to make again in the backward, the bits are the same; selective: of norms and activations, full: all but the blocks' inputs"),
    CFG_ONE_OF(S, grads, "train.grads", "fp32", "fp32|bf16",
               "sums of gradients are kept in; bf16 is rounded by chance, right in the mean"),

    CFG_REAL(S, lr, "optim.lr", "3e-3", 0, 10, "learning rate after warm-up"),
    CFG_REAL(S, min_lr, "optim.min_lr", "3e-4", 0, 10, "learning rate at the end"),
    CFG_INT (S, warmup, "optim.warmup", "20", 0, 1e15, "steps of linear warm-up"),
    CFG_ONE_OF(S, schedule, "optim.schedule", "cosine", "cosine|wsd|constant",
               "after warm-up; wsd: stable, then linear decay"),
    CFG_REAL(S, decay_share, "optim.decay_share", "0.2", 0, 1, "share of the steps that wsd decays in"),
    CFG_REAL(S, weight_decay, "optim.weight_decay", "0.1", 0, 10, "of matrices; norms and biases have none"),
    CFG_REAL(S, beta1, "optim.beta1", "0.9", 0, 0.999999, "AdamW, decay of the first moment"),
    CFG_REAL(S, beta2, "optim.beta2", "0.95", 0, 0.999999, "AdamW, decay of the second moment"),
    CFG_REAL(S, eps, "optim.eps", "1e-8", 1e-16, 1, "AdamW, added to the root of the second moment"),
    CFG_ONE_OF_FIXED(S, moments, "optim.moments", "fp32", "fp32|bf16",
                     "AdamW's moments are kept in; bf16 is half the memory and is rounded by chance, right in the mean"),
    CFG_REAL(S, clip, "optim.clip", "1", 0, 1e9, "largest gradient norm; 0: no clipping"),

    CFG_INT_FIXED(S, lora_rank, "lora.rank", "0", 0, 4096, "rank of adapters, which alone are trained, beside the weights of train.init; 0: all is trained"),
    CFG_REAL_FIXED(S, lora_alpha, "lora.alpha", "16", 1e-6, 1e6, "adapters count alpha / rank times"),
    CFG_TEXT_FIXED(S, lora_targets, "lora.targets", "all", "matrices that get one, a list of q, k, v (or qkv), o, gate, up (or gate_up), down, as the family has them"),
    CFG_TEXT_FIXED(S, lora_base, "lora.base", "", "hash of the weights that the adapters belong to; taken from train.init when a run begins"),

    CFG_INT(S, shard, "dist.shard", "1", 0, 3, "ZeRO stage: 0 nothing sharded, 1 optimizer state, 2 gradients too, 3 weights too"),
    CFG_ONE_OF_FIXED(S, reduce, "dist.reduce", "canonical", "canonical|library",
                     "order of gradient sums; canonical: the same bits on any number of ranks"),
    CFG_TEXT(S, backend, "dist.comm", "auto", "auto, self (one rank), mpi (GPUs: through host memory) or nccl (GPUs: directly, as auto)"),
    CFG_REAL(S, timeout, "dist.timeout", "600", 0.1, 1e6, "seconds to wait for other ranks before giving up"),
    CFG_TEXT(S, fault, "dist.fault", "", "fault to inject, for tests: slow:MIB_PER_S, delay:SECONDS, fail:N, kill:N:RANK, quit:N:RANK, hang:N:RANK"),

    CFG_INT(S, ckpt_every, "checkpoint.every", "100", 0, 1e15, "steps between checkpoints; 0: only at the end"),
    CFG_INT(S, ckpt_keep, "checkpoint.keep", "2", 1, 1e6, "checkpoints to keep"),
    CFG_FLAG(S, ckpt_best, "checkpoint.best", "false", "keep the weights of the lowest held-out loss in RUN/best"),
    CFG_FLAG(S, ckpt_async, "checkpoint.async", "true", "write while training goes on"),
    CFG_TEXT(S, snapshot_every, "snapshot.every", "auto", "steps between snapshots in node memory; auto: from their cost and snapshot.mttf; 0: none"),
    CFG_TEXT(S, snapshot_dir, "snapshot.dir", "/dev/shm", "folder in the memory of each node"),
    CFG_REAL(S, snapshot_mttf, "snapshot.mttf", "8", 1e-3, 1e6, "hours between faults of the whole run, as expected"),
    CFG_INT(S, eval_every, "eval.every", "100", 0, 1e15, "steps between evaluations; 0: only at the end"),
    CFG_INT(S, eval_batches, "eval.batches", "4", 0, 1e12, "batches of an evaluation during training; the one at the end and 0 take all"),

    CFG_TEXT(S, device, "run.device", "auto", "auto, cpu, guard (checks device memory), cpu64 (double precision) or cuda"),
    CFG_ONE_OF(S, precision, "run.precision", "auto", "auto|fp32|bf16",
               "bf16: weights and activations in bf16, master weights and sums in fp32; auto: bf16 on cuda"),
    CFG_ONE_OF(S, matmul, "kernels.matmul", "own", KERN_MATMUL_CHOICES,
               "who multiplies matrices on a GPU: our kernels or the vendor's library"),
    CFG_ONE_OF(S, hopper, "kernels.hopper", "off", KERN_HOPPER_CHOICES,
               "our kernels for Hopper GPUs, not yet checked on one; auto: where the GPU is one, in bf16"),
    CFG_INT(S, threads, "run.threads", "0", 0, 4096, "CPU threads of a rank; 0: the cores it was given"),
    CFG_INT(S, log_every, "run.log_every", "10", 1, 1e9, "steps between progress lines; log.jsonl has every step"),
    CFG_FLAG(S, tensorboard, "run.tensorboard", "true", "also write TensorBoard event files"),
    CFG_TEXT(S, prometheus, "run.prometheus", "", "file for the newest figures in Prometheus's text format, such as one that node_exporter collects; empty: none"),
    { .name = NULL },
};
/* clang-format on */
#undef S

void settings_shape(const struct settings *s, struct model_shape *out)
{
    *out = (struct model_shape){
        .family = &families[s->family],
        .layers = s->layers,
        .dim = s->dim,
        .heads = s->heads,
        .kv_heads = s->kv_heads ? s->kv_heads : s->heads,
        .head_dim = s->head_dim ? s->head_dim : s->dim / s->heads,
        .ffn = s->ffn,
        .vocab = s->vocab,
        .context = s->context,
        .rope_theta = s->rope_theta,
        .rope_scaling = { s->rope_factor, s->rope_low, s->rope_high,
                          (double)s->rope_old_context, (enum rope_stretch)s->rope_scaling,
                          s->rope_attention },
        .rope_dims = s->rope_dims,
        .norm_eps = s->norm_eps,
        .tied = (enum as_family)s->tied,
        .qkv_bias = (enum as_family)s->qkv_bias,
        .out_bias = (enum as_family)s->out_bias,
        .mlp_bias = (enum as_family)s->mlp_bias,
        .lora = { s->lora_rank, s->lora_alpha,
                  lora_parse(&families[s->family], s->lora_targets) },
    };
}

/* Back ends of a device by precision; NULL: there is none. */
static const struct device_row {
    const char *device, *back[PRECISIONS];
} devices[] = {
    { "cpu", { "cpu", "cpu", "cpu16" } },
    { "cuda", { "cuda", "cuda32", "cuda" } },
    { "guard", { "guard", "guard", NULL } },
    { "cpu64", { "cpu64", NULL, NULL } },
};

/* Row of run.device, NULL if there is no such device. */
static const struct device_row *find_device(const struct settings *s)
{
    const char *device =
        strcmp(s->device, "auto") == 0 ? kern_device_default() : s->device;

    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        if (strcmp(devices[i].device, device) == 0) return &devices[i];
    return NULL;
}

const char *settings_device(const struct settings *s)
{
    const struct device_row *row = find_device(s);

    return row && row->back[s->precision] ? row->back[s->precision] : s->device;
}

static kr_status check_device(const struct settings *s)
{
    static const char *const names[] = { "auto", "fp32", "bf16" };
    const struct device_row *row = find_device(s);

    if (!row)
        return KR_FAIL(KR_ERR_ARG,
                       "run.device = %s: want auto, cpu, guard, cpu64 or cuda",
                       s->device);
    if (!row->back[s->precision])
        return KR_FAIL(KR_ERR_ARG, "run.precision = %s does not go with run.device = %s",
                       names[s->precision], s->device);
    if (strcmp(s->device, "cpu64") == 0 &&
        (s->moments == STORAGE_BF16 || s->grads == STORAGE_BF16))
        return KR_FAIL(KR_ERR_ARG, "%s = bf16 does not go with run.device = cpu64",
                       s->moments == STORAGE_BF16 ? "optim.moments" : "train.grads");
    return kern_device_check(row->back[s->precision]);
}

int64_t settings_leaves(const struct settings *s) { return s->batch / s->micro_batch; }

/* auto, or a number of steps. */
static kr_status check_every(const char *text)
{
    char *end;
    long long n = strtoll(text, &end, 10);

    if (strcmp(text, "auto") == 0 || (end != text && *end == '\0' && n >= 0))
        return KR_OK;
    return KR_FAIL(KR_ERR_ARG, "snapshot.every = %s: want auto or a number from 0", text);
}

kr_status settings_check(const struct settings *s, int32_t ranks)
{
    struct model_shape shape;

    TRY(check_every(s->snapshot_every));
    settings_shape(s, &shape);
    if (s->head_dim == 0 && s->dim % s->heads != 0)
        return KR_FAIL(KR_ERR_ARG,
                       "model.dim = %" PRId64 " is not a multiple of model.heads"
                       " = %" PRId64 "; set model.head_dim if heads are to have another"
                       " size",
                       s->dim, s->heads);
    TRY(model_shape_check(&shape));
    if (s->lora_rank > 0 && !s->init[0])
        return KR_FAIL(KR_ERR_ARG,
                       "lora.rank = %" PRId64 " needs train.init: the run or checkpoint "
                       "whose weights the adapters belong to",
                       s->lora_rank);
    if (s->batch % s->micro_batch != 0)
        return KR_FAIL(KR_ERR_ARG,
                       "train.batch = %" PRId64
                       " is not a multiple of train.micro_batch = "
                       "%" PRId64,
                       s->batch, s->micro_batch);
    if (settings_leaves(s) < ranks)
        return KR_FAIL(KR_ERR_ARG,
                       "train.batch = %" PRId64 " in micro-batches of %" PRId64
                       " gives %" PRId64 " pieces, too few for %d ranks",
                       s->batch, s->micro_batch, settings_leaves(s), ranks);
    if (s->min_lr > s->lr)
        return KR_FAIL(KR_ERR_ARG, "optim.min_lr = %g is above optim.lr = %g", s->min_lr,
                       s->lr);
    if (s->grads == STORAGE_BF16 && s->reduce != REDUCE_CANONICAL)
        return KR_FAIL(KR_ERR_ARG,
                       "train.grads = bf16 needs dist.reduce = canonical: its rounding "
                       "belongs to the sums of one tree");
    return check_device(s);
}
