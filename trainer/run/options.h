/* options.h - command lines of the form `COMMAND PATH --name value ...`. */
#ifndef TRAIN_OPTIONS_H
#define TRAIN_OPTIONS_H

#include "base/cfg.h"

enum { OPTIONS_SETS = 64 };

struct options {
    const char *path; /* the one argument without dashes; NULL: none */
    char *sets[OPTIONS_SETS];
    int set_count;
    bool help;
};

/* Options of `table` (names with dashes, as "--top-k") go into *cfg, --set into sets; -o is
 * short for --output.
 * KR_ERR_ARG with one line. */
kr_status options_read(int argc, char **argv, const struct cfg_field *table, void *cfg,
                       struct options *out);

#endif
