/*
 * main.c - the worker: what runs on a rank.
 *
 * Settings are read before MPI starts, by every rank alike, so that a bad one costs one
 * line and exit code 2 and nothing else; only the first rank says it.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/launcher.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "trainer/run/commands.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    bool alone; /* of one process: several would write or say the same */
} commands[] = {
    { "train", train_command, false },      { "eval", eval_command, false },
    { "generate", generate_command, true }, { "bench", bench_command, false },
    { "import", import_command, true },     { "export", export_command, true },
};

static int run(const struct command *c, int argc, char **argv)
{
    int code;

    if (c->alone && launcher_ranks() > 1) {
        (void)KR_FAIL(KR_ERR_ARG, "%s: a command of one process; start it without mpirun",
                      c->name);
        return EXIT_USAGE;
    }
    code = c->run(argc, argv);
    return fs_standard_flush() == KR_OK || code != EXIT_DONE ? code : EXIT_IO;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    fs_standard_open();
    log_setup("kilorank", -1);
    log_mute_others();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return run(&commands[i], argc - 1, argv + 1);
    fprintf(stderr,
            "kilorank: error: %s: the worker has train, eval, generate, bench, import "
            "and export; "
            "start it with `kilorank`\n",
            name[0] ? name : "no command");
    return EXIT_USAGE;
}
