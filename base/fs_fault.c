/* fs_fault.c - which call is to fail, read once from the environment. */
#include "base/fs_fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum what { FAULT_ERRNO, FAULT_CRASH, FAULT_AFTER };

static const char *const op_names[] = { "open",   "write", "fsync", "rename",
                                        "unlink", "mkdir", "close", "any" };

struct fault {
    enum fs_op op;
    long at;
    bool on; /* also every later call */
    enum what what;
    int error;
};

static struct {
    pthread_mutex_t lock;
    bool ready;
    struct fault list[8];
    int count;
    long calls[FS_ANY + 1];
} faults = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int error_number(const char *name)
{
    static const struct {
        const char *name;
        int number;
    } known[] = { { "EIO", EIO },     { "ENOSPC", ENOSPC }, { "EACCES", EACCES },
                  { "EROFS", EROFS }, { "EDQUOT", EDQUOT }, { "ENOENT", ENOENT } };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) return known[i].number;
    return EIO;
}

static void parse_fault(const char *text)
{
    struct fault f = { 0 };
    char op[16] = "", plus[2] = "", what[16] = "";

    if (sscanf(text, "%15[a-z]:%ld:%15s", op, &f.at, what) != 3 &&
        sscanf(text, "%15[a-z]:%ld%1[+]:%15s", op, &f.at, plus, what) != 4)
        return;
    f.on = plus[0] == '+';
    f.what = strcmp(what, "crash") == 0   ? FAULT_CRASH
             : strcmp(what, "after") == 0 ? FAULT_AFTER
                                          : FAULT_ERRNO;
    f.error = error_number(what);
    for (int i = 0; i <= FS_ANY; i++)
        if (strcmp(op, op_names[i]) == 0 && faults.count < 8) {
            f.op = (enum fs_op)i;
            faults.list[faults.count++] = f;
        }
}

static void parse_faults(void)
{
    const char *text = getenv("KILORANK_FS_FAULT");
    char copy[256], *save = NULL;

    faults.ready = true;
    if (!text) return;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *one = strtok_r(copy, ",", &save); one; one = strtok_r(NULL, ",", &save))
        parse_fault(one);
}

static bool hits(const struct fault *f, enum fs_op op)
{
    long n = faults.calls[f->op];

    return (f->op == op || f->op == FS_ANY) && (n == f->at || (f->on && n > f->at));
}

int fs_fault_before(enum fs_op op, bool *after)
{
    int error = 0;

    *after = false;
    pthread_mutex_lock(&faults.lock);
    if (!faults.ready) parse_faults();
    faults.calls[op]++;
    faults.calls[FS_ANY]++;
    for (int i = 0; i < faults.count; i++) {
        if (!hits(&faults.list[i], op)) continue;
        if (faults.list[i].what == FAULT_CRASH) raise(SIGKILL);
        if (faults.list[i].what == FAULT_AFTER) *after = true;
        if (faults.list[i].what == FAULT_ERRNO) error = faults.list[i].error;
    }
    pthread_mutex_unlock(&faults.lock);
    return error;
}
