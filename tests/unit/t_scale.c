/*
 * t_scale.c - the real supervisor with 128 agents and 1,024 ranks that only pretend.
 *
 * This program plays all agents: real sockets, real messages, one beat a second each.  One
 * says twice who it is, each time another; one comes a second time; one is of another run.
 * Then a node falls silent: the next generation must be asked for within seconds, and the
 * supervisor must cost little.
 */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "scheduler/address.h"
#include "scheduler/link.h"
#include "scheduler/pulse.h"
#include "tests/check.h"

enum {
    NODES = 128,
    SLOTS = 8,
    TWO_FACED = 5,
    TWIN = 9,
    OTHER = 11,
    SILENT = 77,
    LIMIT = 60
};

static struct pretender {
    struct link *link;
    int64_t generation;
    int32_t first, ranks;
} all[NODES], old_twin, other_run = { .generation = 99 };

static uv_loop_t loop;
static uv_timer_t timer;
static struct wire_message out;
static char run[FS_PATH], hosts[FS_PATH], program[FS_PATH];
static int64_t steps, generation_run[3];
static double began, silent_since, asked_again;
static int ready_first, exit_code = -1, closings, refusals_twin, refusals_other;
static bool is_done;
static pid_t supervisor;

static void must(kr_status st)
{
    if (st != KR_OK) abort();
}

/* ---- the agents --------------------------------------------------------------------- */

static void say_hello(struct pretender *p, int node, int64_t pid)
{
    out.type = WIRE_HELLO;
    out.hello = (struct wire_hello){ .version = WIRE_VERSION,
                                     .pid = pid,
                                     .generation = p->generation,
                                     .is_head = node == 0 && p->generation > 0,
                                     .place = node,
                                     .ranks = p->ranks };
    snprintf(out.hello.node, sizeof out.hello.node, "n%d", node);
    link_send(p->link, &out);
}

/* The twin comes while the first one is there. */
static void on_open(struct link *l)
{
    struct pretender *p = l->owner;

    if (p == &other_run)
        say_hello(p, OTHER, 1);
    else
        say_hello(p, (int)(p - all), p == &all[TWIN] && old_twin.link ? 2 : 1);
}

static void on_prepare(struct pretender *p, const struct wire_prepare *m)
{
    if (m->generation == 0) return;
    p->generation = m->generation;
    p->ranks = m->ranks;
    p->first = m->place * SLOTS; /* all nodes are alike */
    ready_first += m->generation == 1;
    if (m->generation == 2 && asked_again <= 0) asked_again = clock_now();
    out.type = WIRE_READY;
    out.ready = (struct wire_ready){ .generation = m->generation };
    link_send(p->link, &out);
}

static void on_message(struct link *l, const struct wire_message *m)
{
    struct pretender *p = l->owner;

    if (m->type == WIRE_PREPARE) on_prepare(p, &m->prepare);
    if (m->type == WIRE_RUN && m->run.generation < 3) generation_run[m->run.generation]++;
    refusals_twin += m->type == WIRE_REFUSE && p == &old_twin;
    refusals_other += m->type == WIRE_REFUSE && p == &other_run;
    if (m->type == WIRE_LEAVE || m->type == WIRE_REFUSE) link_close(l, "told to");
}

static void on_closed(struct link *l, const char *why)
{
    struct pretender *p = l->owner;

    (void)why;
    closings += p == &all[TWO_FACED] && !is_done;
    p->link = NULL;
}

static void beat(struct pretender *p)
{
    out.type = WIRE_BEAT;
    if (!p->link || !p->link->session.is_open) return;
    out.beat = (struct wire_beat){ .generation = p->generation, .count = p->ranks };
    for (int32_t i = 0; i < p->ranks; i++)
        out.beat.ranks[i] = (struct wire_rank){ .rank = p->first + i,
                                                .pid = 1000 + i,
                                                .is_alive = !is_done,
                                                .exit_code = is_done ? 0 : -1,
                                                .phase = PULSE_COMPUTING,
                                                .step = steps,
                                                .entered = (uint64_t)steps,
                                                .left = (uint64_t)steps,
                                                .compute_seconds = 0.8,
                                                .wait_seconds = 0.2 };
    link_send(p->link, &out);
}

/* ---- the story ---------------------------------------------------------------------- */

static void connect_one(struct pretender *p)
{
    static const struct link_events events = { on_open, on_message, on_closed };
    struct address at;

    must(address_read(&at, run));
    must(link_connect(&p->link, &loop, at.host, at.port, &at.token, &events, p));
}

static void connect_all(void)
{
    char token[FS_PATH];

    must(fs_path(token, "%s/.token", run));
    if (all[0].link || steps > 0 || !fs_exists(token)) return;
    for (int i = 0; i < NODES; i++)
        connect_one(&all[i]);
}

static void misbehave(void)
{
    if (steps == 2) {
        say_hello(&all[TWO_FACED], TWO_FACED + 1, 1);
        old_twin = all[TWIN];
        old_twin.link->owner = &old_twin;
        connect_one(&all[TWIN]);
        connect_one(&other_run);
    }
    if (steps == 3 && !all[TWO_FACED].link) connect_one(&all[TWO_FACED]);
}

/* Both starts were asked for: the ranks are done, and mpirun ends. */
static void end_run(void)
{
    is_done = true;
    for (int i = 0; i < NODES; i++)
        if (all[i].link && i != SILENT) beat(&all[i]);
    out.type = WIRE_ENDED;
    out.ended = (struct wire_ended){ 2, 1, 0 };
    link_send(all[0].link, &out);
}

static void on_second(uv_timer_t *t)
{
    int status;

    (void)t;
    connect_all();
    if (generation_run[1] > 0) steps++;
    misbehave();
    if (steps == 5) silent_since = clock_now();
    for (int i = 0; i < NODES && !is_done; i++)
        if (all[i].generation > 0 && (steps < 5 || i != SILENT)) beat(&all[i]);
    if (generation_run[2] > 0 && !is_done) end_run();
    if (waitpid(supervisor, &status, WNOHANG) == supervisor)
        exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    if (exit_code >= 0 || clock_now() - began > LIMIT) uv_stop(&loop);
}

static void start_supervisor(void)
{
    FILE *f = fopen(hosts, "w");

    if (!f) abort();
    for (int i = 0; i < NODES; i++)
        fprintf(f, "n%d slots=%d\n", i, SLOTS);
    fclose(f);
    if ((supervisor = fork()) != 0) return;
    execl(program, program, "launch", "--run", run, "-n", "1024", "--hostfile", hosts,
          "--bind", "127.0.0.1", "--agent-command", "true", NULL);
    _exit(127);
}

static void tell_the_story(void)
{
    uv_loop_init(&loop);
    uv_timer_init(&loop, &timer);
    began = clock_now();
    start_supervisor();
    uv_timer_start(&timer, on_second, 100, 1000);
    uv_run(&loop, UV_RUN_DEFAULT);
    kill(supervisor, SIGKILL);
}

/* ---- what it showed ----------------------------------------------------------------- */

static void all_agents_are_told_to_make_ready(void) { CHECK_I64(ready_first, ==, NODES); }

static void one_of_them_starts_mpirun_each_time(void)
{
    CHECK_I64(generation_run[1], ==, 1);
    CHECK_I64(generation_run[2], ==, 1);
}

static void only_what_is_meant_is_cut_off(void)
{
    CHECK_I64(closings, ==, 1);
    CHECK_I64(refusals_twin, ==, 1);
    CHECK_I64(refusals_other, ==, 1);
}

/* The value of a number of the journal's first line of an event after `from`. */
static double journal_number(const char *from, const char *event, const char *key,
                             const char **line)
{
    char name[64];

    snprintf(name, sizeof name, "\"event\": \"%s\"", event);
    if (!(*line = strstr(from, name))) return NAN;
    while (*line > from && (*line)[-1] != '\n')
        --*line;
    snprintf(name, sizeof name, "\"%s\": ", key);
    from = strstr(*line, name);
    return from ? strtod(from + strlen(name), NULL) : NAN;
}

/* A connection that broke and came back was no fault, and no later one is counted from it. */
static void recovery_is_counted_from_its_own_fault(void)
{
    char path[FS_PATH], *text = NULL;
    const char *fault, *again;
    double at, detect, on_again, took;
    size_t bytes;

    must(fs_path(path, "%s/supervisor.jsonl", run));
    must(fs_read_all(path, &text, &bytes, 1 << 20));
    at = journal_number(text, "fault", "time", &fault);
    CHECK(fault && strstr(fault, "node lost"));
    if (fault) {
        detect = journal_number(fault, "fault", "detect_s", &fault);
        took = journal_number(fault, "running", "recovery_s", &again);
        on_again = journal_number(fault, "running", "time", &again);
        CHECK(fabs(on_again - at + detect - took) < 0.5);
        CHECK(again && !strstr(again, "\"event\": \"fault\""));
    }
    mem_free(text);
}

/* 4.5 s of silence from its last beat, up to a second before; slack for a busy machine. */
static void a_silent_node_is_decided_on_in_seconds(void)
{
    printf("# decided after %.1f s\n", asked_again - silent_since);
    CHECK(asked_again > silent_since);
    CHECK(asked_again - silent_since < 10);
}

static void the_run_goes_on_with_1016_ranks_and_ends(void)
{
    CHECK_I64(exit_code, ==, 0);
    CHECK_I64(all[SILENT + 1].first, ==, SILENT * SLOTS); /* places close up */
}

static void the_supervisor_costs_little(void)
{
    struct rusage u;
    double cpu, wall = clock_now() - began;

    if (getrusage(RUSAGE_CHILDREN, &u) != 0) abort();
    cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
          1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    printf("# %.2f s of processor in %.1f s, %.0f MiB\n", cpu, wall,
           (double)u.ru_maxrss / 1024);
    CHECK(cpu < wall);
    CHECK_I64(u.ru_maxrss, <, 200 * 1024);
}

int main(void)
{
    char folder[] = "/tmp/kr-scale.XXXXXX";
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    char *tests = n > 0 ? strstr(program, "/tests/unit/") : NULL;

    if (!mkdtemp(folder) || !tests) return 2;
    snprintf(tests, sizeof program - (size_t)(tests - program), "/kilorank");
    must(fs_path(run, "%s/run", folder));
    must(fs_path(hosts, "%s/hosts", folder));
    setenv("XDG_STATE_HOME", folder, 1);
    setenv("KILORANK_LOG", "error", 1);
    signal(SIGPIPE, SIG_IGN);
    tell_the_story();
    RUN(all_agents_are_told_to_make_ready);
    RUN(one_of_them_starts_mpirun_each_time);
    RUN(only_what_is_meant_is_cut_off);
    RUN(recovery_is_counted_from_its_own_fault);
    RUN(a_silent_node_is_decided_on_in_seconds);
    RUN(the_run_goes_on_with_1016_ranks_and_ends);
    RUN(the_supervisor_costs_little);
    (void)fs_remove_tree(folder);
    return check_done();
}
