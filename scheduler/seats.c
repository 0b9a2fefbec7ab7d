/* seats.c - brings agents to nodes: fork here, ssh, srun, or a command of the user's. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "scheduler/brood.h"
#include "scheduler/supervisor.h"

enum { WORDS = 64, LINE = 3 * FS_PATH, TRIES_TOLD = 6, NO_WAY = 255, NO_PROGRAM = 127 };
static const double start_seconds = 15, longest_pause = 30;

struct command {
    char *argv[WORDS];
    int count;
};

static void word(struct command *c, const char *text)
{
    if (c->count < WORDS - 1) c->argv[c->count++] = (char *)(uintptr_t)text;
    c->argv[c->count] = NULL;
}

static void words(struct command *c, const char *const *texts)
{
    for (; *texts; texts++)
        word(c, *texts);
}

/* Text for a shell, in quotes. */
static void quote(struct mem_text *t, const char *text)
{
    mem_append(t, " '", 2);
    for (; *text; text++)
        if (*text == '\'')
            mem_append(t, "'\\''", 4);
        else
            mem_append(t, text, 1);
    mem_append(t, "'", 1);
}

/* The agent's command line as one text, for the shell at the other end of ssh. */
static void far_command(const struct sup *s, const char *node, const char *patience,
                        struct mem_text *t)
{
    mem_printf(t, "exec");
    quote(t, s->config->program);
    mem_printf(t, " agent --run");
    quote(t, s->config->run);
    mem_printf(t, " --node %s --patience %s", node,
               patience); /* of nodes_add, and digits */
}

static void near_command(const struct sup *s, const char *node, const char *patience,
                         struct command *c)
{
    const char *const texts[] = { s->config->program, "agent",  "--run",
                                  s->config->run,     "--node", node,
                                  "--patience",       patience, NULL };

    words(c, texts);
}

static void build(const struct sup *s, const char *node, const char *patience,
                  bool is_quiet, char *command, struct mem_text *far, struct command *c)
{
    /* Never asks, and ends by itself when the host is gone, whoever is left to end it. */
    static const char *const ssh[] = { "ssh", "-n",
                                       "-o",  "BatchMode=yes",
                                       "-o",  "ConnectTimeout=5",
                                       "-o",  "ServerAliveInterval=5",
                                       NULL };
    static const char *const srun[] = { "srun",       "--overlap",
                                        "--no-kill",  "--kill-on-bad-exit=0",
                                        "--mpi=none", "-N1",
                                        "-n1",        NULL };

    switch (s->config->start) {
    case SUP_FORK: near_command(s, node, patience, c); return;
    case SUP_SRUN:
        words(c, srun);
        word(c, "-w"), word(c, node);
        near_command(s, node, patience, c);
        return;
    case SUP_SSH:
        words(c, ssh);
        if (is_quiet) word(c, "-q");
        break;
    case SUP_COMMAND:
        for (char *w = strtok(command, " "); w; w = strtok(NULL, " "))
            word(c, w);
        break;
    }
    far_command(s, node, patience, far);
    word(c, node);
    if (!far->failed) word(c, far->at);
}

void seat_start(struct sup *s, int32_t node, double now)
{
    struct seat *seat = &s->seats[node];
    struct mem_text far = { 0 };
    struct command c = { .count = 0 };
    char patience[32], command[LINE];
    double pause = seat->tries < 6 ? (double)(1 << seat->tries) : longest_pause;

    snprintf(patience, sizeof patience, "%g", s->config->patience);
    snprintf(command, sizeof command, "%s",
             s->config->agent_command ? s->config->agent_command : "");
    build(s, s->nodes.at[node].name, patience, seat->tries >= TRIES_TOLD, command, &far,
          &c);
    seat->started = now;
    seat->next = now + (pause < longest_pause ? pause : longest_pause);
    seat->tries++;
    if (brood_start(c.argv, NULL, STDERR_FILENO, true, &seat->pid) != KR_OK)
        seat->pid = 0;
    mem_text_free(&far);
}

/* An agent that lives but lost its way comes back by itself, so a start that may still be
 * under way is not repeated too soon. */
void seats_tick(struct sup *s, double now)
{
    for (int32_t i = 0; i < s->nodes.count; i++) {
        struct seat *seat = &s->seats[i];

        if (s->nodes.at[i].state != NODE_AWAY || seat->link || now < seat->next) continue;
        if (seat->pid > 0 && now - seat->started < start_seconds) continue;
        if (seat->pid > 0) kill(seat->pid, SIGKILL);
        seat->pid = 0;
        seat_start(s, i, now);
    }
}

/* What is tried for hours is not told for hours. */
static void say_ended(struct sup *s, int32_t node, int code)
{
    const char *name = s->nodes.at[node].name;
    int32_t tries = s->seats[node].tries;

    if (code == NO_WAY && s->config->start == SUP_SSH)
        sup_note(s, node, "ssh does not get there; try: ssh -o BatchMode=yes %s true",
                 name);
    else if (code == NO_PROGRAM)
        sup_note(s, node, "no %s there: every node needs it, at the same path",
                 s->config->program);
    else
        sup_note(s, node, "its agent, or what started it, ended with %d", code);
    if (tries <= TRIES_TOLD) LOG_WARNING("%s: %s", name, s->seats[node].trouble);
    if (tries == TRIES_TOLD)
        LOG_WARNING("%s: is tried again every %.0f s, without a word", name,
                    longest_pause);
}

void seats_bury(struct sup *s)
{
    pid_t pid;
    int code;

    while (brood_bury(&pid, &code))
        for (int32_t i = 0; i < s->nodes.count; i++) {
            if (s->seats[i].pid != pid) continue;
            s->seats[i].pid = 0;
            if (code != 0 && s->phase != SUP_END) say_ended(s, i, code);
        }
}

/* An agent on this host ends by itself; an ssh to a host that is gone would not. */
void seats_leave(struct sup *s)
{
    for (int32_t i = 0; i < s->nodes.count; i++)
        if (s->seats[i].pid > 0 && s->config->start != SUP_FORK)
            kill(s->seats[i].pid, SIGTERM);
}
