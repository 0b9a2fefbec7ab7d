/*
 * hf_speech.h - what a run speaks with, as files that transformers loads: tokenizer.json (of
 * the tokenizer byte an equal one), tokenizer_config.json with special tokens and the chat
 * template, generation_config.json with the ids that end an answer.
 */
#ifndef TRAIN_HF_SPEECH_H
#define TRAIN_HF_SPEECH_H

#include "trainer/run/settings.h"

/* Write them into `folder` for a checkpoint and its settings.  A model that nobody can say
 * how it speaks gets generation_config.json alone. */
kr_status hf_speech_write(const char *folder, const char *checkpoint,
                          const struct settings *set);

#endif
