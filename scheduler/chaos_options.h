/* chaos_options.h - the command line of `kilorank chaos`. */
#ifndef SCHED_CHAOS_OPTIONS_H
#define SCHED_CHAOS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { CHAOS_WORDS = 512, CHAOS_WORDS_FREE = 8 };

struct chaos_options {
    const char *run, *shell, *node_fault; /* node_fault NULL: none */
    uint32_t faults;                      /* bits, see chaos_fault.h */
    double every, limit;                  /* seconds */
    uint64_t seed;
    bool help;
    char
        *launch[CHAOS_WORDS]; /* what is handed on to launch; CHAOS_WORDS_FREE are left */
    int count;
};

/* KR_ERR_ARG with one line. */
kr_status chaos_options_read(int argc, char **argv, struct chaos_options *o);

void chaos_options_help(void);

#endif
