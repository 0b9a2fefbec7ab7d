/*
 * rig_run.h - runs of the rig: save steps, load the newest, in this process or in this
 * program started again; what is on disk.  State s of the rig is the state of step s.
 */
#ifndef TESTS_RIG_RUN_H
#define TESTS_RIG_RUN_H

#include <sys/stat.h>
#include <sys/wait.h>

#include "checkpoints/catalog.h"
#include "tests/unit/rig.h"

enum { REFUSED = 10, NOT_SAVED = 11 };

static char root[FS_PATH]; /* of all runs of this test */

/* ---- saving and loading --------------------------------------------------------------- */

static inline void open_rig(struct rig *r)
{
    struct comm_config self = { "self", 10, "" };

    rig_open(r, rig_small);
    rig_must(comm_open(&r->comm, &self));
    rig_split(r, 0, 1, 1);
}

static inline void close_rig(struct rig *r)
{
    comm_close(r->comm);
    rig_close(r);
}

static inline kr_status open_run(struct ckpt **k, struct rig *r, const char *run,
                                 int keep, bool read_only)
{
    struct ckpt_config config = { run, keep, true, read_only, "test" };

    return ckpt_open(k, r->comm, &config);
}

static inline bool save_one(struct ckpt *k, struct rig *r, int64_t step)
{
    bool saved = false;

    rig_fill(r, (uint64_t)step);
    if (ckpt_save(k, r->q, &r->state, step, step * 8, "[a]\nb = 1\n") != KR_OK)
        return false;
    return ckpt_wait(k, &saved) == KR_OK && saved;
}

/* Saves of steps from, from + 10, ... to; 0 or one of the codes above. */
static inline int save_steps(const char *run, int64_t from, int64_t to, int keep)
{
    struct rig r;
    struct ckpt *k;
    int code = 0;

    open_rig(&r);
    if (open_run(&k, &r, run, keep, false) != KR_OK) {
        close_rig(&r);
        return REFUSED;
    }
    for (int64_t step = from; step <= to; step += 10)
        code = save_one(k, &r, step) ? 0 : NOT_SAVED;
    ckpt_close(k);
    close_rig(&r);
    return code;
}

/* What a new job would start from: the step whose state was loaded, every bit of it; -1 a
 * new run, -2 none is valid, -3 a state that is of no step. */
static inline int64_t newest(const char *run, bool read_only)
{
    struct rig r;
    struct ckpt *k;
    int64_t step = -1;
    kr_status st;

    open_rig(&r);
    st = open_run(&k, &r, run, 2, read_only);
    if (st == KR_OK) {
        st = rig_load(k, &r, &step);
        ckpt_close(k);
    }
    if (st == KR_OK && step >= 0 && rig_wrong(&r, (uint64_t)step) != 0) step = -3;
    close_rig(&r);
    return st == KR_OK ? step : st == KR_ERR_NO_CKPT ? -2 : -4;
}

static inline void new_run(char run[FS_PATH])
{
    static int number;

    rig_must(fs_path(run, "%s/run-%d", root, number++));
}

/* ---- other processes ------------------------------------------------------------------ */

static inline pid_t start(const char *what, const char *run, const char *from,
                          const char *to, const char *fault)
{
    pid_t pid = fork();

    if (pid == 0) {
        if (fault) setenv("KILORANK_FS_FAULT", fault, 1);
        execl("/proc/self/exe", "test", what, run, from, to, (char *)NULL);
        _exit(98);
    }
    return pid;
}

/* Exit code, or 1000 + signal. */
static inline int ended(pid_t pid)
{
    int how;

    if (pid < 0 || waitpid(pid, &how, 0) != pid) return -1;
    return WIFSIGNALED(how) ? 1000 + WTERMSIG(how) : WEXITSTATUS(how);
}

/* ---- names on disk -------------------------------------------------------------------- */

/* Names in RUN/checkpoints that a finished save does not leave, and whole folders without
 * a manifest. */
static inline int leftovers(const char *run)
{
    char folder[FS_PATH], path[FS_PATH], **names;
    size_t count;
    int bad = 0;

    rig_must(fs_path(folder, "%s/checkpoints", run));
    if (!fs_exists(folder)) return 0;
    rig_must(fs_list(folder, &names, &count));
    for (size_t i = 0; i < count; i++) {
        bool step = strncmp(names[i], "step-", 5) == 0;

        rig_must(fs_path(path, "%s/%s/manifest.json", folder, names[i]));
        if (strcmp(names[i], "latest") == 0 || (step && fs_exists(path))) continue;
        printf("# left over: %s\n", names[i]);
        bad++;
    }
    fs_free_names(names, count);
    return bad;
}

static inline int steps_there(const char *run)
{
    struct catalog c;
    int valid;

    rig_must(catalog_open(&c, run));
    valid = c.valid;
    catalog_close(&c);
    return valid;
}

static inline void file_of(char out[FS_PATH], const char *run, int step, const char *name)
{
    rig_must(fs_path(out, "%s/checkpoints/step-%08d/%s", run, step, name));
}

#endif
