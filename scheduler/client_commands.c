/* client_commands.c - `kilorank status`, `kilorank stop`, and the stand-in for ssh. */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "scheduler/client.h"
#include "scheduler/exitcode.h"
#include "scheduler/journal.h"
#include "scheduler/json.h"
#include "scheduler/ladder.h"
#include "scheduler/view.h"

static const double patience = 5, stop_patience = 30;

struct words {
    const char *dir;
    bool json, prometheus, help;
};

static kr_status parse(int argc, char **argv, struct words *w)
{
    static const struct option options[] = { { "json", no_argument, NULL, 'j' },
                                             { "prometheus", no_argument, NULL, 'p' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    int c;

    opterr = 0;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'j') w->json = true;
        if (c == 'p') w->prometheus = true;
        if (c == 'h') w->help = true;
        if (c == '?')
            return KR_FAIL(KR_ERR_ARG, "%s: %s: unknown option", argv[0],
                           argv[optind - 1]);
    }
    if (w->help) return KR_OK;
    if (argc - optind != 1)
        return KR_FAIL(KR_ERR_ARG, "%s: want one run directory", argv[0]);
    w->dir = argv[optind];
    return KR_OK;
}

static void print(const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
}

/* ---- status ------------------------------------------------------------------------- */

static void print_past(const struct journal_past *p, bool json)
{
    const char *state = p->is_over ? "ended" : "no supervisor";
    struct mem_text t = { 0 };

    if (!json) {
        printf("%s; generation %lld, furthest step known %lld, %lld faults\n", state,
               (long long)p->generation, (long long)p->step, (long long)p->faults);
        if (p->is_over) printf("exit code %d: %s\n", p->code, ladder_code_text(p->code));
        if (p->last_fault[0]) printf("last fault: %s\n", p->last_fault);
        return;
    }
    json_open(&t, NULL);
    json_text(&t, "state", state);
    json_int(&t, "generation", p->generation);
    json_int(&t, "step", p->step);
    json_int(&t, "faults", p->faults);
    json_text(&t, "last_fault", p->last_fault);
    if (p->is_over) json_int(&t, "code", p->code);
    json_close(&t, '}');
    if (!t.failed) printf("%s\n", t.at);
    mem_text_free(&t);
}

/* The label is the supervisor's: an absolute path. */
static void print_past_prometheus(const struct journal_past *p, const char *run)
{
    struct mem_text t = { 0 };
    char path[PATH_MAX];

    view_life(&t, realpath(run, path) ? path : run, false, p->step, p->faults);
    if (!t.failed) fputs(t.at, stdout);
    mem_text_free(&t);
}

int status_main(int argc, char **argv)
{
    struct words w = { 0 };
    struct journal_past past;
    struct client *c = NULL;
    const char *question;
    int32_t code = EXIT_FAILED;
    kr_status st;

    if (parse(argc, argv, &w) != KR_OK) return EXIT_USAGE;
    if (w.help) {
        puts("usage: kilorank status DIR [--json|--prometheus]\n\n"
             "What the run in DIR is doing: nodes, ranks, step, rate, last fault.  "
             "Without a\n"
             "supervisor: what its journal says.  Example:\n\n"
             "  kilorank status runs/a --json");
        return EXIT_DONE;
    }
    question = w.json ? "status json" : w.prometheus ? "status prometheus" : "status";
    st = client_open(&c, w.dir, patience);
    if (st == KR_OK) st = client_ask(c, question, patience, print, &code);
    client_close(c);
    if (st == KR_OK) return code;
    if (journal_look(w.dir, &past) == KR_OK) {
        if (w.prometheus)
            print_past_prometheus(&past, w.dir);
        else
            print_past(&past, w.json);
        return EXIT_DONE;
    }
    (void)KR_FAIL(KR_ERR_IO, "%s: nothing supervises it, and nothing did", w.dir);
    return EXIT_FAILED;
}

/* ---- stop --------------------------------------------------------------------------- */

int stop_main(int argc, char **argv)
{
    struct words w = { 0 };
    struct client *c = NULL;
    int32_t code = EXIT_FAILED;
    kr_status st;

    if (parse(argc, argv, &w) != KR_OK) return EXIT_USAGE;
    if (w.help) {
        puts("usage: kilorank stop DIR\n\n"
             "End the supervised run in DIR: finish the step, save, end.  Waits for it "
             "and\n"
             "ends with the run's exit code, 0 if all is saved.  A run that was started\n"
             "without `launch` ends when a file DIR/stop appears.  Example:\n\n"
             "  kilorank stop runs/a");
        return EXIT_DONE;
    }
    st = client_open(&c, w.dir, patience);
    if (st == KR_OK) st = client_ask(c, "stop", stop_patience, print, &code);
    client_close(c);
    if (st == KR_OK) return code;
    (void)KR_FAIL(KR_ERR_COMM, "%s: no supervisor of it answers", w.dir);
    return EXIT_FAILED;
}

/* ---- in place of ssh ---------------------------------------------------------------- */

/* The words after the host, as a shell would have them from ssh: with blanks between. */
static kr_status join(int argc, char **argv, struct mem_text *out)
{
    for (int i = 0; i < argc; i++) {
        if (i > 0) mem_append(out, " ", 1);
        mem_append(out, argv[i], strlen(argv[i]));
    }
    mem_append(out, "", 1); /* a list of one text, its end included */
    return out->failed ? KR_ERR_MEM : KR_OK;
}

/* Open MPI calls it as  kilorank rsh HOST COMMAND...  on the node where mpirun runs. */
static kr_status start_daemon(const char *run, const char *host,
                              const struct mem_text *command)
{
    static struct wire_message m;
    const struct wire_message *in;
    const char *generation = getenv("KILORANK_GENERATION");
    struct client *c = NULL;
    kr_status st;

    m.type = WIRE_EXEC;
    m.exec.generation = generation ? atoll(generation) : 0;
    snprintf(m.exec.node, sizeof m.exec.node, "%s", host);
    m.exec.command = (struct wire_list){ command->at, (uint32_t)command->len };
    TRY(client_open(&c, run, patience));
    st = client_send(c, &m);
    if (st == KR_OK) st = client_receive(c, &in, patience);
    if (st == KR_OK && (in->type != WIRE_STARTED || in->started.trouble[0]))
        st = KR_FAIL(KR_ERR_COMM, "%s: cannot start Open MPI's daemon: %s", host,
                     in->type == WIRE_STARTED ? in->started.trouble : "no such node");
    client_close(c);
    return st;
}

int rsh_main(int argc, char **argv)
{
    const char *run = getenv("KILORANK_SUPERVISED");
    struct mem_text command = { 0 };
    kr_status st;

    if (argc < 3 || !run) {
        (void)KR_FAIL(KR_ERR_ARG, "rsh: Open MPI starts it, not you");
        return EXIT_USAGE;
    }
    st = join(argc - 2, argv + 2, &command);
    if (st == KR_OK) st = start_daemon(run, argv[1], &command);
    mem_text_free(&command);
    return st == KR_OK ? EXIT_DONE : EXIT_FAILED;
}
