/* agent.c - one loop: the link to the supervisor, children, the ranks of this node. */
#include "scheduler/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "scheduler/address.h"
#include "scheduler/brood.h"
#include "scheduler/check.h"
#include "scheduler/exitcode.h"
#include "scheduler/link.h"
#include "scheduler/own_ranks.h"
#include "scheduler/probe.h"
#include "scheduler/remnants.h"

enum { TICK_MS = 100, WORDS_MAX = 4096, OWN_VARIABLES = 4 };
static const double beat_seconds = 1, silence = 5, connect_seconds = 0.5,
                    clear_seconds = 5;

struct agent {
    uv_loop_t loop;
    uv_timer_t tick;
    uv_signal_t child, end[2];
    char run[FS_PATH], node[WIRE_NAME];
    char trouble[WIRE_TEXT];
    char memory[FS_PATH]; /* remnants.h */
    double patience;

    struct link *link; /* NULL: none now */
    bool is_welcome;
    double heard, tried; /* from the supervisor; connecting */
    double ticked;
    bool has_searched; /* for its address, in vain */

    int64_t generation;
    int32_t place, count; /* of the node; ranks on it */
    char *environment;    /* NAME=VALUE, each with its NUL */
    size_t environment_bytes;
    pid_t head; /* mpirun; 0: not here */
    struct own_ranks ranks;

    bool clears; /* waits for the earlier generation to be gone */
    double clears_since;

    struct probe probe; /* of the link to another node */

    double beaten; /* last beat */
    uint64_t beats;
    bool leaves;
};

/* Large, and one is enough: see link.c. */
static struct wire_message out;

/* ---- children ----------------------------------------------------------------------- */

/* Texts of a list as a NULL-terminated array in `words`, as many as fit; false: not all, or
 * there are none. */
static bool spread(const struct wire_list *list, char **words, int room)
{
    const char *at = wire_next(list, NULL);
    int n = 0;

    for (; at && n < room - 1; at = wire_next(list, at))
        words[n++] = (char *)(uintptr_t)at;
    words[n] = NULL;
    return !at && n > 0;
}

static int open_output(const struct agent *a)
{
    char path[FS_PATH];

    if (fs_path(path, "%s/output.log", a->run) != KR_OK) return -1;
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static kr_status start(struct agent *a, char **argv, pid_t *pid)
{
    static char *variables[WORDS_MAX + OWN_VARIABLES];
    static char own[OWN_VARIABLES][FS_PATH + 64];
    struct wire_list list = { a->environment, (uint32_t)a->environment_bytes };
    int n = 0, output = open_output(a);
    kr_status st;

    (void)spread(&list, variables, WORDS_MAX);
    while (variables[n])
        n++;
    snprintf(own[0], sizeof own[0], "KILORANK_PULSE=%s", a->ranks.pulse);
    snprintf(own[1], sizeof own[1], "KILORANK_GENERATION=%lld", (long long)a->generation);
    snprintf(own[2], sizeof own[2], "KILORANK_NODE=%s", a->node);
    snprintf(own[3], sizeof own[3], "KILORANK_SUPERVISED=%s", a->run);
    for (int i = 0; i < OWN_VARIABLES; i++)
        variables[n++] = own[i];
    variables[n] = NULL;
    st = brood_start(argv, variables, output, false, pid);
    if (output >= 0) close(output);
    return st;
}

static void tell_ended(struct agent *a, bool is_head, int code)
{
    out.type = WIRE_ENDED;
    out.ended = (struct wire_ended){ a->generation, is_head, code };
    if (a->link && a->is_welcome) link_send(a->link, &out);
}

static void beat(struct agent *a);

static void bury(struct agent *a)
{
    pid_t pid;
    int code;

    while (brood_bury(&pid, &code)) {
        bool is_head = pid == a->head;

        if (is_head) a->head = 0;
        beat(a); /* what the ranks left, before the news of the end */
        if (!a->clears && (is_head || code != 0)) tell_ended(a, is_head, code);
    }
}

static void on_child(uv_signal_t *handle, int number)
{
    (void)number;
    bury(handle->data);
}

/* ---- beats -------------------------------------------------------------------------- */

static void beat(struct agent *a)
{
    double now = clock_now();

    if (!a->link || !a->is_welcome) return;
    out.type = WIRE_BEAT;
    (void)own_ranks_read(&a->ranks, &out.beat);
    out.beat.generation = a->generation;
    out.beat.number = ++a->beats;
    out.beat.lag = now - a->beaten - beat_seconds;
    out.beat.memory = check_free_memory();
    a->beaten = now;
    link_send(a->link, &out);
}

/* ---- generations -------------------------------------------------------------------- */

static void say_ready(struct agent *a, const char *trouble)
{
    a->clears = false;
    out.type = WIRE_READY;
    out.ready.generation = a->generation;
    snprintf(out.ready.trouble, sizeof out.ready.trouble, "%s", trouble);
    if (a->link && a->is_welcome) link_send(a->link, &out);
}

static void make_ranks(struct agent *a)
{
    bool made = a->count == 0 || own_ranks_make(&a->ranks, a->count) == KR_OK;

    say_ready(a, made ? "" : "cannot make the ranks' slots in /dev/shm");
}

/* Until nothing of the earlier generation lives. */
static void clear(struct agent *a)
{
    int living;

    bury(a); /* while its end is still that of the earlier generation */
    living = brood_kill();
    if (living == 0)
        make_ranks(a);
    else if (clock_now() - a->clears_since > clear_seconds)
        say_ready(a, "processes of the earlier generation do not die");
}

static void prepare(struct agent *a, const struct wire_prepare *p)
{
    char *copy = malloc((size_t)p->environment.bytes + 1);

    if (!copy || (p->generation != 0 && p->generation <= a->generation)) {
        free(copy);
        return; /* an echo of what is over */
    }
    memcpy(copy, p->environment.at ? p->environment.at : "", p->environment.bytes);
    free(a->environment);
    a->environment = copy;
    a->environment_bytes = p->environment.bytes;
    if (p->generation > 0) a->generation = p->generation;
    a->place = p->place;
    a->count = p->ranks;
    a->head = 0;
    a->clears = true;
    a->clears_since = clock_now();
    own_ranks_close(&a->ranks);
    remnants_find(a->memory, a->run);
    clear(a);
}

static void run_head(struct agent *a, const struct wire_run *r)
{
    static char *argv[WORDS_MAX];

    if (r->generation != a->generation || a->clears || a->head) return;
    if (!spread(&r->argv, argv, WORDS_MAX) || start(a, argv, &a->head) != KR_OK)
        tell_ended(a, true, EXIT_FAILED);
}

static void run_daemon(struct agent *a, const struct wire_exec *e)
{
    static char sh[] = "sh", c[] = "-c";
    char *argv[] = { sh, c, (char *)(uintptr_t)wire_next(&e->command, NULL), NULL };
    uint64_t id = e->id;
    bool is_ours = e->generation == a->generation && !a->clears && argv[2];
    pid_t pid;

    if (is_ours && start(a, argv, &pid) != KR_OK) is_ours = false;
    out.type = WIRE_STARTED;
    out.started.id = id;
    snprintf(out.started.trouble, sizeof out.started.trouble, "%s",
             is_ours ? "" : "not this generation, or no more processes");
    link_send(a->link, &out);
}

/* ---- the end ------------------------------------------------------------------------ */

static void leave(struct agent *a, const char *why)
{
    if (a->leaves) return;
    LOG_TRACE("ends: %s", why);
    a->leaves = true;
    a->clears = true; /* what ends now is no news */
    a->clears_since = clock_now();
}

/* True: gone, or given up. */
static bool has_left(struct agent *a)
{
    if (brood_kill() > 0 && clock_now() - a->clears_since < clear_seconds) return false;
    own_ranks_close(&a->ranks);
    own_ranks_remove(&a->ranks);
    remnants_remove(a->memory, a->run);
    uv_stop(&a->loop);
    return true;
}

static void on_end(uv_signal_t *handle, int number)
{
    (void)number;
    leave(handle->data, "a signal");
}

/* ---- the link ----------------------------------------------------------------------- */

static void on_checked(void *owner, double round_trip, double rate)
{
    struct agent *a = owner;

    out.type = WIRE_CHECKED;
    out.checked = (struct wire_checked){ .round_trip = round_trip, .rate = rate };
    snprintf(out.checked.trouble, sizeof out.checked.trouble, "%s", a->trouble);
    if (a->link && a->is_welcome) link_send(a->link, &out);
}

static void check(struct agent *a, const struct link *l, const struct wire_check *c)
{
    if (c->is_whole) check_node(a->run, a->node, a->trouble, sizeof a->trouble);
    probe_start(&a->probe, &a->loop, c->host, c->port, &l->session.token, on_checked, a);
}

static void on_open(struct link *l)
{
    struct agent *a = l->owner;

    out.type = WIRE_HELLO;
    out.hello = (struct wire_hello){ .version = WIRE_VERSION,
                                     .generation = a->generation,
                                     .pid = getpid(),
                                     .is_head = a->head > 0,
                                     .place = a->place,
                                     .ranks = a->clears ? 0 : a->count,
                                     .cores = (int32_t)sysconf(_SC_NPROCESSORS_ONLN),
                                     .memory = check_free_memory(),
                                     .port = probe_listen(&a->probe, &a->loop, l) };
    snprintf(out.hello.node, sizeof out.hello.node, "%s", a->node);
    snprintf(out.hello.trouble, sizeof out.hello.trouble, "%s", a->trouble);
    link_send(l, &out);
}

static void refused(struct agent *a, const struct wire_words *w)
{
    const char *text = wire_next(&w->text, NULL);

    LOG_WARNING("the supervisor wants none of it: %s",
                text ? text : "it does not say why");
    leave(a, "refused");
}

static void on_message(struct link *l, const struct wire_message *m)
{
    struct agent *a = l->owner;

    a->heard = clock_now();
    switch (m->type) {
    case WIRE_WELCOME: a->is_welcome = true; break;
    case WIRE_REFUSE: refused(a, &m->words); break;
    case WIRE_PREPARE: prepare(a, &m->prepare); break;
    case WIRE_RUN: run_head(a, &m->run); break;
    case WIRE_EXEC: run_daemon(a, &m->exec); break;
    case WIRE_SIGNAL:
        if (m->signal.generation == a->generation && a->head > 0)
            kill(a->head, m->signal.number);
        break;
    case WIRE_CHECK: check(a, l, &m->check); break;
    case WIRE_LEAVE: leave(a, "told to"); break;
    default: link_close(l, "a message that no agent takes");
    }
}

static void on_closed(struct link *l, const char *why)
{
    struct agent *a = l->owner;

    LOG_TRACE("no supervisor: %s", why);
    a->link = NULL;
    a->is_welcome = false;
}

static void connect_again(struct agent *a, double now)
{
    static const struct link_events events = { on_open, on_message, on_closed };
    struct address at;

    if (now - a->tried < connect_seconds) return;
    a->tried = now;
    if (address_read(&at, a->run) != KR_OK) {
        if (!a->has_searched && now - a->heard > silence)
            LOG_WARNING("%s has no supervisor's address; is it the same folder on every "
                        "node?",
                        a->run);
        a->has_searched |= now - a->heard > silence;
        return;
    }
    (void)link_connect(&a->link, &a->loop, at.host, at.port, &at.token, &events, a);
}

static void look_at_supervisor(struct agent *a, double now)
{
    if (a->link && now - a->heard > silence && now - a->tried > silence)
        link_close(a->link, "it is silent");
    if (!a->link) connect_again(a, now);
    if (now - a->heard > a->patience) {
        LOG_WARNING("no supervisor for %.0f s; ends its ranks and itself", a->patience);
        leave(a, "no supervisor");
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    double now = clock_now(), lag = now - a->ticked - 1e-3 * TICK_MS;

    if (lag > 1) a->heard += lag; /* this process stood still, not the supervisor */
    a->ticked = now;
    if (a->leaves) {
        (void)has_left(a);
        return;
    }
    look_at_supervisor(a, now);
    probe_tick(&a->probe, now);
    if (a->clears) clear(a);
    out.type = WIRE_BEAT;
    if (now - a->beaten >= beat_seconds || own_ranks_read(&a->ranks, &out.beat)) beat(a);
}

/* ---- start -------------------------------------------------------------------------- */

static kr_status parse(int argc, char **argv, struct agent *a)
{
    static const struct option options[] = { { "run", required_argument, NULL, 'r' },
                                             { "node", required_argument, NULL, 'n' },
                                             { "patience", required_argument, NULL, 'p' },
                                             { 0 } };
    const char *run = NULL, *node = NULL;
    int c;

    a->patience = 60;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'r') run = optarg;
        if (c == 'n') node = optarg;
        if (c == 'p') a->patience = atof(optarg);
        if (c == '?') return KR_ERR_ARG;
    }
    if (!run || !node || a->patience <= 0)
        return KR_FAIL(KR_ERR_ARG, "agent: started by `kilorank launch`, not by hand");
    snprintf(a->node, sizeof a->node, "%s", node);
    TRY(fs_path(a->run, "%s", run));
    return fs_path(a->ranks.pulse, "/dev/shm/kilorank-pulse-%016llx-%s",
                   (unsigned long long)hash64(a->run, strlen(a->run)), a->node);
}

static void begin(struct agent *a)
{
    static const int ends[] = { SIGTERM, SIGINT };

    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* the ssh that started it may go */
    setsid();
    brood_adopt();
    uv_loop_init(&a->loop);
    uv_timer_init(&a->loop, &a->tick);
    uv_signal_init(&a->loop, &a->child);
    a->tick.data = a->child.data = a;
    a->heard = a->ticked = clock_now();
    a->tried = -connect_seconds;
    uv_timer_start(&a->tick, on_tick, 0, TICK_MS);
    uv_signal_start(&a->child, on_child, SIGCHLD);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        uv_signal_init(&a->loop, &a->end[i]);
        a->end[i].data = a;
        uv_signal_start(&a->end[i], on_end, ends[i]);
    }
}

int agent_main(int argc, char **argv)
{
    static struct agent a;
    static char title[sizeof a.node + 32];

    if (parse(argc, argv, &a) != KR_OK) return EXIT_USAGE;
    snprintf(title, sizeof title, "kilorank agent on %s", a.node);
    log_setup(title, -1);
    check_node(a.run, a.node, a.trouble, sizeof a.trouble);
    begin(&a);
    uv_run(&a.loop, UV_RUN_DEFAULT);
    return EXIT_DONE;
}
