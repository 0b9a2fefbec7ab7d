/*
 * speech.h - how a model's tokens read: the tokenizer of its run.
 *
 * A run keeps a copy of its tokenizer, RUN/tokenizer.json, so that it speaks wherever it is
 * carried.  Else data.tokenizer counts; without one, a vocabulary of 257 is bytes.
 */
#ifndef TRAIN_SPEECH_H
#define TRAIN_SPEECH_H

#include "base/fs.h"
#include "trainer/data/chat.h"
#include "trainer/data/tokens.h"
#include "trainer/run/settings.h"

/* [local] Set s->tokenizer to the copy that lies with run or checkpoint `path`, if there is
 * one.  KR_ERR_ARG: its path is too long for a setting. */
kr_status speech_find(struct settings *s, const char *path);

/* [local] Copy data.tokenizer into the run, if it names a file. */
kr_status speech_keep(const struct settings *s, const char *run);

/* [local] Open the tokenizer; *out = NULL (and KR_OK): the model has none. */
kr_status speech_open(struct tokenizer **out, const struct settings *s);

#endif
