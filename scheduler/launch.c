/* launch.c - the command line becomes a configuration of the supervisor. */
#include "scheduler/launch.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/launcher.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "scheduler/supervisor.h"

enum { TRAIN_MAX = 512 };

static void help(void)
{
    puts("usage: kilorank launch [CONFIG] --run DIR -n RANKS [OPTION]... [--set "
         "section.key=value]...\n\n"
         "Train on RANKS ranks, or go on with the run in DIR, and keep it going: what "
         "dies,\n"
         "hangs or falls silent is noticed in seconds and started again, on spare nodes "
         "or on\n"
         "fewer.  CONFIG and --set are those of `kilorank train`.\n\n"
         "  --hostfile FILE       nodes, as Open MPI has them: NAME slots=N a line; read "
         "again\n"
         "                        when it changes.  Without: this host, or the Slurm "
         "allocation\n"
         "  --spares K            nodes to keep beside those that are needed (all that "
         "are left)\n"
         "  --min-ranks M         go on with fewer ranks, but not below M (1)\n"
         "  --attempts A          end after A attempts that brought no new step (3)\n"
         "  --wait SECONDS        for nodes, when too few are there (60)\n"
         "  --patience SECONDS    that ranks go on without a supervisor (60)\n"
         "  --replace-slow        let a spare take the place of a node with a slow rank\n"
         "  --bind ADDRESS        listen there (the address that reaches the nodes)\n"
         "  --agent-command CMD   in place of ssh: called as CMD HOST COMMAND\n\n"
         "TERM, INT, USR1: save, end with 75.  `kilorank stop DIR`: save, end with 0.  "
         "Killed\n"
         "and started again it finds the run as it is.  Example:\n\n"
         "  kilorank launch run.ini --run runs/a -n 16 --hostfile hosts");
}

struct args {
    struct sup_config config;
    const char *run, *hostfile, *file; /* as given; file: CONFIG */
    char hostfile_path[PATH_MAX], file_path[PATH_MAX], *train[TRAIN_MAX];
    int train_count;
    bool help;
};

/* ---- numbers ------------------------------------------------------------------------ */

static kr_status read_int(const char *name, const char *text, int32_t least, int32_t *out)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (end == text || *end || value < least || value > 1 << 20)
        return KR_FAIL(KR_ERR_ARG, "launch: %s %s: want a whole number from %d", name,
                       text, least);
    *out = (int32_t)value;
    return KR_OK;
}

static kr_status read_seconds(const char *name, const char *text, double *out)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= 1 && value <= 1e6))
        return KR_FAIL(KR_ERR_ARG, "launch: %s %s: want seconds from 1", name, text);
    *out = value;
    return KR_OK;
}

/* ---- words -------------------------------------------------------------------------- */

static kr_status pass_on(struct args *a, const char *word)
{
    if (a->train_count == TRAIN_MAX - 1)
        return KR_FAIL(KR_ERR_ARG, "launch: more than %d arguments for train",
                       TRAIN_MAX - 1);
    a->train[a->train_count++] = (char *)(uintptr_t)word;
    return KR_OK;
}

static kr_status pass_set(struct args *a, const char *text)
{
    TRY(pass_on(a, "--set"));
    return pass_on(a, text);
}

static kr_status take_option(struct args *a, int option, const char *value)
{
    struct sup_config *c = &a->config;

    switch (option) {
    case 'r': a->run = value; return KR_OK;
    case 'n': return read_int("-n", value, 1, &c->ranks);
    case 'f': a->hostfile = value; return KR_OK;
    case 'k': return read_int("--spares", value, 0, &c->spares);
    case 'm': return read_int("--min-ranks", value, 1, &c->ranks_min);
    case 'a': return read_int("--attempts", value, 1, &c->attempts);
    case 'w': return read_seconds("--wait", value, &c->wait_seconds);
    case 'p': return read_seconds("--patience", value, &c->patience);
    case 's': return pass_set(a, value);
    case 'b': c->bind = value; return KR_OK;
    case 'c': c->agent_command = value; return KR_OK;
    case 'S': c->replace_slow = true; return KR_OK;
    default: a->help = true; return KR_OK;
    }
}

static kr_status parse(int argc, char **argv, struct args *a)
{
    static const struct option options[] = {
        { "run", required_argument, NULL, 'r' },
        { "ranks", required_argument, NULL, 'n' },
        { "hostfile", required_argument, NULL, 'f' },
        { "spares", required_argument, NULL, 'k' },
        { "min-ranks", required_argument, NULL, 'm' },
        { "attempts", required_argument, NULL, 'a' },
        { "wait", required_argument, NULL, 'w' },
        { "patience", required_argument, NULL, 'p' },
        { "set", required_argument, NULL, 's' },
        { "bind", required_argument, NULL, 'b' },
        { "agent-command", required_argument, NULL, 'c' },
        { "replace-slow", no_argument, NULL, 'S' },
        { "help", no_argument, NULL, 'h' },
        { 0 }
    };
    int c;

    opterr = 0;
    while ((c = getopt_long(argc, argv, "+r:n:s:h", options, NULL)) != -1 ||
           optind < argc) {
        if (c == '?')
            return KR_FAIL(KR_ERR_ARG,
                           "launch: %s: unknown option, or its value is missing",
                           argv[optind - 1]);
        if (c != -1)
            TRY(take_option(a, c, optarg));
        else if (a->file)
            return KR_FAIL(KR_ERR_ARG, "launch: %s: one CONFIG is enough", argv[optind]);
        else
            a->file = argv[optind++];
    }
    if (a->help) return KR_OK;
    if (!a->run || !*a->run) return KR_FAIL(KR_ERR_ARG, "launch: --run DIR is missing");
    if (a->config.ranks < 1) return KR_FAIL(KR_ERR_ARG, "launch: -n RANKS is missing");
    if (a->config.ranks_min > a->config.ranks)
        return KR_FAIL(KR_ERR_ARG, "launch: --min-ranks %d is more than -n %d",
                       a->config.ranks_min, a->config.ranks);
    return KR_OK;
}

/* ---- paths -------------------------------------------------------------------------- */

static kr_status absolute(const char *what, const char *path, char out[PATH_MAX])
{
    if (realpath(path, out)) return KR_OK;
    return KR_FAIL(KR_ERR_ARG, "launch: %s %s: %s", what, path, strerror(errno));
}

static kr_status find_program(char out[FS_PATH])
{
    ssize_t n = readlink("/proc/self/exe", out, FS_PATH - 1);

    if (n < 0) return KR_FAIL(KR_ERR_IO, "cannot find this program");
    out[n] = '\0';
    /* Open MPI cuts its launch agent at blanks */
    if (strpbrk(out, " \t"))
        return KR_FAIL(KR_ERR_ARG, "%s: Open MPI cannot start a path with blanks", out);
    return KR_OK;
}

static kr_status find_paths(struct args *a)
{
    char run[PATH_MAX];

    TRY(find_program(a->config.program));
    if (!getcwd(a->config.folder, sizeof a->config.folder))
        return KR_FAIL(KR_ERR_IO, "this folder is gone");
    if (a->file) TRY(absolute("CONFIG", a->file, a->file_path));
    if (a->hostfile) {
        TRY(absolute("--hostfile", a->hostfile, a->hostfile_path));
        a->config.hostfile = a->hostfile_path;
    }
    TRY(fs_mkdirs(a->run));
    TRY(absolute("--run", a->run, run));
    return fs_path(a->config.run, "%s", run);
}

/* ---- nodes -------------------------------------------------------------------------- */

/* Names of a Slurm allocation; as many slots as it gives tasks to a node, else as many as
 * spread the ranks over the nodes that are no spares. */
static kr_status slurm_nodes(const struct sup_config *c, struct nodes *out)
{
    const char *tasks = getenv("SLURM_NTASKS_PER_NODE"), *count = getenv("SLURM_NNODES");
    int32_t slots = tasks ? atoi(tasks) : 0, nodes = count ? atoi(count) : 1;
    char line[256];
    FILE *f = popen("scontrol show hostnames", "re");
    kr_status st = KR_OK;

    nodes -= c->spares > 0 ? c->spares : 0;
    if (slots < 1) slots = nodes > 0 ? (c->ranks + nodes - 1) / nodes : c->ranks;
    while (f && st == KR_OK && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0]) st = nodes_add(out, line, slots);
    }
    if (f) pclose(f);
    if (st == KR_OK && out->count == 0)
        st = KR_FAIL(KR_ERR_ARG, "launch: `scontrol show hostnames` names no node");
    return st;
}

static kr_status hostfile_nodes(const struct sup_config *c, struct nodes *out)
{
    char *text = NULL;
    size_t bytes;
    kr_status st;

    TRY(fs_read_all(c->hostfile, &text, &bytes, 1 << 20));
    st = nodes_parse(out, text, c->hostfile);
    mem_free(text);
    return st;
}

/* Nodes beyond those that are needed and the spares that were asked for are not used. */
static kr_status limit_nodes(const struct sup_config *c, struct nodes *n)
{
    int32_t needed = 0, slots = 0;

    while (needed < n->count && slots < c->ranks)
        slots += n->at[needed++].slots;
    if (slots < c->ranks)
        return KR_FAIL(KR_ERR_ARG, "launch: -n %d: the nodes have %d slots", c->ranks,
                       slots);
    if (c->spares < 0) return KR_OK;
    if (needed + c->spares > n->count)
        return KR_FAIL(KR_ERR_ARG, "launch: --spares %d: %d nodes are left over",
                       c->spares, n->count - needed);
    n->count = needed + c->spares;
    return KR_OK;
}

static kr_status find_nodes(struct sup_config *c, struct nodes *out)
{
    c->in_slurm = launcher_job() != NULL;
    c->start = c->agent_command ? SUP_COMMAND : c->hostfile ? SUP_SSH : SUP_FORK;
    if (c->hostfile) {
        TRY(hostfile_nodes(c, out));
    } else if (c->in_slurm) {
        c->start = c->agent_command ? SUP_COMMAND : SUP_SRUN;
        TRY(slurm_nodes(c, out));
    } else {
        TRY(nodes_add(out, "localhost", c->ranks));
    }
    return limit_nodes(c, out);
}

static kr_status find_train_arguments(struct args *a)
{
    if (a->file) TRY(pass_on(a, a->file_path));
    TRY(pass_on(a, "--run"));
    TRY(pass_on(a, a->config.run));
    a->config.train = a->train;
    return KR_OK;
}

/* In a container all is done by root; who starts a supervisor there means its ranks too. */
static void allow_root(void)
{
    if (geteuid() != 0) return;
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
}

int launch_main(int argc, char **argv)
{
    static struct args a = { .config = { .ranks_min = 1,
                                         .spares = -1,
                                         .attempts = 3,
                                         .wait_seconds = 60,
                                         .patience = 60 } };
    struct nodes nodes = { 0 };

    if (parse(argc, argv, &a) != KR_OK) return EXIT_USAGE;
    if (a.help) {
        help();
        return EXIT_DONE;
    }
    if (find_paths(&a) != KR_OK || find_train_arguments(&a) != KR_OK ||
        find_nodes(&a.config, &nodes) != KR_OK) {
        nodes_free(&nodes);
        return EXIT_USAGE;
    }
    log_setup("kilorank launch", -1);
    allow_root();
    return supervisor_run(&a.config, &nodes);
}
