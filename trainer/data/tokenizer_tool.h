/*
 * tokenizer_tool.h - the command `kilorank tokenizer`: learn, try and inspect tokenizers.
 *
 *   kilorank tokenizer train FILE... -o tokenizer.json --vocab N
 *   kilorank tokenizer encode|decode|split|show|bench TOKENIZER [FILE]
 */
#ifndef TRAIN_TOKENIZER_TOOL_H
#define TRAIN_TOKENIZER_TOOL_H

int tokenizer_tool_main(int argc, char **argv); /* argv[0] is "tokenizer" */

#endif
