/*
 * options.h - command lines of the form `COMMAND WORD... --name value ...`.
 *
 * Options and words may stand in any order; `--name=value` is `--name value`; a flag may
 * stand without a value, then it is true; -o is short for --output, -h for --help; behind
 * `--` everything is a word, `-` always is one.
 */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include "base/cfg.h"

enum { OPTIONS_SETS = 512 };

struct options {
    char **
        words; /* arguments that are no options, in their order: in argv, which is changed */
    int word_count;
    const char *path;         /* the first of them; NULL: none */
    char *sets[OPTIONS_SETS]; /* values of the option that may be repeated */
    int set_count;
    bool help;
};

/* Options of `table` (names with dashes, as "--top-k") go into *cfg, --set into sets; one
 * word at most.  KR_ERR_ARG with one line that begins with argv[0]. */
kr_status options_read(int argc, char **argv, const struct cfg_field *table, void *cfg,
                       struct options *out);

/* The same with any number of words, and `repeated` in place of "set"; NULL: none. */
kr_status options_read_words(int argc, char **argv, const struct cfg_field *table,
                             void *cfg, const char *repeated, struct options *out);

#endif
