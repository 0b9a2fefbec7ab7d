/* bench.c - `bench`: programs that print tables. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "scheduler/exitcode.h"
#include "trainer/run/bench.h"
#include "trainer/run/commands.h"

/* clang-format off */
static const struct cfg_field bench_options[] = {
    CFG_INT (struct bench_args, rounds, "rounds", "5", 1, 1000, "times each thing is measured; the median counts"),
    CFG_INT (struct bench_args, threads, "threads", "0", 0, 4096, "CPU threads of a rank; 0: the cores it was given"),
    CFG_TEXT(struct bench_args, dir, "dir", "/tmp", "folder for bench checkpoint"),
    CFG_REAL(struct bench_args, mib, "mib", "512", 1, 1 << 20, "size for bench checkpoint, MiB"),
    { .name = NULL },
};
/* clang-format on */

static const struct {
    const char *name, *help;
    kr_status (*run)(struct comm *c, const struct bench_args *a);
} benches[] = {
    { "matmul",
      "products of GPT-2 124M: ours, the library's own threads, other libraries",
      bench_matmul },
    { "step",
      "a training step of GPT-2 124M, 4 x 256 tokens, against the machine's sgemm",
      bench_step },
    { "reduce", "gradient reduction, canonical against library (under mpirun)",
      bench_reduce },
    { "checkpoint", "writing and reading a checkpoint against plain files",
      bench_checkpoint },
};

static void help(FILE *out)
{
    fprintf(out, "usage: kilorank bench WHAT [--rounds N] ...\n\n"
                 "Measure and print a table.  WHAT:\n");
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++)
        fprintf(out, "  %-12s %s\n", benches[i].name, benches[i].help);
    fprintf(out, "\n  mpirun -np 2 kilorank bench reduce\n\nOptions:\n");
    cfg_help(bench_options, out);
}

int bench_command(int argc, char **argv)
{
    struct bench_args a;
    struct options o;
    struct settings set;
    struct comm *c = NULL;
    kr_status st;

    if (options_read(argc, argv, bench_options, &a, &o) != KR_OK) return EXIT_USAGE;
    if (o.help) {
        help(stdout);
        return EXIT_DONE;
    }
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        if (!o.path || strcmp(benches[i].name, o.path) != 0) continue;
        (void)cfg_defaults(settings_table, &set);
        st = start_comm(&c, &set);
        if (st != KR_OK) return exit_code_of(st);
        st = benches[i].run(c, &a);
        return end_comm(c, st, false, exit_code_of(st));
    }
    (void)KR_FAIL(KR_ERR_ARG, "bench: %s: want matmul, step, reduce or checkpoint",
                  o.path ? o.path : "nothing named");
    return EXIT_USAGE;
}
