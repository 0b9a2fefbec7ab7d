/*
 * hf_family.h - how Hugging Face stores each family: names, layouts, keys of config.json.
 *
 * All that is known of a foreign family is data here; hf_plan.h lays tensors out by it,
 * hf_config.h reads and writes config.json by it.
 */
#ifndef TRAIN_HF_FAMILY_H
#define TRAIN_HF_FAMILY_H

#include "trainer/model/family.h"
#include "trainer/run/settings.h"

/* Which rows of our parameter a stored tensor holds. */
enum hf_part { HF_ALL, HF_Q, HF_K, HF_V, HF_GATE, HF_UP };

/* How they lie there: as ours; as (in, out); or qkv with the rows of each head together,
 * first those of q, then k, then v. */
enum hf_layout { HF_SAME, HF_TRANSPOSED, HF_BY_HEAD };

/* A stored tensor.  In both names "%d" is the block.  Rows whose parameter the model lacks
 * are skipped; head.weight of a tied model may be there as a copy of embed.token. */
struct hf_tensor {
    const char *theirs, *ours;
    enum hf_part part;
    enum hf_layout layout;
    bool bare; /* without the family's prefix */
};

/* A number of config.json: its name, another one it may have, its place in struct
 * settings.  One that is missing or null is an error if needed, else it stays 0. */
struct hf_key {
    const char *name, *other;
    size_t at;
    bool real, need;
};

/* A key that changes what the model computes: where it is there, it must have this value,
 * for the block here knows no other.  JSON; several with '|'.  need: it means another where
 * it is missing, so it must be there. */
struct hf_must {
    const char *key, *value;
    bool need;
};

/* A yes or no of config.json, and what it means if the key is missing. */
struct hf_flag {
    const char *key; /* NULL: always as missing */
    bool missing;
};

struct hf_family {
    const char *prefix;  /* of most names; files of the model without its head lack it */
    const char *written; /* members of a config.json that is written anew */
    struct hf_flag tied, qkv_bias, out_bias, mlp_bias;
    const struct hf_key *keys;
    const struct hf_must *must;
    const struct hf_tensor *tensors; /* "%d" in a name: one for each block */
};

/* In the order of families[]. */
extern const struct hf_family hf_families[];

/* The family that config.json calls so; -1: there is none. */
int hf_family_of(const char *model_type);

/* Tensors that are no weights: masks and frequencies of older files. */
bool hf_is_buffer(const char *name);

#endif
