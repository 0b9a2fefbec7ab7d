/*
 * main.c - the program `kilorank`: one table of commands.
 *
 * It links neither MPI nor CUDA nor HDF5, so it starts anywhere.  Commands that compute
 * replace it (exec) by the worker that lies beside it, so `mpirun -np 8 kilorank train`
 * works as MPI users expect.
 */
#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/tool.h"
#include "scheduler/agent.h"
#include "scheduler/chaos.h"
#include "scheduler/client.h"
#include "scheduler/exitcode.h"
#include "scheduler/launch.h"
#include "trainer/data/prepare.h"
#include "trainer/data/tokenizer_tool.h"

static const struct command {
    const char *name, *help;           /* help NULL: not for people */
    int (*run)(int argc, char **argv); /* NULL: the worker does it */
} commands[] = {
    { "train", "train a model, or go on with a run", NULL },
    { "launch", "train on many ranks, and keep it going after faults", launch_main },
    { "status", "what a launched run is doing", status_main },
    { "stop", "save a launched run and end it", stop_main },
    { "eval", "loss and perplexity of a checkpoint on tokens", NULL },
    { "generate", "let a checkpoint write text", NULL },
    { "import", "a model of Hugging Face's to a run", NULL },
    { "export", "a checkpoint to a model of Hugging Face's", NULL },
    { "prepare", "text to token files", prepare_main },
    { "tokenizer", "learn, try and inspect tokenizers", tokenizer_tool_main },
    { "ckpt", "list, verify, show, hash, diff, prune checkpoints", ckpt_tool_main },
    { "bench", "measure this machine", NULL },
    { "chaos", "train under random faults and see what that costs", chaos_main },
    { "agent", NULL, agent_main },
    { "rsh", NULL, rsh_main },
};
enum { COMMANDS = sizeof commands / sizeof *commands, NAME = 32 };

static void help(FILE *out)
{
    fputs("usage: kilorank COMMAND ...\n\n"
          "Train transformers on MPI ranks, with the same bits after any fault.\n\n",
          out);
    for (size_t i = 0; i < COMMANDS; i++)
        if (commands[i].help)
            fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\n  kilorank COMMAND --help    more on one of them\n"
          "  kilorank --version\n\n"
          "  mpirun -np 2 kilorank train --run runs/first\n"
          "  kilorank launch --run runs/first -n 2\n",
          out);
}

/* The value if text is a setting of run.device, written as the worker takes it. */
static const char *device_set(const char *text)
{
    static const char name[] = "run.device";

    text += strspn(text, " ");
    if (strncmp(text, name, sizeof name - 1) != 0) return NULL;
    text += sizeof name - 1;
    text += strspn(text, " ");
    return *text == '=' ? text + 1 + strspn(text + 1, " ") : NULL;
}

/* The last run.device in the arguments; NULL: none. */
static const char *device_argument(int argc, char **argv)
{
    const char *device = NULL, *found = NULL;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--set=", 6) == 0)
            found = device_set(argv[i] + 6);
        else if (strcmp(argv[i], "--set") == 0 && i + 1 < argc)
            found = device_set(argv[++i]);
        if (found) device = found;
        found = NULL;
    }
    return device;
}

static kr_status folder_of_program(char out[FS_PATH])
{
    ssize_t n = readlink("/proc/self/exe", out, FS_PATH - 1);

    if (n < 0) return KR_FAIL(KR_ERR_IO, "cannot find the folder of this program");
    out[n] = '\0';
    *strrchr(out, '/') = '\0';
    return KR_OK;
}

/* The arguments with the device of the environment as a setting, for the worker to obey. */
static char **with_device(int argc, char **argv, const char *device)
{
    static char option[] = "--set";
    char **more = NULL, *set = NULL;

    if (mem_alloc(&more, (size_t)argc + 3, sizeof *more, "arguments") != KR_OK ||
        mem_alloc(&set, strlen(device) + sizeof "run.device=", 1, "arguments") != KR_OK)
        return NULL;
    memcpy(more, argv, (size_t)argc * sizeof *more);
    strcat(strcpy(set, "run.device="), device);
    more[argc] = option;
    more[argc + 1] = set;
    return more;
}

/* Does the driver show a GPU?  A container may be given any of the machine's. */
static bool has_gpu(void)
{
    glob_t found;
    bool any = glob("/dev/nvidia[0-9]*", 0, NULL, &found) == 0;

    if (any) globfree(&found);
    return any;
}

static int run_worker(int argc, char **argv)
{
    char folder[FS_PATH], cpu[FS_PATH], cuda[FS_PATH];
    const char *device = device_argument(argc, argv), *worker = cpu;

    if (!device && (device = getenv("KILORANK_DEVICE")) && *device)
        argv = with_device(argc, argv, device);
    if (!argv) return EXIT_FAILED;
    if (!device || !*device) device = "auto";
    if (folder_of_program(folder) != KR_OK ||
        fs_path(cpu, "%s/kilorank-worker-cpu", folder) != KR_OK ||
        fs_path(cuda, "%s/kilorank-worker-cuda", folder) != KR_OK)
        return EXIT_FAILED;
    if (strcmp(device, "cuda") == 0 ||
        (strcmp(device, "auto") == 0 && fs_exists(cuda) && has_gpu()))
        worker = cuda;
    /* a rank does not outlive what started it: an agent's word that all are gone holds */
    if (getenv("KILORANK_SUPERVISED")) prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* GNU OpenMP's threads spin 300,000 rounds before they sleep; where cores are shared
     * that makes small steps 30 times slower (docs/speed.md), so they give up sooner. */
    setenv("GOMP_SPINCOUNT", "4000", 0);
    execv(worker, argv);
    (void)KR_FAIL(KR_ERR_IO, "run.device = %s: cannot start %s: %s; `make` builds it",
                  device, worker, strerror(errno));
    return EXIT_USAGE;
}

/* Letters to add, drop or change to make b of a; both shorter than NAME. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME], n = strlen(b);

    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (; *a; a++) {
        size_t corner = row[0]++;

        for (size_t j = 1; j <= n; j++) {
            size_t best = corner + (*a != b[j - 1]);

            corner = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

/* The command that was meant: one that begins so, else the nearest in spelling, if near. */
static const char *nearest(const char *typed)
{
    const char *best = NULL;
    size_t least = 3, len = strlen(typed);

    for (size_t i = 0; i < COMMANDS && len < NAME; i++) {
        const char *name = commands[i].name;
        size_t far =
            len >= 2 && strncmp(name, typed, len) == 0 ? 0 : distance(typed, name);

        if (far < least && far < strlen(name) - 1) {
            least = far;
            best = name;
        }
    }
    return best;
}

static int run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "", *near;

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
        return commands[i].run ? commands[i].run(argc - 1, argv + 1)
                               : run_worker(argc, argv);
    }
    near = nearest(name);
    (void)KR_FAIL(KR_ERR_ARG, "%s: no such command%s%s%s", name,
                  near ? "; did you mean " : "", near ? near : "",
                  near ? "?" : " (see kilorank --help)");
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    int code;

    fs_standard_open();
    log_setup("kilorank", -1);
    log_mute_others();
    code = run(argc, argv);
    return fs_standard_flush() == KR_OK || code != EXIT_DONE ? code : EXIT_IO;
}
