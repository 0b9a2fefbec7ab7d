/*
 * drain.c - nodes of the allocation that Slurm drains: somebody wants them, or they are
 * about to fail.  sinfo is asked at a low rate, in a process of its own, since it waits for
 * a controller that may be down; its answer may be late, or never come.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "scheduler/brood.h"
#include "scheduler/supervisor.h"

static const double answer_seconds = 20;

static struct {
    double seconds, asked; /* between questions */
    pid_t pid;
    int answer; /* -1: none is awaited */
    struct mem_text text;
} drain = { .answer = -1 };

static void ask(double now)
{
    char *argv[] = {
        "sinfo", "-h", "-N", "-o", "%N %T", "-n", getenv("SLURM_JOB_NODELIST"), NULL
    };
    int ends[2];

    drain.asked = now;
    drain.text.len = 0;
    if (!argv[6] || pipe2(ends, O_CLOEXEC) != 0) return;
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 &&
        brood_start(argv, NULL, ends[1], false, &drain.pid) == KR_OK)
        drain.answer = ends[0];
    else
        close(ends[0]);
    close(ends[1]);
}

static void no_more(void)
{
    close(drain.answer);
    drain.answer = -1;
}

/* "draining", "drained", "failing", with a mark behind it now and then. */
static bool is_wanted_back(const char *state)
{
    return strncmp(state, "drain", 5) == 0 || strncmp(state, "fail", 4) == 0;
}

static void judge(struct sup *s, const char *line)
{
    char name[NODES_NAME], state[32];
    const struct node *n;
    int32_t node;

    if (sscanf(line, "%63s %31s", name, state) != 2) return;
    if (!(n = nodes_find(&s->nodes, name))) return;
    node = (int32_t)(n - s->nodes.at);
    if (is_wanted_back(state)) {
        sup_give_up(s, node, "Slurm drains it");
    } else if (n->state == NODE_GONE) {
        LOG_NOTE("%s: Slurm drains it no longer", name);
        sup_take_back(s, node);
    }
}

static void read_answer(struct sup *s)
{
    char bytes[4096];
    ssize_t n;

    while ((n = read(drain.answer, bytes, sizeof bytes)) > 0)
        mem_append(&drain.text, bytes, (size_t)n);
    if (n < 0) return; /* not all is there */
    no_more();
    mem_append(&drain.text, "", 1);
    for (char *line = drain.text.failed ? NULL : strtok(drain.text.at, "\n"); line;
         line = strtok(NULL, "\n"))
        judge(s, line);
}

static double pace(void)
{
    const char *text = getenv("KILORANK_DRAIN_SECONDS");
    double seconds = text ? atof(text) : 0;

    return seconds > 0 ? seconds : 30;
}

void sup_look_for_drains(struct sup *s, double now)
{
    if (!s->config->in_slurm || s->config->hostfile || s->phase == SUP_ADOPT) return;
    if (drain.seconds <= 0) drain.seconds = pace();
    if (drain.answer >= 0) read_answer(s);
    if (drain.answer >= 0 && now - drain.asked > answer_seconds) {
        kill(drain.pid, SIGKILL);
        no_more();
    }
    if (drain.answer < 0 && now - drain.asked >= drain.seconds) ask(now);
}
