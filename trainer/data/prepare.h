/*
 * prepare.h - the command `kilorank prepare`: text to token files.
 *
 *   kilorank prepare FILE... --tokenizer byte -o PREFIX [--key text] [--no-end]
 *
 * FILE: plain text (one document a file) or JSON lines (*.jsonl: one document a line,
 * its text under --key); "-" is text from standard input.  Writes PREFIX.bin and
 * PREFIX.idx in Megatron's format; the end token follows each document.  Both appear
 * whole or not at all.  Memory stays small whatever the input's size.
 */
#ifndef TRAIN_PREPARE_H
#define TRAIN_PREPARE_H

int prepare_main(int argc, char **argv); /* argv[0] is "prepare"; returns an exit code */

#endif
