/* chaos_options.c - own options are taken out, the rest is launch's. */
#include "scheduler/chaos_options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "scheduler/chaos_fault.h"

void chaos_options_help(void)
{
    puts("usage: kilorank chaos [CONFIG] --run DIR -n RANKS [OPTION OF launch]...\n"
         "                      [--every SECONDS] [--seed N] [--faults LIST]\n"
         "                      [--shell COMMAND] [--node-fault COMMAND] [--limit "
         "SECONDS]\n\n"
         "Train twice, in DIR/calm undisturbed, in DIR/chaos under random faults, and "
         "compare:\n"
         "time to see each fault and to go on, steps lost, effective training time, last "
         "bits.\n"
         "Ends with 0 if the run under faults ended, in the same bits.\n\n"
         "  --every S        mean time from a recovery to the next fault (30)\n"
         "  --seed N         of faults, victims and times (1)\n"
         "  --limit S        longest recovery (120)\n"
         "  --shell C        `C NODE LINE` runs a line on a node (ssh -o BatchMode=yes)\n"
         "  --node-fault C   `C NODE` takes a node away, waits, brings it back\n"
         "  --faults LIST    rank,hang,launcher,agent,supervisor unless given:\n");
    for (int f = 0; f < CHAOS_FAULTS; f++)
        printf("      %-12s %s\n", chaos_fault_name(f), chaos_fault_meaning(f));
    puts("\n  kilorank chaos --run /shared/chaos -n 8 --hostfile hosts --set "
         "train.steps=2000");
}

static kr_status positive(const char *name, const char *text, double *out)
{
    char *end;
    double x = strtod(text, &end);

    if (*end || !*text || !isfinite(x) || x <= 0)
        return KR_FAIL(KR_ERR_ARG, "%s %s: want a number above 0", name, text);
    *out = x;
    return KR_OK;
}

static kr_status read_one(struct chaos_options *o, const char *name, const char *value)
{
    double seed = 0;

    if (strcmp(name, "--every") == 0) return positive(name, value, &o->every);
    if (strcmp(name, "--limit") == 0) return positive(name, value, &o->limit);
    if (strcmp(name, "--faults") == 0) return chaos_fault_parse(value, &o->faults);
    if (strcmp(name, "--run") == 0) o->run = value;
    if (strcmp(name, "--shell") == 0) o->shell = value;
    if (strcmp(name, "--node-fault") == 0) o->node_fault = value;
    if (strcmp(name, "--seed") != 0) return KR_OK;
    TRY(positive(name, value, &seed));
    o->seed = (uint64_t)seed;
    return KR_OK;
}

static bool is_ours(const char *word)
{
    static const char *const ours[] = { "--every", "--limit", "--faults",    "--run",
                                        "--shell", "--seed",  "--node-fault" };

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strcmp(word, ours[i]) == 0) return true;
    return false;
}

static kr_status check_options(const struct chaos_options *o)
{
    if (!o->run)
        return KR_FAIL(KR_ERR_ARG,
                       "chaos: --run DIR is missing (see kilorank chaos --help)");
    if (fs_exists(o->run))
        return KR_FAIL(KR_ERR_ARG, "chaos: %s exists; want the name of a new folder",
                       o->run);
    if ((o->faults & 1u << CHAOS_NODE) && !o->node_fault)
        return KR_FAIL(KR_ERR_ARG,
                       "chaos: the fault \"node\" needs --node-fault COMMAND");
    return KR_OK;
}

kr_status chaos_options_read(int argc, char **argv, struct chaos_options *o)
{
    *o = (struct chaos_options){ .shell = "ssh -o BatchMode=yes",
                                 .faults = (1u << CHAOS_NODE) - 1,
                                 .every = 30,
                                 .limit = 120,
                                 .seed = 1 };
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            o->help = true;
            return KR_OK;
        }
        if (!is_ours(argv[i])) {
            if (o->count == CHAOS_WORDS - CHAOS_WORDS_FREE)
                return KR_FAIL(KR_ERR_ARG, "chaos: too many arguments");
            o->launch[o->count++] = argv[i];
            continue;
        }
        if (i + 1 == argc)
            return KR_FAIL(KR_ERR_ARG, "chaos: %s: its value is missing", argv[i]);
        TRY(read_one(o, argv[i], argv[i + 1]));
        i++;
    }
    return check_options(o);
}
