/* journal.c - one write and one fsync per line; reading folds the lines into the past. */
#include "scheduler/journal.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "scheduler/json.h"

enum { JOURNAL_MAX = 1 << 30 };

struct journal {
    char path[FS_PATH];
    int fd;
    uint64_t bytes;
    struct mem_text line;
};

/* ---- reading ------------------------------------------------------------------------ */

static int64_t number(const cJSON *j, const char *key, int64_t fallback)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(j, key);

    return cJSON_IsNumber(n) && n->valuedouble >= -1 && n->valuedouble < 0x1p53
               ? (int64_t)n->valuedouble
               : fallback;
}

static const char *text(const cJSON *j, const char *key)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

    return s ? s : "";
}

static void note_fault(struct journal_past *p, const cJSON *j)
{
    p->faults++;
    snprintf(p->last_fault, sizeof p->last_fault, "%s", text(j, "why"));
}

static void fold(struct journal_past *p, const cJSON *j)
{
    const char *event = text(j, "event");
    int64_t step = number(j, "step", -1), generation = number(j, "generation", 0);

    if (!*event) return;
    if (strcmp(event, "launch") == 0 && *text(j, "run"))
        snprintf(p->run, sizeof p->run, "%s", text(j, "run"));
    if (strcmp(event, "fault") == 0) note_fault(p, j);
    p->is_over = strcmp(event, "end") == 0;
    if (p->is_over) p->code = (int32_t)number(j, "code", 0);
    if (step > p->step) p->step = step;
    if (generation > p->generation) {
        p->generation = generation;
        p->ranks = (int32_t)number(j, "ranks", 0);
    }
    p->end_time = (double)number(j, "time", 0);
}

/* Power loss may leave zeros in a file, and lines after them. */
static void fold_lines(struct journal_past *p, const char *at, size_t len)
{
    const char *stop = at + len;

    for (const char *end; (end = memchr(at, '\n', (size_t)(stop - at))); at = end + 1) {
        cJSON *j = cJSON_ParseWithLength(at, (size_t)(end - at));

        if (j) fold(p, j); /* else a line that a crash cut, or a stranger's */
        cJSON_Delete(j);
    }
}

static kr_status read_past(const char *path, struct journal_past *out, uint64_t *bytes)
{
    struct journal_past p = { .step = -1 };
    char *all = NULL;
    size_t len = 0;

    TRY(fs_read_all(path, &all, &len, JOURNAL_MAX));
    fold_lines(&p, all, len);
    mem_free(all);
    *out = p;
    *bytes = len;
    return KR_OK;
}

kr_status journal_look(const char *run, struct journal_past *out)
{
    char path[FS_PATH];
    uint64_t bytes;

    TRY(fs_path(path, "%s/supervisor.jsonl", run));
    if (!fs_exists(path)) return KR_ERR_IO;
    return read_past(path, out, &bytes);
}

/* ---- writing ------------------------------------------------------------------------ */

static kr_status append(struct journal *j, const char *from, size_t len)
{
    TRY(fs_pwrite(j->fd, j->path, from, len, j->bytes));
    j->bytes += len;
    return fs_fsync(j->fd, j->path);
}

/* A line that a crash cut gets its end, so that the next one begins as it should. */
static kr_status heal(struct journal *j)
{
    char last = '\n';

    if (j->bytes > 0) TRY(fs_pread(j->fd, j->path, &last, 1, j->bytes - 1));
    return last == '\n' ? KR_OK : append(j, "\n", 1);
}

kr_status journal_open(struct journal **out, const char *run, struct journal_past *past)
{
    struct journal *j = NULL;
    kr_status st;

    TRY(mem_alloc(&j, 1, sizeof *j, "journal"));
    j->fd = -1;
    TRY_OR(st, fs_path(j->path, "%s/supervisor.jsonl", run), done);
    TRY_OR(st, fs_open(&j->fd, j->path, O_RDWR | O_CREAT | O_CLOEXEC), done);
    if (flock(j->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        st = KR_FAIL(KR_ERR_BUSY, "%s: another supervisor has this run", run);
        goto done;
    }
    TRY_OR(st, read_past(j->path, past, &j->bytes), done);
    TRY_OR(st, heal(j), done);
    TRY_OR(st, fs_fsync_dir(run), done);
    *out = j;
done:
    if (st != KR_OK) journal_close(j);
    return st;
}

void journal_close(struct journal *j)
{
    if (!j) return;
    if (j->fd >= 0) close(j->fd);
    mem_text_free(&j->line);
    mem_free(j);
}

struct mem_text *journal_begin(struct journal *j, const char *event)
{
    j->line.len = 0;
    j->line.failed = 0;
    mem_printf(&j->line, "{\"time\": %.3f", clock_wall());
    json_text(&j->line, "event", event);
    return &j->line;
}

void journal_end(struct journal *j)
{
    json_close(&j->line, '}');
    mem_append(&j->line, "\n", 1);
    if (!j->line.failed && append(j, j->line.at, j->line.len) == KR_OK) return;
    LOG_WARNING("the journal misses a line; the run goes on");
}
