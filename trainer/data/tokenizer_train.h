/*
 * tokenizer_train.h - from files of text to a tokenizer.json of byte-level BPE.
 *
 * Ids: 0..255 the bytes, then one a merge, then the special tokens.  The file is what
 * Hugging Face's library writes for GPT-2 or LLaMA 3 and reads the same there.  The bytes
 * of the file are a function of text and options, not of threads or order of files.
 */
#ifndef TRAIN_TOKENIZER_TRAIN_H
#define TRAIN_TOKENIZER_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct tokenizer_plan {
    char *const *files; /* as documents.h */
    int file_count;
    const char *key;       /* of JSON lines */
    const char *out;       /* path of the tokenizer.json */
    const char *pattern;   /* "gpt2" or "llama3": how text is split */
    const char **specials; /* in the order of their ids */
    int special_count;
    int64_t vocab; /* ids in all; fewer if the text has no more pairs */
    int threads;   /* 0: all cores */
    bool replace;
};

/* With a progress line on standard error.  KR_ERR_ARG: bad plan or unreadable text. */
kr_status tokenizer_train(const struct tokenizer_plan *p);

#endif
