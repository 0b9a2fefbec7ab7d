/* commands.c - `train`, and what the commands share. */
#include "trainer/run/commands.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "trainer/run/base.h"
#include "trainer/run/init.h"
#include "trainer/run/loop.h"
#include "trainer/run/plan.h"
#include "trainer/run/stop.h"

const char *const about_program = "kilorank " KILORANK_VERSION;

int exit_code_of(kr_status st)
{
    switch (st) {
    case KR_OK: return EXIT_DONE;
    case KR_ERR_ARG: return EXIT_USAGE;
    case KR_ERR_MEM: return EXIT_FAILED;
    case KR_ERR_IO: return EXIT_IO;
    case KR_ERR_DATA: return EXIT_FAILED;
    case KR_ERR_DEVICE: return EXIT_DEVICE;
    case KR_ERR_COMM: return EXIT_COMM;
    case KR_ERR_NUMERIC: return EXIT_NUMERIC;
    case KR_ERR_BUSY: return EXIT_BUSY;
    case KR_ERR_NO_CKPT: return EXIT_NO_CHECKPOINT;
    }
    return EXIT_FAILED;
}

kr_status start_comm(struct comm **out, const struct settings *set)
{
    struct comm_config config = { set->backend, set->timeout, set->fault };

    TRY(comm_open(out, &config));
    log_mute(false);
    log_setup("kilorank", comm_size(*out) > 1 ? comm_rank(*out) : -1);
    return KR_OK;
}

int end_comm(struct comm *c, kr_status st, bool agreed, int code)
{
    if (st != KR_OK && !agreed && comm_size(c) > 1) comm_abort(c, code);
    comm_close(c);
    return code;
}

/* ---- train ------------------------------------------------------------------------------ */

static void train_help(FILE *out)
{
    fprintf(
        out,
        "usage: kilorank train [CONFIG] --run DIR [--set section.key=value]...\n\n"
        "Train, or go on with, the run in DIR.  CONFIG is an INI file; without it the\n"
        "settings of DIR are used, or those of the quick start.  On several ranks:\n\n"
        "  mpirun -np 8 kilorank train run.ini --run runs/a\n\n"
        "--plan RANKS instead of --run: only tell what memory each of so many ranks\n"
        "would hold.\n\n"
        "Signals TERM, USR1 and INT, or a file DIR/stop: finish the step, save, end.\n\n"
        "Settings, their defaults, and what they may be:\n");
    cfg_help(settings_table, out);
}

struct train_args {
    const char *run, *config;
    int32_t plan; /* ranks to plan for; 0: train */
    bool help;
};

/* A run directory may be missing, but nothing else may stand in its place. */
static kr_status check_run(const char *path)
{
    struct stat s;
    int error = stat(path, &s) == 0 ? (S_ISDIR(s.st_mode) ? 0 : ENOTDIR) : errno;

    if (error != ENOTDIR) return KR_OK;
    return KR_FAIL(KR_ERR_ARG, "train: --run %s: %s", path, strerror(error));
}

static const struct option train_options[] = { { "run", required_argument, NULL, 'r' },
                                               { "set", required_argument, NULL, 's' },
                                               { "plan", required_argument, NULL, 'p' },
                                               { "help", no_argument, NULL, 'h' },
                                               { 0 } };

/* The next option, or -1 and at optind a word that is none; false: the end. */
static bool next_option(int argc, char **argv, int *c)
{
    *c = getopt_long(argc, argv, "+r:s:p:h", train_options, NULL);
    return *c != -1 || optind < argc;
}

static kr_status read_ranks(const char *text, int32_t *out)
{
    char *end;
    long ranks = strtol(text, &end, 10);

    if (end == text || *end || ranks < 1 || ranks > 1 << 20)
        return KR_FAIL(KR_ERR_ARG, "train: --plan %s: want a number of ranks", text);
    *out = (int32_t)ranks;
    return KR_OK;
}

static kr_status parse_words(int argc, char **argv, struct train_args *a)
{
    int c;

    opterr = 0;
    while (next_option(argc, argv, &c)) {
        if (c == 'h') a->help = true;
        if (c == 'r') a->run = optarg;
        if (c == 'p') TRY(read_ranks(optarg, &a->plan));
        if (c == '?')
            return KR_FAIL(KR_ERR_ARG,
                           "train: %s: unknown option, or its value is missing",
                           argv[optind - 1]);
        if (c == -1 && a->config)
            return KR_FAIL(KR_ERR_ARG, "train: %s: one CONFIG is enough", argv[optind]);
        if (c == -1) a->config = argv[optind++];
    }
    return KR_OK;
}

/* The settings file, then --set, on top of what is there.  A plan has no run. */
static kr_status read_settings(int argc, char **argv, const struct train_args *a,
                               struct settings *set)
{
    char path[FS_PATH] = "";
    int c;

    if (!a->plan) TRY(fs_path(path, "%s/config.ini", a->run));
    if (a->config)
        TRY(cfg_read_file(settings_table, set, a->config));
    else if (path[0] && fs_exists(path))
        TRY(cfg_read_file(settings_table, set, path));
    optind = 1;
    while (next_option(argc, argv, &c)) {
        if (c == 's') TRY(cfg_set(settings_table, set, optarg, "--set"));
        if (c == -1) optind++;
    }
    return KR_OK;
}

static kr_status parse_train(int argc, char **argv, struct train_args *a,
                             struct settings *set)
{
    char init[SETTINGS_TEXT];

    TRY(parse_words(argc, argv, a));
    if (a->help) return KR_OK;
    if (a->plan) a->run = "";
    if (!a->plan && (!a->run || !a->run[0]))
        return KR_FAIL(KR_ERR_ARG, "train: --run DIR is missing");
    TRY(check_run(a->run));
    TRY(cfg_defaults(settings_table, set));
    TRY(read_settings(argc, argv, a, set));
    if (!set->init[0]) return KR_OK;
    strcpy(init, set->init);
    TRY(cfg_defaults(settings_table, set));
    TRY(init_settings(init, a->run, set));
    TRY(read_settings(argc, argv, a, set));
    return base_pin(set, a->run);
}

static void tell_enter(void *pulse, uint64_t number, const char *name)
{
    pulse_enter(pulse, number, name);
}

static void tell_leave(void *pulse, uint64_t number, const char *name)
{
    pulse_leave(pulse, number, name);
}

static void tell_error(enum log_level level, const char *text, void *pulse)
{
    if (level == LOG_ERROR) pulse_note(pulse, text);
}

/* One rank, from the start of MPI to its end; it may end inside. */
static int train(const struct train_args *args, const struct settings *set,
                 struct pulse *pulse)
{
    struct comm_watch watch = { tell_enter, tell_leave, pulse };
    struct comm *c = NULL;
    bool stopped = false, agreed = true;
    kr_status st = start_comm(&c, set);
    int code = exit_code_of(st);

    if (st == KR_OK) {
        if (pulse) comm_watch(c, &watch);
        st = settings_check_together(set, c);
        code = exit_code_of(st);
    }
    if (st == KR_OK) {
        st = loop_train(c, set, args->run, about_program, pulse, &stopped);
        agreed = loop_ends_together(st);
        code = st == KR_OK && stopped ? EXIT_REQUEUE : exit_code_of(st);
    }
    pulse_exit(pulse, code);
    return c ? end_comm(c, st, agreed, code) : code;
}

static kr_status tell_plan(const struct settings *set, int32_t ranks)
{
    struct plan p;

    TRY(settings_check(set, ranks));
    TRY(plan_make(&p, set, ranks));
    plan_tell(&p, 0);
    return KR_OK;
}

int train_command(int argc, char **argv)
{
    struct train_args args = { 0 };
    struct settings set;
    struct pulse *pulse;
    int code;

    if (parse_train(argc, argv, &args, &set) != KR_OK) return EXIT_USAGE;
    if (args.help) {
        train_help(stdout);
        return EXIT_DONE;
    }
    if (args.plan) return exit_code_of(tell_plan(&set, args.plan));
    stop_setup(); /* MPI may take long to start, and a request may come meanwhile */
    pulse_open(&pulse);
    if (pulse) log_capture(tell_error, pulse);
    code = train(&args, &set, pulse);
    log_capture(NULL, NULL);
    pulse_close(pulse);
    return code;
}
