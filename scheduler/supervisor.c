/* supervisor.c - the loop: time, signals, output, and the start. */
#include "scheduler/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "scheduler/history.h"
#include "scheduler/json.h"

enum { TICK_MS = 100, COPIES = 256 /* of PIPE_BUF bytes, a tick */ };

/* Seconds; those of phases are in supervisor.h. */
static const double silence = 4.5, adopt_seconds = 4, gather_rest = 1.5, end_seconds = 4,
                    save_seconds = 600, word_seconds = 5;

/* Large, and one is enough: see link.c. */
static struct wire_message out;

const char *sup_phase_text(enum sup_phase phase)
{
    static const char *const texts[] = {
#define X(name, text) text,
        SUP_PHASE_MAP(X)
#undef X
    };

    return texts[phase];
}

void sup_enter(struct sup *s, enum sup_phase phase, double seconds)
{
    s->phase = phase;
    s->until = clock_now() + seconds;
}

const char *sup_name(const struct sup *s, int32_t node)
{
    return node >= 0 ? s->nodes.at[node].name : "";
}

void sup_note(struct sup *s, int32_t node, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(s->seats[node].trouble, sizeof s->seats[node].trouble, fmt, ap);
    va_end(ap);
}

void sup_record(struct sup *s, const char *event, const char *why)
{
    json_text(journal_begin(s->journal, event), "why", why);
    journal_end(s->journal);
}

void sup_record_node(struct sup *s, int32_t node, const char *state, const char *why)
{
    struct mem_text *t = journal_begin(s->journal, "node");

    json_text(t, "node", sup_name(s, node));
    json_text(t, "state", state);
    json_text(t, "why", why);
    journal_end(s->journal);
}

/* ---- the end ------------------------------------------------------------------------ */

void sup_finish(struct sup *s, int32_t code, const char *why)
{
    struct mem_text *t;
    char path[FS_PATH];

    if (s->phase == SUP_END) return;
    s->exit_code = code;
    t = journal_begin(s->journal, "end");
    json_int(t, "code", code);
    json_int(t, "step", s->furthest);
    json_text(t, "why", why);
    journal_end(s->journal);
    LOG_NOTE("ends with code %d: %s", code, why);
    if (s->stop == SUP_STOP_DONE && fs_path(path, "%s/stop", s->config->run) == KR_OK)
        (void)fs_unlink(path);
    for (int32_t i = 0; i < s->nodes.count; i++)
        if (s->seats[i].link) link_say(s->seats[i].link, WIRE_LEAVE, 0, "");
    for (int i = 0; i < SUP_ASKERS; i++)
        if (s->askers[i]) link_say(s->askers[i], WIRE_BYE, code, "");
    sup_enter(s, SUP_END, end_seconds);
}

static void leave(struct sup *s)
{
    (void)address_remove(s->config->run);
    seats_leave(s);
    door_close(&s->door);
    uv_stop(&s->loop);
}

/* ---- a supervisor before this one --------------------------------------------------- */

/* Everything the journal's newest generation needs has reported: go on watching it. */
static bool adopt(struct sup *s, const struct journal_past *past)
{
    int32_t ranks = 0, head = -1;

    for (int32_t i = 0; i < s->nodes.count; i++) {
        const struct wire_hello *h = &s->seats[i].hello;

        if (!s->seats[i].link || h->generation != past->generation) continue;
        if (h->place < 0 || h->place >= s->nodes.count) return false;
        ranks += h->ranks;
        if (h->is_head) head = i;
    }
    if (head < 0 || ranks != past->ranks || ranks > s->config->ranks) return false;
    for (int32_t i = 0; i < s->nodes.count; i++) {
        const struct wire_hello *h = &s->seats[i].hello;

        if (s->seats[i].link && h->generation == past->generation && h->ranks > 0)
            s->nodes.at[i].place = h->place;
    }
    s->ranks = nodes_place(&s->nodes, ranks);
    s->head = head;
    watch_begin(&s->watch, s->generation, s->ranks, clock_now());
    json_int(journal_begin(s->journal, "adopted"), "generation", s->generation);
    journal_end(s->journal);
    LOG_NOTE("goes on with generation %" PRId64 ", which never stopped", s->generation);
    sup_enter(s, SUP_RUN, 0);
    return true;
}

static void try_to_adopt(struct sup *s, double now, const struct journal_past *past)
{
    if (adopt(s, past) || now < s->until) return;
    LOG_NOTE("generation %" PRId64 " is not whole any more: it starts anew",
             s->generation);
    sup_end_everything(s);
    if (s->stop == SUP_STOP_REQUEUE)
        sup_finish(s, EXIT_REQUEUE, "stopped; what was saved before is kept");
    else
        sup_enter(s, SUP_GATHER, s->config->wait_seconds);
}

/* ---- being asked to stop ------------------------------------------------------------ */

void sup_ask_to_stop(struct sup *s, enum sup_stop how, const char *why)
{
    char path[FS_PATH];

    if (s->phase == SUP_END) return;
    if (s->stop == SUP_STOP_NO) sup_record(s, "stop", why);
    LOG_NOTE("%s: the run saves and ends", why);
    s->stop = how > s->stop ? how : s->stop;
    s->stop_since = clock_now();
    if (s->phase == SUP_GATHER || s->phase == SUP_PAUSE) {
        sup_finish(s, how == SUP_STOP_DONE ? EXIT_DONE : EXIT_REQUEUE,
                   "stopped; no rank ran");
        return;
    }
    if (how == SUP_STOP_DONE) {
        if (fs_path(path, "%s/stop", s->config->run) == KR_OK)
            (void)fs_replace(path, why, strlen(why));
        return;
    }
    s->is_told = false; /* see watch_stop: now, or as soon as there are ranks to tell */
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct sup *s = handle->data;

    if (number == SIGCHLD) {
        seats_bury(s);
    } else if (s->stop == SUP_STOP_REQUEUE && number == SIGINT) {
        sup_finish(s, EXIT_REQUEUE, "interrupted twice: what was saved before is kept");
    } else {
        sup_ask_to_stop(s, SUP_STOP_REQUEUE, strsignal(number));
    }
}

/* Ranks that have shown catch the signal; before that it would kill them, or be lost. */
static void tell_ranks(struct sup *s)
{
    struct link *l = s->head < 0 ? NULL : s->seats[s->head].link;

    if (s->phase != SUP_RUN || !l || s->watch.size == 0 || s->watch.seen < s->watch.size)
        return;
    out.type = WIRE_SIGNAL;
    out.signal = (struct wire_signal){ s->generation, SIGUSR1 };
    link_send(l, &out);
    s->is_told = true;
}

/* A step and a save may take minutes: who waits hears that somebody is there. */
static void comfort_askers(struct sup *s, double now)
{
    if (now < s->word_next) return;
    s->word_next = now + word_seconds;
    for (int i = 0; i < SUP_ASKERS; i++)
        if (s->askers[i]) link_say(s->askers[i], WIRE_TELL, 0, "");
}

static void watch_stop(struct sup *s, double now)
{
    comfort_askers(s, now);
    if (s->stop == SUP_STOP_REQUEUE && !s->is_told) tell_ranks(s);
    if (s->stop && s->phase != SUP_END && now - s->stop_since > save_seconds)
        sup_finish(s, EXIT_IO, "asked to stop, the ranks did not save and end in time");
}

/* ---- time --------------------------------------------------------------------------- */

/* Nodes from which nothing was heard are left out, for now. */
static void leave_out(struct sup *s)
{
    char names[256] = "";
    size_t len = 0;

    for (int32_t i = 0; i < s->nodes.count; i++) {
        if (s->nodes.at[i].state != NODE_AWAY) continue;
        sup_record_node(s, i, "away", "no agent came in time");
        if (len < sizeof names)
            len +=
                (size_t)snprintf(names + len, sizeof names - len, " %s", sup_name(s, i));
    }
    if (len > 0)
        LOG_WARNING("starts without%s%s", names, len < sizeof names ? "" : "...");
}

/* All nodes have said something, or enough have and the rest had its chance. */
static void gather(struct sup *s, double now)
{
    bool all_known = true;
    int32_t fit = nodes_slots_up(&s->nodes);

    for (int32_t i = 0; i < s->nodes.count; i++)
        all_known &= s->nodes.at[i].state != NODE_AWAY;
    if (fit >= s->config->ranks) {
        if (s->lacking_since > 0 || s->hosts_seen <= 0) s->hosts_seen = now;
        s->lacking_since = 0;
        if (!all_known && now - s->hosts_seen <= gather_rest) return;
        if (!sup_links_known(s, now)) return;
        leave_out(s);
        sup_go_on(s);
        return;
    }
    if (s->lacking_since <= 0) s->lacking_since = now;
    if (!all_known && now < s->until) return;
    if (fit >= s->config->ranks_min && fit > 0) {
        if (!sup_links_known(s, now)) return;
        LOG_WARNING("%d of %d ranks have a place; starts with those", fit,
                    s->config->ranks);
        leave_out(s);
        sup_go_on(s);
    } else if (now >= s->until) {
        sup_decide(s, -1, true);
    }
}

static void grow(struct sup *s)
{
    if (s->phase == SUP_RUN && s->has_stepped && s->ranks < s->config->ranks &&
        nodes_slots_up(&s->nodes) > s->ranks && !s->will_regroup)
        sup_regroup(s, "more nodes are there than it uses");
}

/* Where there is room for what a pipe takes at once.  A reader that stands still (a pager,
 * Ctrl-S) must not stop the supervisor: it reads on later, from the file. */
static bool may_show(void)
{
    struct pollfd p = { STDOUT_FILENO, POLLOUT, 0 };

    return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

static void copy_output(struct sup *s)
{
    char bytes[PIPE_BUF], path[FS_PATH];
    ssize_t n;

    if (s->output < 0 && fs_path(path, "%s/output.log", s->config->run) == KR_OK)
        s->output = open(path, O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < COPIES && s->output >= 0 && may_show(); i++) {
        n = pread(s->output, bytes, sizeof bytes, s->shown);
        if (n > 0) n = write(STDOUT_FILENO, bytes, (size_t)n);
        if (n <= 0) return;
        s->shown += n;
    }
}

/* The first of the nodes that the phase waits for in vain: one loss brings a new choice. */
static void lose_late(struct sup *s, double now, const char *why)
{
    for (int32_t i = 0; now >= s->until && i < s->nodes.count; i++) {
        bool is_here = s->phase == SUP_CLEAR ? s->seats[i].is_ready
                                             : s->nodes.at[i].state == NODE_UP;

        if (s->nodes.at[i].ranks == 0 || is_here) continue;
        sup_lose_node(s, i, why, s->fault_at > 0 ? now - s->fault_at : 0);
        return;
    }
}

/* The limits of phases. */
static void look_at_clock(struct sup *s, double now)
{
    switch (s->phase) {
    case SUP_GATHER: gather(s, now); break;
    case SUP_PAUSE:
        if (now >= s->until) sup_go_on(s);
        break;
    case SUP_CLEAR: lose_late(s, now, "it did not make ready in time"); break;
    case SUP_REGAIN:
        lose_late(s, now, "its connection broke and did not come back");
        break;
    default: break;
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct sup *s = timer->data;
    double now = clock_now(), lag = now - s->ticked - 1e-3 * TICK_MS;
    bool all_gone = true;

    if (lag > 1) { /* this process stood still: nobody else is late */
        watch_forgive(&s->watch, lag);
        s->until += lag;
    }
    s->ticked = now;
    copy_output(s);
    door_sweep(&s->door, now);
    for (int32_t i = 0; i < s->nodes.count; i++)
        all_gone &= s->seats[i].link == NULL;
    if (s->phase == SUP_END && (all_gone || now >= s->until)) {
        leave(s);
        return;
    }
    if (s->phase == SUP_END) return;
    if (s->phase == SUP_ADOPT)
        try_to_adopt(s, now, &s->past);
    else
        seats_tick(s, now);
    sup_judge(s, now);
    look_at_clock(s, now);
    watch_stop(s, now);
    sup_read_hosts(s);
    sup_look_for_drains(s, now);
    sup_leave_gone(s);
    sup_check_spares(s, now);
    grow(s);
}

/* ---- start -------------------------------------------------------------------------- */

/* A token that agents of an earlier supervisor know is kept. */
static kr_status open_door(struct sup *s)
{

    struct address old;

    if (address_read(&old, s->config->run) == KR_OK)
        s->address.token = old.token;
    else
        TRY(address_token(&s->address.token));
    sup_find_address(s, s->address.host);
    TRY(door_open(&s->door, &s->loop, s->address.host, &s->address.token, &sup_events,
                  s));
    s->address.port = s->door.port;
    return address_write(&s->address, s->config->run);
}

static void record_launch(struct sup *s)
{
    struct mem_text *t = journal_begin(s->journal, "launch");
    char host[256] = "";

    (void)gethostname(host, sizeof host - 1);
    json_text(t, "run", s->id);
    json_int(t, "ranks_wanted", s->config->ranks);
    json_text(t, "host", host);
    json_int(t, "pid", getpid());
    journal_end(s->journal);
}

static kr_status remember(struct sup *s)
{
    uint64_t id;

    TRY(journal_open(&s->journal, s->config->run, &s->past));
    if (getrandom(&id, sizeof id, 0) != sizeof id) return KR_ERR_IO;
    snprintf(s->id, sizeof s->id, "%016" PRIx64, id);
    if (s->past.run[0]) memcpy(s->id, s->past.run, sizeof s->id);
    s->generation = s->past.generation;
    s->furthest = s->past.is_over ? -1 : s->past.step;
    record_launch(s);
    return KR_OK;
}

/* A connection per node, and room for strangers. */
static void raise_limit(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
}

static void start_loop(struct sup *s)
{
    static const int numbers[SUP_SIGNALS] = { SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGHUP };

    signal(SIGPIPE, SIG_IGN);
    raise_limit();
    s->tick.data = s;
    uv_timer_init(&s->loop, &s->tick);
    uv_timer_start(&s->tick, on_tick, 0, TICK_MS);
    for (int i = 0; i < SUP_SIGNALS; i++) {
        uv_signal_init(&s->loop, &s->signals[i]);
        s->signals[i].data = s;
        uv_signal_start(&s->signals[i], on_signal, numbers[i]);
    }
    s->began = s->ticked = clock_now();
}

static kr_status open_supervisor(struct sup *s)
{
    char path[FS_PATH];

    TRY(mem_alloc(&s->seats, NODES_MAX, sizeof *s->seats, "nodes"));
    TRY(watch_open(&s->watch, NODES_MAX, s->config->ranks, silence));
    TRY(fs_mkdirs(s->config->run));
    TRY(remember(s));
    history_warn(&s->nodes);
    TRY(fs_path(path, "%s/output.log", s->config->run));
    if ((s->output = open(path, O_RDONLY | O_CLOEXEC)) >= 0)
        s->shown = lseek(s->output, 0, SEEK_END);
    return open_door(s);
}

static int code_of(kr_status st)
{
    switch (st) {
    case KR_ERR_ARG: return EXIT_USAGE;
    case KR_ERR_BUSY: return EXIT_BUSY;
    case KR_ERR_IO: return EXIT_IO;
    default: return EXIT_FAILED;
    }
}

int supervisor_run(const struct sup_config *config, struct nodes *nodes)
{
    static struct sup s; /* links are as large as their buffers; one per process */
    kr_status st;

    s = (struct sup){ .config = config, .nodes = *nodes, .head = -1, .output = -1 };
    *nodes = (struct nodes){ 0 };
    uv_loop_init(&s.loop);
    st = open_supervisor(&s);
    if (st == KR_OK) {
        start_loop(&s);
        if (s.past.generation > 0 && !s.past.is_over)
            sup_enter(&s, SUP_ADOPT, adopt_seconds);
        else
            sup_enter(&s, SUP_GATHER, config->wait_seconds);
        uv_run(&s.loop, UV_RUN_DEFAULT);
    }
    copy_output(&s);
    if (s.output >= 0) close(s.output);
    journal_close(s.journal);
    watch_close(&s.watch);
    nodes_free(&s.nodes);
    mem_free(s.seats);
    mem_text_free(&s.text);
    return st == KR_OK ? s.exit_code : code_of(st);
}
