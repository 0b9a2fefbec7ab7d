/*
 * tokenizer_parts.h - what a tokenizer is made of; for tokenizer.c, which uses it, and
 * tokenizer_file.c and steps_file.c, which read it.
 */
#ifndef TRAIN_TOKENIZER_PARTS_H
#define TRAIN_TOKENIZER_PARTS_H

#include "base/fs.h"
#include "trainer/data/added.h"
#include "trainer/data/bpe.h"
#include "trainer/data/steps.h"
#include "trainer/data/tokenizer.h"

enum { TOKENIZER_MOST_IDS = 1 << 24 };

#define TOKENIZER_BYTE_END "<|endoftext|>" /* how the tokenizer byte writes its id 256 */

/* Bytes that a token stands for. */
struct token_text {
    size_t at; /* in texts */
    uint32_t len;
    bool known, special;
};

struct tokenizer {
    struct bpe *bpe;
    struct added raw, normal; /* looked for before and after the normalizer */
    struct steps normalizer, splits;
    bool byte_level;

    struct token_text *list;
    int64_t size;
    size_t room;
    struct mem_text texts;

    /* decoding: up to so many of strip_char vanish from the start of a text */
    char strip_char;
    size_t strip_start;

    struct ids before, after; /* the template */
    bool cuts_lines;
    char about[FS_PATH + 128]; /* the path while it is read */
};

/* Token `id` is written `text` when decoded.  KR_ERR_ARG: another is there. */
kr_status tokenizer_set_text(struct tokenizer *t, int32_t id, const char *text,
                             size_t len, bool special);

/* Log one line that names the file; returns KR_ERR_ARG. */
kr_status tokenizer_refuse(const struct tokenizer *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Text of `path` into the parts; t is zero. */
kr_status tokenizer_read(struct tokenizer *t, const char *path);

/* The members "normalizer" and "pre_tokenizer" of the file into t's steps, byte_level (the
 * last step maps bytes to characters, as GPT-2 does) and cuts_lines. */
struct cJSON;
kr_status steps_read(struct tokenizer *t, const struct cJSON *file);

/* How GPT-2 and LLaMA 3 split text. */
extern const char pattern_gpt2[], pattern_llama3[];

/* GPT-2's way to write a byte as a printable character, and back; -1: no such. */
uint32_t byte_to_char(int byte);
int char_to_byte(uint32_t code);

#endif
