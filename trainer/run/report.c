/* report.c - progress line, log.jsonl, TensorBoard, Prometheus. */
#include "trainer/run/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/prom.h"
#include "base/utf8.h"
#include "trainer/run/tensorboard.h"

struct report {
    FILE *log;
    struct tensorboard *board;
    const struct settings *set;
    double flops_per_token;
    int32_t ranks;
    bool terminal, warned, deaf, line_open; /* deaf: metrics cannot be written */
    char path[FS_PATH];
    const char *run;
    double valid_loss; /* NAN: none yet */
    /* since the last progress line */
    double seconds, exposed;
    int64_t tokens, steps;
};

kr_status report_open(struct report **out, const struct settings *set, const char *run,
                      const struct model_shape *shape, int32_t ranks)
{
    struct report *r = NULL;
    char folder[FS_PATH];
    kr_status st;

    TRY(mem_alloc(&r, 1, sizeof *r, "report"));
    r->set = set;
    r->run = run;
    r->ranks = ranks;
    r->valid_loss = NAN;
    r->flops_per_token = model_flops_per_token(shape, set->context);
    r->terminal = isatty(STDERR_FILENO);
    TRY_OR(st, fs_path(r->path, "%s/log.jsonl", run), done);
    TRY_OR(st, fs_path(folder, "%s/tensorboard", run), done);
    if (!(r->log = fopen(r->path, "a"))) {
        st = KR_FAIL(KR_ERR_IO, "%s: cannot open for writing", r->path);
        goto done;
    }
    if (set->tensorboard) (void)tensorboard_open(&r->board, folder);
    *out = r;
done:
    if (st != KR_OK) report_close(r);
    return st;
}

enum { TAIL = 1 << 16 /* bytes at the end of a log that hold its last steps */ };

int64_t report_reached(const char *run)
{
    char path[FS_PATH], text[TAIL + 1];
    int64_t reached = 0, step;
    size_t got;
    FILE *f;

    if (fs_path(path, "%s/log.jsonl", run) != KR_OK || !(f = fopen(path, "r"))) return 0;
    if (fseek(f, -TAIL, SEEK_END) != 0) rewind(f);
    got = fread(text, 1, TAIL, f);
    fclose(f);
    text[got] = '\0';
    for (const char *at = text; (at = strstr(at, "{\"step\":")); at++)
        if (sscanf(at, "{\"step\":%" SCNd64, &step) == 1) reached = step;
    return reached;
}

/* Leave a line that is rewritten in place. */
static void end_line(struct report *r)
{
    if (r->line_open) fputc('\n', stderr);
    r->line_open = false;
}

void report_close(struct report *r)
{
    if (!r) return;
    end_line(r);
    tensorboard_close(r->board);
    if (r->log) fclose(r->log);
    mem_free(r);
}

/* A number as JSON, which knows no NaN. */
static const char *number(char buf[32], double x)
{
    snprintf(buf, 32, isfinite(x) ? "%.9g" : "null", x);
    return buf;
}

static void flush(struct report *r)
{
    if (fflush(r->log) == 0 && !ferror(r->log)) return;
    clearerr(r->log);
    if (!r->warned) LOG_WARNING("%s: cannot write; training goes on", r->path);
    r->warned = true;
}

static void log_step(struct report *r, const struct report_step *s)
{
    double rate = (double)s->stats.tokens / s->seconds;
    char a[32], b[32];

    fprintf(r->log,
            "{\"step\":%" PRId64 ",\"loss\":%s,\"grad_norm\":%s,\"lr\":%.9g,"
            "\"tokens\":%" PRId64 ",\"tokens_per_s\":%.1f,\"step_ms\":%.3f,"
            "\"comm_exposed_ms\":%.3f,\"model_tflop_per_s\":%.6f,\"time\":%.3f}\n",
            s->step, number(a, s->stats.loss), number(b, s->stats.grad_norm), s->stats.lr,
            s->step * s->stats.tokens, rate, 1e3 * s->seconds, 1e3 * s->exposed_seconds,
            rate * r->flops_per_token / 1e12, clock_wall());
    flush(r);
}

static void board_step(struct report *r, const struct report_step *s)
{
    const struct tensorboard_scalar scalars[] = {
        { "train/loss", s->stats.loss },
        { "train/grad_norm", s->stats.grad_norm },
        { "train/lr", s->stats.lr },
        { "speed/tokens_per_s", (double)s->stats.tokens / s->seconds },
        { "speed/step_ms", 1e3 * s->seconds },
        { "speed/comm_exposed_ms", 1e3 * s->exposed_seconds },
    };

    tensorboard_add(r->board, clock_wall(), s->step, scalars,
                    (int)(sizeof scalars / sizeof *scalars));
}

/* "1:05:09", "4:07", "12s" */
static const char *duration(char buf[32], double seconds)
{
    long long s = (long long)(seconds + 0.5);

    if (s < 60)
        snprintf(buf, 32, "%llds", s);
    else if (s < 3600)
        snprintf(buf, 32, "%lld:%02lld", s / 60, s % 60);
    else
        snprintf(buf, 32, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    return buf;
}

/* Readers of another user see the old file or the new one.  After a power loss neither
 * matters, so nothing waits for the disk. */
static kr_status refresh(const char *path, const struct mem_text *text)
{
    char temp[FS_PATH];
    bool is_written;
    FILE *f;

    TRY(fs_path(temp, "%s.tmp.%d", path, (int)getpid()));
    if (!(f = fopen(temp, "w"))) return KR_ERR_IO;
    is_written = fwrite(text->at, 1, text->len, f) == text->len;
    is_written = fclose(f) == 0 && is_written;
    if (is_written && rename(temp, path) == 0) return KR_OK;
    (void)unlink(temp);
    return KR_ERR_IO;
}

/* Over the steps since the last progress line. */
static void metrics(struct report *r, const struct report_step *s)
{
    const double rate = (double)r->tokens / r->seconds;
    const struct {
        const char *name, *help;
        enum prom_type type;
        double value;
    } list[] = {
        { "step", "Optimizer steps done.", PROM_COUNTER, (double)s->step },
        { "steps_wanted", "Steps after which the run ends.", PROM_GAUGE,
          (double)r->set->steps },
        { "tokens_total", "Tokens trained on.", PROM_COUNTER,
          (double)(s->step * s->stats.tokens) },
        { "loss", "Training loss of the newest step, nats per token.", PROM_GAUGE,
          s->stats.loss },
        { "valid_loss", "Newest held-out loss, nats per token.", PROM_GAUGE,
          r->valid_loss },
        { "grad_norm", "Norm of the gradient before clipping.", PROM_GAUGE,
          s->stats.grad_norm },
        { "learning_rate", "Of the newest step.", PROM_GAUGE, s->stats.lr },
        { "tokens_per_second", "Over all ranks.", PROM_GAUGE, rate },
        { "model_flops_per_second", "Of the model, over all ranks (docs/speed.md).",
          PROM_GAUGE, rate * r->flops_per_token },
        { "step_seconds", "Mean wall time of a step.", PROM_GAUGE,
          r->seconds / (double)r->steps },
        { "exposed_ratio", "Share of it spent waiting for communication.", PROM_GAUGE,
          r->exposed / r->seconds },
        { "ranks", "Ranks that train.", PROM_GAUGE, r->ranks },
    };
    struct mem_text t = { 0 };
    char name[64];

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        snprintf(name, sizeof name, "kilorank_%s", list[i].name);
        prom_put(&t, name, list[i].help, list[i].type, r->run, list[i].value);
    }
    if (t.failed || refresh(r->set->prometheus, &t) != KR_OK) {
        if (!r->deaf)
            LOG_WARNING("%s: cannot write; training goes on", r->set->prometheus);
        r->deaf = true;
    }
    mem_text_free(&t);
}

static void progress(struct report *r, const struct report_step *s)
{
    double each = r->seconds / (double)r->steps;
    char eta[32];

    if (r->set->prometheus[0]) metrics(r, s);
    fprintf(stderr,
            "%sstep %" PRId64 "/%" PRId64 "  loss %.4f  %.0f tokens/s  %.0f ms/step  "
            "waiting %.1f%%  ETA %s%s",
            r->terminal ? "\r\033[K" : "", s->step, r->set->steps, s->stats.loss,
            (double)r->tokens / r->seconds, 1e3 * each, 100 * r->exposed / r->seconds,
            duration(eta, each * (double)(r->set->steps - s->step)),
            r->terminal ? "" : "\n");
    fflush(stderr);
    r->line_open = r->terminal;
    r->seconds = r->exposed = 0;
    r->tokens = r->steps = 0;
}

void report_step(struct report *r, const struct report_step *s)
{
    if (!r) return;
    log_step(r, s);
    board_step(r, s);
    r->seconds += s->seconds;
    r->exposed += s->exposed_seconds;
    r->tokens += s->stats.tokens;
    r->steps++;
    if (s->step % r->set->log_every == 0 || s->step == r->set->steps) progress(r, s);
}

void report_eval(struct report *r, int64_t step, double loss, int64_t tokens)
{
    struct tensorboard_scalar scalar = { "valid/loss", loss };
    char a[32], b[32];

    if (!r) return;
    r->valid_loss = loss;
    end_line(r);
    fprintf(stderr,
            "step %" PRId64 "  held-out loss %.4f nats/token over %" PRId64
            " tokens, perplexity %.3f\n",
            step, loss, tokens, exp(loss));
    fprintf(r->log,
            "{\"event\":\"eval\",\"step\":%" PRId64 ",\"valid_loss\":%s,"
            "\"perplexity\":%s,\"tokens\":%" PRId64 "}\n",
            step, number(a, loss), number(b, exp(loss)), tokens);
    flush(r);
    tensorboard_add(r->board, clock_wall(), step, &scalar, 1);
}

void report_event(struct report *r, const char *name, int64_t step, const char *fmt, ...)
{
    struct mem_text quoted = { 0 };
    char text[1024];
    va_list ap;

    if (!r) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    end_line(r);
    LOG_NOTE("%s", text);
    utf8_json(&quoted, text, strlen(text));
    fprintf(r->log,
            "{\"event\":\"%s\",\"step\":%" PRId64 ",\"text\":\"%s\",\"time\":%.3f}\n",
            name, step, quoted.at ? quoted.at : "", clock_wall());
    mem_text_free(&quoted);
    flush(r);
}
