/*
 * supervisor.h - keeps a run alive: starts agents on its nodes and ranks through them,
 * watches, and after a fault takes the ladder's next rung.
 *
 * One thread, one libuv loop, no MPI.  It decides with the pure parts (nodes.h, watch.h,
 * ladder.h) and does here; what it did is in the journal first.  It may be killed at any
 * moment: ranks and agents go on, and the next `launch` adopts them.
 *
 *   phase    waits for                                     limit
 *   ADOPT    agents of a supervisor that is gone           a few seconds
 *   GATHER   enough nodes                                  wait_seconds
 *   PAUSE    the back-off                                  ladder.h
 *   CLEAR    all nodes: nothing older lives there          clear_seconds, then a node is lost
 *   RUN      the end, or a fault                           watch.h
 *   REGAIN   a node whose connection broke                 regain_seconds, then it is lost
 *   END      agents to leave                               end_seconds
 */
#ifndef SCHED_SUPERVISOR_H
#define SCHED_SUPERVISOR_H

#include <uv.h>

#include "base/fs.h"
#include "scheduler/address.h"
#include "scheduler/journal.h"
#include "scheduler/ladder.h"
#include "scheduler/link.h"
#include "scheduler/links.h"
#include "scheduler/nodes.h"
#include "scheduler/watch.h"

enum { SUP_SIGNALS = 5, SUP_ASKERS = 16 };

/* clang-format off */
#define SUP_PHASE_MAP(X)            \
    X(SUP_ADOPT,  "adopting")       \
    X(SUP_GATHER, "gathering")      \
    X(SUP_PAUSE,  "backing off")    \
    X(SUP_CLEAR,  "starting")       \
    X(SUP_RUN,    "running")        \
    X(SUP_REGAIN, "regaining")      \
    X(SUP_END,    "ending")
/* clang-format on */

enum sup_phase {
#define X(name, text) name,
    SUP_PHASE_MAP(X)
#undef X
};

enum sup_stop { SUP_STOP_NO, SUP_STOP_DONE, SUP_STOP_REQUEUE };

/* Links of nodes: not measured, measured by all, by suspects again, done. */
enum sup_links { LINKS_NEW, LINKS_FIRST, LINKS_AGAIN, LINKS_KNOWN };

/* How agents come to nodes. */
enum sup_start { SUP_FORK, SUP_SSH, SUP_SRUN, SUP_COMMAND };

struct sup_config {
    char run[FS_PATH], program[FS_PATH],
        folder[FS_PATH];       /* absolute; folder: of launch */
    const char *hostfile;      /* NULL: nodes are given, and stay */
    const char *agent_command; /* in place of ssh; SUP_COMMAND */
    const char *bind;          /* NULL: the address by which the nodes are reached */
    enum sup_start start;
    int32_t ranks, ranks_min, spares; /* spares -1: all nodes that are left over */
    int32_t attempts;
    double wait_seconds, patience; /* for nodes; of agents without a supervisor */
    bool replace_slow, in_slurm;
    char **train; /* arguments of `kilorank train`, NULL-terminated */
};

struct seat {          /* of a node's agent */
    struct link *link; /* NULL: none */
    pid_t pid;         /* what started it; 0: nothing of ours */
    double started, next;
    int32_t tries;
    bool is_ready; /* for the generation that is being started */
    struct wire_hello hello;

    double asked; /* to check; 0: never */
    bool has_answered;
    int32_t partner, bad_links; /* in a row */
    struct link_speed speed;    /* to that partner */
    char trouble[WIRE_TEXT];    /* why it is not used; "" while it is up */
};

struct sup {
    const struct sup_config *config;
    uv_loop_t loop;
    uv_timer_t tick;
    uv_signal_t signals[SUP_SIGNALS];
    struct door door;
    struct address address;
    struct journal *journal;
    struct journal_past past; /* of supervisors before this one */
    char id[JOURNAL_RUN_ID];

    struct nodes nodes;
    struct seat *seats; /* one per node */
    struct watch watch;

    enum sup_phase phase;
    double began, ticked, until; /* until: limit of the phase */
    int64_t generation;
    int32_t ranks, head; /* of this generation; head: node of mpirun */
    int32_t attempts;    /* without a new step */
    int64_t furthest;    /* step that any generation reached */
    bool has_stepped;    /* this generation did a step */
    bool is_broken;      /* while REGAIN: ranks have ended */
    bool will_regroup;   /* ranks were asked to save, to start on other nodes */
    double broken_since; /* an exit code is known, mpirun has not ended; 0: no */
    double ended_at;  /* mpirun has, without fault; not all ranks are known to; 0: no */
    double daemon_at; /* one of Open MPI's daemons failed; 0: none */
    int32_t daemon_node, daemon_code;
    double lacking_since; /* too few nodes; 0: no */

    enum sup_links links; /* checks.c */
    double links_since;
    struct link_speed normal;

    int32_t faults;
    double fault_at; /* of the newest fault; 0: recovered */
    char fault_why[JOURNAL_LINE];

    enum sup_stop stop;
    double stop_since;
    bool is_told;                    /* SUP_STOP_REQUEUE: the ranks were */
    struct link *askers[SUP_ASKERS]; /* `kilorank stop` waits */
    double word_next;                /* when they hear of us again */
    int32_t exit_code;

    int output;    /* RUN/output.log, copied to standard output */
    int64_t shown; /* bytes of it */
    double hosts_seen;
    struct mem_text text;
};

/* Returns the exit code.  nodes: taken over. */
int supervisor_run(const struct sup_config *config, struct nodes *nodes);

/* ---- supervisor.c: for its parts ------------------------------------------------------ */

const char *sup_phase_text(enum sup_phase phase);
void sup_enter(struct sup *s, enum sup_phase phase, double seconds);
const char *sup_name(const struct sup *s, int32_t node); /* "" for -1 */
/* Why the node is not used, for `status`. */
__attribute__((format(printf, 3, 4))) void sup_note(struct sup *s, int32_t node,
                                                    const char *fmt, ...);

/* Lines of the journal. */
void sup_record(struct sup *s, const char *event, const char *why);
void sup_record_node(struct sup *s, int32_t node, const char *state, const char *why);

/* The run ends with this code, once agents have left. */
void sup_finish(struct sup *s, int32_t code, const char *why);
void sup_ask_to_stop(struct sup *s, enum sup_stop how, const char *why);

/* ---- recover.c ------------------------------------------------------------------------ */

struct sup_fault {
    const char *kind;
    int32_t node, rank, exit_code; /* -1: none */
    bool node_lost;
    double seconds; /* from the event to now */
};

/* A fault of this generation: record it, take the ladder's next rung.  Without a
 * generation that runs or starts there is nothing to do. */
void sup_fault(struct sup *s, const struct sup_fault *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Cut the node off; a fault if it has ranks. */
void sup_lose_node(struct sup *s, int32_t node, const char *why, double seconds);

/* The ladder's next rung after an exit code (-1: none); go_on: after its wait. */
void sup_decide(struct sup *s, int32_t exit_code, bool node_lost);
void sup_go_on(struct sup *s);

/* To one agent; generation 0: end everything, as end_everything says to all. */
void sup_send_prepare(struct sup *s, int32_t node, int64_t generation);
void sup_end_everything(struct sup *s);
void sup_run_mpirun(struct sup *s); /* all nodes are ready */

/* ---- verdicts.c ----------------------------------------------------------------------- */

void sup_judge(struct sup *s, double now); /* once a tick */
void sup_note_steps(struct sup *s);        /* after a beat */
void sup_head_ended(struct sup *s, int32_t code);
/* Ask the ranks to save and end, to start again on other nodes. */
void sup_regroup(struct sup *s, const char *why);

/* ---- inbox.c, hosts.c, drain.c ------------------------------------------------------- */

extern const struct link_events sup_events; /* of links that came in */

/* Look at the host file again; now and then. */
void sup_read_hosts(struct sup *s);
/* Ask Slurm which nodes it drains; now and then. */
void sup_look_for_drains(struct sup *s, double now);
/* A node is to be left, for this reason; and it may be used again after all. */
void sup_give_up(struct sup *s, int32_t node, const char *why);
void sup_take_back(struct sup *s, int32_t node);
/* Once a tick: leave what was given up. */
void sup_leave_gone(struct sup *s);
/* The address of this host from which the nodes are reached. */
void sup_find_address(const struct sup *s, char host[64]);

/* A node that was up is left out for good. */
void sup_reject(struct sup *s, int32_t node, const char *why);

/* ---- checks.c ------------------------------------------------------------------------- */

/* Have the nodes measured their links?  Asks them; call until it is so. */
bool sup_links_known(struct sup *s, double now);
void sup_check_spares(struct sup *s, double now); /* once a tick */
void sup_on_checked(struct sup *s, struct seat *seat, const struct wire_checked *c);

/* ---- mpirun.c, seats.c, view.c -------------------------------------------------------- */

/* mpirun's command line and the variables of all that is started; lists of texts in
 * s->text until its next use. */
kr_status mpirun_line(struct sup *s, struct wire_list *out);
kr_status mpirun_environment(struct sup *s, struct wire_list *out);

/* Start what brings an agent to the node. */
void seat_start(struct sup *s, int32_t node, double now);
/* Start agents that are due; once a tick. */
void seats_tick(struct sup *s, double now);
/* A child of the supervisor ended. */
void seats_bury(struct sup *s);
/* The supervisor ends: so does what it started and no agent ended. */
void seats_leave(struct sup *s);

/* What `kilorank status` shows: for people, or one JSON object. */
typedef void view_write(const struct sup *s, struct mem_text *out);
view_write view_text, view_json, view_prometheus;

#endif
