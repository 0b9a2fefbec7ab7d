/*
 * settings.h - every setting of a run, as one struct and one table.
 *
 * The defaults are the quick start: a small byte-level LLaMA-style model that learns the
 * licence texts of a Debian system in about two minutes on two cores.
 */
#ifndef TRAIN_SETTINGS_H
#define TRAIN_SETTINGS_H

#include "base/cfg.h"
#include "trainer/data/chat.h"
#include "trainer/model/model.h"

struct comm;

enum { SETTINGS_TEXT = 180 /* an INI line of inih has room for it */ };

enum schedule { SCHEDULE_COSINE, SCHEDULE_WSD, SCHEDULE_CONSTANT };
enum precision { PRECISION_AUTO, PRECISION_FP32, PRECISION_BF16, PRECISIONS };
enum storage { STORAGE_FP32, STORAGE_BF16 }; /* fp32: the device's wide type */
enum on_nan { ON_NAN_STOP, ON_NAN_ROLLBACK, ON_NAN_SKIP };
enum on_spike { ON_SPIKE_NOTE, ON_SPIKE_ROLLBACK };
enum reduce { REDUCE_CANONICAL, REDUCE_LIBRARY };

struct settings {
    int family; /* index into families[] */
    int64_t layers, dim, heads, kv_heads, head_dim, ffn, vocab, context;
    double norm_eps;
    int tied, qkv_bias, out_bias, mlp_bias; /* enum as_family */
    int rope_scaling;                       /* enum rope_stretch */
    int64_t rope_dims;
    double rope_theta, rope_factor, rope_low, rope_high, rope_attention;
    int64_t rope_old_context;

    char train[SETTINGS_TEXT], valid[SETTINGS_TEXT];
    char tokenizer[SETTINGS_TEXT];
    int template; /* of CHAT_CHOICES */
    double held_out;
    int64_t data_seed, epochs;

    int64_t steps, batch, micro_batch, seed, stop_after;
    char init[SETTINGS_TEXT];
    int recompute, grads; /* enum model_recompute, enum storage */
    int on_nan, on_spike;
    double spike;

    double lr, min_lr, decay_share, weight_decay, beta1, beta2, eps, clip;
    int64_t warmup;
    int schedule, moments;

    int64_t lora_rank;
    double lora_alpha;
    char lora_targets[64], lora_base[40];

    int64_t shard;
    int reduce;
    char backend[16];
    double timeout;
    char fault[64];

    int64_t ckpt_every, ckpt_keep;
    bool ckpt_async, ckpt_best;
    char snapshot_every[24], snapshot_dir[SETTINGS_TEXT];
    double snapshot_mttf;
    int64_t eval_every, eval_batches;

    char device[16];
    int precision;
    int matmul; /* enum kern_matmul */
    int hopper; /* enum kern_hopper */
    int64_t threads, log_every;
    bool tensorboard;
    char prometheus[SETTINGS_TEXT];
};

extern const struct cfg_field settings_table[];

/* The model that these settings describe. */
void settings_shape(const struct settings *s, struct model_shape *out);

/* What no single row can check: sizes that must fit together, for `ranks` ranks.
 * KR_ERR_ARG with one line. */
kr_status settings_check(const struct settings *s, int32_t ranks);

/* [collective] The same for the ranks of c, of which the first one tells, and all must have
 * the same settings. */
kr_status settings_check_together(const struct settings *s, struct comm *c);

/* The back end (device.h) that run.device and run.precision mean, with "auto" decided. */
const char *settings_device(const struct settings *s);

/* Micro-batches in a step, over all ranks. */
int64_t settings_leaves(const struct settings *s);

#endif
