/*
 * main.c - the worker: what runs on a rank.
 *
 * Settings are read before MPI starts, by every rank alike, so that a bad one costs one
 * line and exit code 2 and nothing else; only the first rank says it.
 */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "trainer/run/commands.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "train", train_command },       { "eval", eval_command },
    { "generate", generate_command }, { "bench", bench_command },
    { "import", import_command },     { "export", export_command },
};

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    fs_standard_open();
    log_setup("kilorank", -1);
    log_mute_others();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        int code;

        if (strcmp(commands[i].name, name) != 0) continue;
        code = commands[i].run(argc - 1, argv + 1);
        return fs_standard_flush() == KR_OK || code != EXIT_DONE ? code : EXIT_IO;
    }
    fprintf(stderr,
            "kilorank: error: %s: the worker has train, eval, generate, bench, import "
            "and export; "
            "start it with `kilorank`\n",
            name[0] ? name : "no command");
    return EXIT_USAGE;
}
