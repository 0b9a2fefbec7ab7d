/*
 * pulse.h - what each rank of a node is doing, readable by others at any moment.
 *
 * Contract between a worker and whoever watches it.  The watcher makes one file per node
 * (pulse_create) and names it in the environment of the ranks as KILORANK_PULSE; without
 * that variable nothing happens.  Each rank maps the file and keeps its own slot up to
 * date, number OMPI_COMM_WORLD_LOCAL_RANK (0 without it), from before MPI starts.  A slot
 * costs its rank some 50 ns a change and outlives it: what a killed process last did can
 * be read.
 *
 * The file, all numbers in the byte order of the machine:
 *
 *   64 bytes     magic "KRPULSE1", uint32 version, uint32 slots, rest 0
 *   512 a slot   uint64 sequence: odd while the slot is being changed;
 *                then struct pulse_beat
 *
 * A reader takes nothing on trust: sizes are checked, the file may shrink or hold garbage,
 * texts are ended and tamed, a slot that keeps changing or whose writer died inside a
 * change is KR_ERR_DATA.
 *
 * Which rank hangs: `entered` and `left` are numbers of collectives, the same on all ranks
 * for the same collective.  Who has entered fewer than others is the culprit, who has
 * entered and not left is a victim.
 */
#ifndef SCHED_PULSE_H
#define SCHED_PULSE_H

#include <stdint.h>

#include "base/status.h"

enum { PULSE_VERSION = 1, PULSE_SLOTS_MAX = 1024 };

/* clang-format off */
#define PULSE_PHASE_MAP(X)                                                     \
    X(PULSE_STARTING,   "starting")   /* until the first step, MPI's start included */ \
    X(PULSE_READING,    "reading")    /* a checkpoint, memory or a batch of data */ \
    X(PULSE_COMPUTING,  "computing")  /* forward and backward */               \
    X(PULSE_REDUCING,   "reducing")   /* waits for other ranks */              \
    X(PULSE_UPDATING,   "updating")   /* optimizer */                          \
    X(PULSE_SNAPSHOT,   "snapshot")   /* copy into node memory */              \
    X(PULSE_SAVING,     "saving")     /* start or end of a save to disk */     \
    X(PULSE_EVALUATING, "evaluating")                                          \
    X(PULSE_DONE,       "done")       /* exit_code is set */
/* clang-format on */

enum pulse_phase {
#define X(name, text) name,
    PULSE_PHASE_MAP(X)
#undef X
        PULSE_PHASES
};

/* A slot's contents; 504 bytes. */
struct pulse_beat {
    int64_t generation;      /* of the run's lease; 0: not known yet */
    int64_t pid;             /* 0: nobody has used this slot */
    int64_t started;         /* with pid names a process for good, see base/proc.h */
    int64_t step;            /* optimizer steps done; -1: none of this process yet */
    double changed;          /* clock_now() of this node at the last change of anything */
    uint64_t entered, left;  /* number of the collective, from 1 */
    double compute_seconds;  /* of the last step, without the next */
    double wait_seconds;     /* of the last step, for other ranks */
    double loss;             /* of the last step */
    int64_t snapshot_step;   /* newest whole snapshot this rank knows of; -1 */
    double snapshot_seconds; /* that training waited for it */
    int32_t rank, size;      /* size 0: not known yet */
    int32_t phase;           /* enum pulse_phase */
    int32_t exit_code;       /* -1: runs, or died without one */
    char entered_name[24], left_name[24];
    char note[344]; /* last error line */
};

/* Text of a phase; "?" for what is none. */
const char *pulse_phase_text(int32_t phase);

/* ---- the watcher ------------------------------------------------------------------ */

/* A new file with `slots` empty slots, mode 0600; what was at path is replaced, so that
 * ranks of an earlier start cannot write into it. */
kr_status pulse_create(const char *path, int32_t slots);

struct pulse_reader; /* opaque */

kr_status pulse_reader_open(struct pulse_reader **out, const char *path);
void pulse_reader_close(struct pulse_reader *r); /* NULL is fine */
int32_t pulse_reader_slots(const struct pulse_reader *r);

/* *out is plausible in itself: phase is one, texts are printable and ended.  KR_ERR_DATA
 * (not logged: a watcher asks often) when there is no such thing to be had now. */
kr_status pulse_read(struct pulse_reader *r, int32_t slot, struct pulse_beat *out);

/* ---- the rank --------------------------------------------------------------------- */

struct pulse; /* opaque; NULL everywhere below: does nothing */

/* The slot of this process in the file that the environment names; *out = NULL when none
 * is.  A file that cannot be used is a warning and NULL: nobody stops for want of a
 * watcher. */
void pulse_open(struct pulse **out);
void pulse_close(struct pulse *p);

/* Any thread may call these. */
void pulse_phase(struct pulse *p, enum pulse_phase phase);
void pulse_who(struct pulse *p, int64_t generation, int32_t rank, int32_t size);
void pulse_step(struct pulse *p, int64_t step, double loss, double compute_seconds,
                double wait_seconds);
void pulse_snapshot(struct pulse *p, int64_t step, double seconds);
void pulse_enter(struct pulse *p, uint64_t number, const char *name);
void pulse_leave(struct pulse *p, uint64_t number, const char *name);
void pulse_note(struct pulse *p, const char *text);
void pulse_exit(struct pulse *p, int exit_code); /* also PULSE_DONE */

#endif
