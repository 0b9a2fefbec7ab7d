/*
 * prepare.h - the command `kilorank prepare`: text to token files.
 *
 *   kilorank prepare FILE... --tokenizer byte|tokenizer.json -o PREFIX [--key text] ...
 *
 * FILE as in documents.h.  Writes PREFIX.bin and PREFIX.idx in Megatron's format; the end
 * token follows each document.  Both appear whole or not at all, also when it is interrupted
 * or run twice at once.  Works on all cores, and the bytes do not depend on how many.
 * Memory stays small whatever the input's size.
 */
#ifndef TRAIN_PREPARE_H
#define TRAIN_PREPARE_H

int prepare_main(int argc, char **argv); /* argv[0] is "prepare"; returns an exit code */

#endif
