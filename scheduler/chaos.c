/* chaos.c - two runs, a fault now and then, a table. */
#include "scheduler/chaos.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "scheduler/chaos_fault.h"
#include "scheduler/chaos_options.h"
#include "scheduler/chaos_record.h"
#include "scheduler/child.h"
#include "scheduler/exitcode.h"

enum { STRIKES = 4096, STATUS = 1 << 20, HASH = 64 };
static const double look_seconds = 0.05, command_seconds = 10, end_seconds = 60;

struct tally {
    double seen[STRIKES], recovered[STRIKES];
    int32_t seen_count, count; /* of a supervisor's death nobody writes a line */
};

struct chaos {
    struct chaos_options o;
    char self[FS_PATH], run[FS_PATH], journal[FS_PATH], host[CHAOS_NODE_NAME];
    pid_t supervisor, node_command; /* 0: none */
    int32_t code;                   /* of the supervisor that ended */
    uint64_t draws;
    int64_t strikes;
    struct tally tallies[CHAOS_FAULTS];
};

static volatile sig_atomic_t asked_to_end;

static void on_signal(int number)
{
    (void)number;
    asked_to_end = 1;
}

/* ---- processes ----------------------------------------------------------------------- */

/* What this program prints when it is asked. */
static bool answer_of(const struct chaos *c, char *const ask[], char *out, size_t size)
{
    char file[FS_PATH];

    return fs_path(file, "%s/answer", c->o.run) == KR_OK &&
           child_answer(ask, file, command_seconds, out, size);
}

/* A line on a node's shell, here without a detour. */
static kr_status shell(const struct chaos *c, const char *node, char *line, pid_t *pid)
{
    char remote[FS_PATH];
    char *here[] = { "sh", "-c", line, NULL };
    char *there[] = { "sh", "-c", remote, "sh", (char *)(uintptr_t)node, line, NULL };

    if (strcmp(node, c->host) == 0 || strcmp(node, "localhost") == 0)
        return child_begin(here, 2, pid);
    TRY(fs_path(remote, "%s \"$@\"", c->o.shell));
    return child_begin(there, 2, pid);
}

static kr_status start_supervisor(struct chaos *c)
{
    char log[FS_PATH], *argv[CHAOS_WORDS] = { c->self, "launch" };
    int n = 2, fd;
    kr_status st;

    for (int i = 0; i < c->o.count; i++)
        argv[n++] = c->o.launch[i];
    argv[n++] = "--run";
    argv[n] = c->run;
    TRY(fs_path(log, "%s.log", c->run));
    TRY(fs_open(&fd, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC));
    st = child_begin(argv, fd, &c->supervisor);
    close(fd);
    return st;
}

/* Ask it to save and end, then insist. */
static void end_supervisor(struct chaos *c)
{
    if (!c->supervisor) return;
    kill(c->supervisor, SIGTERM);
    (void)child_await(c->supervisor, end_seconds);
    c->supervisor = 0;
}

static bool is_over(struct chaos *c)
{
    if (asked_to_end) {
        end_supervisor(c);
        c->code = EXIT_REQUEUE;
        return true;
    }
    if (!child_ended(c->supervisor, &c->code)) return false;
    c->supervisor = 0;
    return true;
}

/* ---- faults ------------------------------------------------------------------------- */

static uint64_t draw(struct chaos *c)
{
    return rng_u64(c->o.seed, RNG_TEST, 0, c->draws++);
}

/* Exponential, so that faults keep no rhythm. */
static double pause_seconds(struct chaos *c)
{
    return -c->o.every * log1p(-rng_uniform(c->o.seed, RNG_TEST, 1, c->draws++));
}

/* Every kind once before any comes again, each round in an order of its own. */
static enum chaos_fault choose(const struct chaos *c)
{
    enum chaos_fault kinds[CHAOS_FAULTS];
    uint64_t n = 0, done = (uint64_t)c->strikes;

    for (int f = 0; f < CHAOS_FAULTS; f++)
        if (c->o.faults >> f & 1) kinds[n++] = (enum chaos_fault)f;
    return kinds[rng_permute(c->o.seed, RNG_TEST, (uint32_t)(done / n), n, done % n)];
}

static bool target(struct chaos *c, uint64_t random, struct chaos_target *t)
{
    static char answer[STATUS];
    char *ask[] = { c->self, "status", c->run, "--json", NULL };

    return answer_of(c, ask, answer, sizeof answer) &&
           chaos_fault_target(answer, random, t);
}

static kr_status strike_supervisor(struct chaos *c)
{
    kill(c->supervisor, SIGKILL);
    (void)child_await(c->supervisor, command_seconds);
    return start_supervisor(c);
}

/* Do it; false: it could not be done. */
static bool strike(struct chaos *c, enum chaos_fault f, struct chaos_target *t)
{
    char line[CHAOS_LINE];
    char *node[] = { "sh", "-c", NULL, "sh", t->node, NULL }, command[FS_PATH];
    pid_t pid;

    if (f == CHAOS_SUPERVISOR) return strike_supervisor(c) == KR_OK;
    if (f == CHAOS_NODE) {
        node[2] = command;
        return fs_path(command, "%s \"$@\"", c->o.node_fault) == KR_OK &&
               child_begin(node, 2, &c->node_command) == KR_OK;
    }
    return chaos_fault_line(f, t, line) && shell(c, t->node, line, &pid) == KR_OK &&
           child_await(pid, command_seconds) == 0;
}

static bool happened(const struct chaos *c, const char *event, double after, double *time)
{
    char *text = NULL;
    size_t bytes;
    bool found;

    if (!fs_exists(c->journal) ||
        fs_read_all(c->journal, &text, &bytes, 1u << 30) != KR_OK)
        return false;
    found = chaos_event(text, event, after, time);
    mem_free(text);
    return found;
}

/* The run goes on: a new generation did a step, or a new supervisor found the old one. */
static bool has_recovered(const struct chaos *c, enum chaos_fault f, double after,
                          double *time)
{
    return happened(c, "running", after, time) ||
           (f == CHAOS_SUPERVISOR && happened(c, "adopted", after, time));
}

static void note(struct chaos *c, enum chaos_fault f, double struck, double recovered)
{
    struct tally *t = &c->tallies[f];
    double seen;

    if (t->count == STRIKES) return;
    if (happened(c, "fault", struck, &seen) && seen <= recovered)
        t->seen[t->seen_count++] = seen - struck;
    t->recovered[t->count++] = recovered - struck;
}

/* Until the run goes on, and a node that was taken is back. */
static kr_status await_recovery(struct chaos *c, enum chaos_fault f, double struck)
{
    double until = clock_now() + c->o.limit, recovered;
    int32_t code;

    while (!has_recovered(c, f, struck, &recovered)) {
        if (is_over(c)) return KR_OK;
        if (clock_now() > until)
            return KR_FAIL(KR_ERR_COMM,
                           "%s: no step within %.0f s after the fault \"%s\"", c->run,
                           c->o.limit, chaos_fault_name(f));
        clock_sleep(look_seconds);
    }
    note(c, f, struck, recovered);
    LOG_NOTE("went on after %.1f s", recovered - struck);
    while (c->node_command && !child_ended(c->node_command, &code) && !is_over(c))
        clock_sleep(look_seconds);
    c->node_command = 0;
    return KR_OK;
}

static kr_status next_fault(struct chaos *c)
{
    enum chaos_fault f = choose(c);
    uint64_t random = draw(c);
    struct chaos_target t;
    double struck;

    while (!target(c, random, &t)) {
        if (is_over(c)) return KR_OK;
        clock_sleep(look_seconds);
    }
    struck = clock_wall();
    LOG_NOTE("fault %" PRId64 " at step %" PRId64 ": %s (%s)", ++c->strikes, t.step,
             chaos_fault_meaning(f), t.node);
    if (strike(c, f, &t)) return await_recovery(c, f, struck);
    LOG_WARNING("the fault could not be injected");
    return KR_OK;
}

/* ---- runs --------------------------------------------------------------------------- */

static kr_status prepare(struct chaos *c, const char *name)
{
    TRY(fs_path(c->run, "%s/%s", c->o.run, name));
    TRY(fs_path(c->journal, "%s/supervisor.jsonl", c->run));
    TRY(start_supervisor(c));
    LOG_NOTE("%s begins; what it says is in %s.log", c->run, c->run);
    return KR_OK;
}

static kr_status finish_run(const struct chaos *c)
{
    if (c->code == EXIT_DONE) return KR_OK;
    return KR_FAIL(KR_ERR_COMM, "%s ended with exit code %d; see %s.log", c->run, c->code,
                   c->run);
}

static kr_status calm_run(struct chaos *c)
{
    TRY(prepare(c, "calm"));
    while (!is_over(c))
        clock_sleep(look_seconds);
    return finish_run(c);
}

static kr_status chaos_run(struct chaos *c)
{
    TRY(prepare(c, "chaos"));
    while (c->supervisor) {
        double due = clock_now() + pause_seconds(c);

        while (clock_now() < due && !is_over(c))
            clock_sleep(look_seconds);
        if (c->supervisor) TRY(next_fault(c));
    }
    return finish_run(c);
}

/* ---- report ------------------------------------------------------------------------- */

static void print_spread(const double *values, int32_t n)
{
    double copy[STRIKES];
    struct chaos_spread s;

    if (n == 0) {
        printf("  %17s", "-");
        return;
    }
    memcpy(copy, values, (size_t)n * sizeof *copy);
    s = chaos_spread(copy, n);
    printf("  %5.1f %5.1f %5.1f", s.least, s.median, s.most);
}

static void print_tallies(const struct chaos *c)
{
    printf("%-12s %6s  %-17s  %s\n", "fault", "times", "seen after, s",
           "next step after, s  (least, median, most)");
    for (int f = 0; f < CHAOS_FAULTS; f++) {
        const struct tally *t = &c->tallies[f];

        if (t->count == 0) continue;
        printf("%-12s %6d", chaos_fault_name(f), t->count);
        print_spread(t->seen, t->seen_count);
        print_spread(t->recovered, t->count);
        printf("\n");
    }
}

static kr_status print_steps(const struct chaos *c, const char *name)
{
    char path[FS_PATH], *text = NULL;
    struct chaos_steps s;
    size_t bytes;

    TRY(fs_path(path, "%s/%s/log.jsonl", c->o.run, name));
    TRY(fs_read_all(path, &text, &bytes, 1u << 30));
    kr_status st = chaos_steps(text, &s);
    mem_free(text);
    TRY(st);
    printf("%-6s %7" PRId64 " steps, %" PRId64
           " of them lost and done again; ETTR %.1f %% "
           "(%.1f s of steps in %.1f s)\n",
           name, s.last, s.again, s.elapsed > 0 ? 100 * s.useful / s.elapsed : 0,
           s.useful, s.elapsed);
    return KR_OK;
}

static bool hash_of(const struct chaos *c, const char *name, char out[HASH])
{
    char run[FS_PATH], *ask[] = { (char *)(uintptr_t)c->self, "ckpt", "hash", run, NULL };

    if (fs_path(run, "%s/%s", c->o.run, name) != KR_OK || !answer_of(c, ask, out, HASH))
        return false;
    out[strcspn(out, " \n")] = '\0';
    return true;
}

static kr_status report(const struct chaos *c)
{
    char calm[HASH], chaos[HASH];

    print_tallies(c);
    TRY(print_steps(c, "calm"));
    TRY(print_steps(c, "chaos"));
    if (!hash_of(c, "calm", calm) || !hash_of(c, "chaos", chaos))
        return KR_FAIL(KR_ERR_IO, "%s: no hash of the last checkpoint", c->o.run);
    printf("hash   calm %s\n       chaos %s\n", calm, chaos);
    if (strcmp(calm, chaos) != 0)
        return KR_FAIL(KR_ERR_DATA, "%" PRId64 " faults changed the result", c->strikes);
    printf("the same bits after %" PRId64 " faults\n", c->strikes);
    return KR_OK;
}

/* ---- main --------------------------------------------------------------------------- */

static kr_status open_chaos(struct chaos *c)
{
    ssize_t n = readlink("/proc/self/exe", c->self, sizeof c->self - 1);

    if (n < 0) return KR_FAIL(KR_ERR_IO, "cannot find this program");
    (void)gethostname(c->host, sizeof c->host - 1);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    return fs_mkdirs(c->o.run);
}

static kr_status run_all(struct chaos *c)
{
    char answer[FS_PATH];
    kr_status st;

    TRY(open_chaos(c));
    st = calm_run(c);
    if (st == KR_OK) st = chaos_run(c);
    end_supervisor(c);
    if (st == KR_OK) st = report(c);
    if (fs_path(answer, "%s/answer", c->o.run) == KR_OK) (void)fs_unlink(answer);
    return st;
}

int chaos_main(int argc, char **argv)
{
    static struct chaos c;

    if (chaos_options_read(argc, argv, &c.o) != KR_OK) return EXIT_USAGE;
    if (c.o.help) {
        chaos_options_help();
        return EXIT_DONE;
    }
    return run_all(&c) == KR_OK ? EXIT_DONE : EXIT_FAILED;
}
