/*
 * main.c - the worker: what runs on a rank.
 *
 * Settings are read before MPI starts, by every rank alike, so that a bad one costs one
 * line and exit code 2 and nothing else; only the first rank says it.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "trainer/run/commands.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "train", train_command },
    { "eval", eval_command },
    { "generate", generate_command },
    { "bench", bench_command },
};

/* The launcher tells the rank before MPI does. */
static int rank_from_environment(void)
{
    static const char *const names[] = { "OMPI_COMM_WORLD_RANK", "PMIX_RANK",
                                         "PMI_RANK" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return atoi(getenv(names[i]));
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    log_setup("kilorank", -1);
    log_mute(rank_from_environment() > 0);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr,
            "kilorank: error: %s: the worker has train, eval, generate and bench; "
            "start it with `kilorank`\n",
            name[0] ? name : "no command");
    return EXIT_USAGE;
}
