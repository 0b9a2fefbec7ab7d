/*
 * main.c - the program `kilorank`: one table of commands.
 *
 * It links neither MPI nor CUDA nor HDF5, so it starts anywhere.  Commands that compute
 * replace it (exec) by the worker that lies beside it, so `mpirun -np 8 kilorank train`
 * works as MPI users expect.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "checkpoints/tool.h"
#include "scheduler/exitcode.h"
#include "trainer/data/prepare.h"

static const struct command {
    const char *name, *help;
    int (*run)(int argc, char **argv); /* NULL: the worker does it */
} commands[] = {
    { "train", "train a model, or go on with a run", NULL },
    { "eval", "loss and perplexity of a checkpoint on tokens", NULL },
    { "generate", "let a checkpoint write text", NULL },
    { "prepare", "text to token files", prepare_main },
    { "ckpt", "list, verify, show, hash, diff, prune checkpoints", ckpt_tool_main },
    { "bench", "measure this machine", NULL },
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void help(FILE *out)
{
    fputs("usage: kilorank COMMAND ...\n\n"
          "Train transformers on MPI ranks, with the same bits after any fault.\n\n", out);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\n  kilorank COMMAND --help    more on one of them\n"
          "  kilorank --version\n\n"
          "  mpirun -np 2 kilorank train --run runs/first\n", out);
}

/* Which worker: as the arguments or the environment say, else by what is there. */
static const char *wanted_device(int argc, char **argv)
{
    const char *device = getenv("KILORANK_DEVICE");

    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--set") == 0 && strncmp(argv[i + 1], "run.device=", 11) == 0)
            device = argv[i + 1] + 11;
    return device ? device : "auto";
}

static kr_status folder_of_program(char out[FS_PATH])
{
    ssize_t n = readlink("/proc/self/exe", out, FS_PATH - 1);

    if (n < 0) return KR_FAIL(KR_ERR_IO, "cannot find the folder of this program");
    out[n] = '\0';
    *strrchr(out, '/') = '\0';
    return KR_OK;
}

static int run_worker(int argc, char **argv)
{
    char folder[FS_PATH], cpu[FS_PATH], cuda[FS_PATH];
    const char *device = wanted_device(argc, argv), *worker = cpu;

    if (folder_of_program(folder) != KR_OK ||
        fs_path(cpu, "%s/kilorank-worker-cpu", folder) != KR_OK ||
        fs_path(cuda, "%s/kilorank-worker-cuda", folder) != KR_OK)
        return EXIT_FAILED;
    if (strcmp(device, "cuda") == 0 ||
        (strcmp(device, "auto") == 0 && fs_exists(cuda) && fs_exists("/dev/nvidia0")))
        worker = cuda;
    execv(worker, argv);
    (void)KR_FAIL(KR_ERR_IO, "%s: cannot start it; build it with `make`", worker);
    return EXIT_FAILED;
}

/* The command that shares the longest beginning with what was typed. */
static const char *nearest(const char *typed)
{
    const char *best = NULL;
    size_t most = 1;

    for (size_t i = 0; i < COMMANDS; i++) {
        size_t same = 0;

        while (typed[same] && typed[same] == commands[i].name[same])
            same++;
        if (same > most) {
            most = same;
            best = commands[i].name;
        }
    }
    return best;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "", *near;

    log_setup("kilorank", -1);
    if (strcmp(name, "--version") == 0) {
        puts("kilorank " KILORANK_VERSION);
        return EXIT_DONE;
    }
    if (!*name || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
        strcmp(name, "help") == 0) {
        help(*name ? stdout : stderr);
        return *name ? EXIT_DONE : EXIT_USAGE;
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) != 0) continue;
        return commands[i].run ? commands[i].run(argc - 1, argv + 1) : run_worker(argc, argv);
    }
    near = nearest(name);
    (void)KR_FAIL(KR_ERR_ARG, "%s: no such command%s%s%s", name, near ? "; did you mean " : "",
                  near ? near : "", near ? "?" : " (see kilorank --help)");
    return EXIT_USAGE;
}
