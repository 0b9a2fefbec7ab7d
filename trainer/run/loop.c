/*
 * loop.c - steps, and what happens between them.
 *
 * Order within a step: compute and exchange (all ranks learn all wishes and phases), then
 * report, move a save on, evaluate, start a save, stop.  Everything that is decided is
 * decided from what the exchange told all ranks alike.
 */
#include "trainer/run/loop.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "trainer/run/best.h"
#include "trainer/run/plan.h"
#include "trainer/run/report.h"
#include "trainer/run/resume.h"
#include "trainer/run/speech.h"
#include "trainer/run/stop.h"

struct loop {
    struct comm *comm;
    const struct settings *set;
    const char *run;
    struct plan plan;
    uint64_t available; /* bytes of memory to this rank, at the start */
    struct trainer trainer;
    struct state state;
    struct ckpt *ckpt;
    struct best *best;     /* NULL: not asked for */
    struct report *report; /* rank 0 */
    struct pulse *pulse;
    struct step_words *words;
    enum ckpt_phase *phases;
    char *settings_text;
    int64_t announced; /* newest checkpoint that was reported */
};

static bool is_first(const struct loop *l) { return comm_rank(l->comm) == 0; }

/* ---- start ------------------------------------------------------------------------------ */

static void introduce(const struct loop *l, const char *about)
{
    const struct trainer *t = &l->trainer;
    const struct model_shape *s = &t->shape;

    if (!is_first(l)) return;
    LOG_NOTE("%s", about);
    LOG_NOTE("%s; device %s: %s", comm_describe(l->comm), kern_device_name(t->device),
             kern_device_describe(t->device));
    LOG_NOTE("model %s: %" PRId64 " layers, dim %" PRId64 ", %" PRId64 "/%" PRId64
             " heads, %.2fM parameters",
             s->family->name, s->layers, s->dim, s->heads, s->kv_heads,
             (double)t->params.total / 1e6);
    plan_tell(&l->plan, l->available);
    LOG_NOTE("data %s; held out: %s", dataset_describe(t->train),
             t->valid ? dataset_describe(t->valid) : "nothing");
}

/* Files of the run, once all that can be refused was checked. */
static kr_status open_files(struct loop *l)
{
    char path[FS_PATH];

    l->settings_text = cfg_print(settings_table, l->set);
    if (!l->settings_text) return KR_FAIL(KR_ERR_MEM, "no memory for the settings");
    if (!is_first(l)) return KR_OK;
    TRY(fs_path(path, "%s/config.ini", l->run));
    TRY(fs_replace(path, l->settings_text, strlen(l->settings_text)));
    TRY(speech_keep(l->set, l->run));
    return report_open(&l->report, l->set, l->run, &l->trainer.shape, comm_size(l->comm));
}

/* data.epochs decide how many steps there are. */
static void count_steps(struct loop *l)
{
    struct settings *s = &l->trainer.set;
    int64_t samples = s->epochs * dataset_epoch(l->trainer.train);

    if (s->epochs > 0) s->steps = (samples + s->batch - 1) / s->batch;
    l->set = s;
}

static kr_status open_loop(struct loop *l, const char *about)
{
    const struct settings *s = l->set;
    struct ckpt_config config = { l->run, (int)s->ckpt_keep, s->ckpt_async, false,
                                  about };
    size_t ranks = (size_t)comm_size(l->comm);

    TRY(mem_alloc(&l->words, ranks, sizeof *l->words, "words"));
    TRY(mem_alloc(&l->phases, ranks, sizeof *l->phases, "phases"));
    TRY(plan_check(&l->plan, &l->available, s, l->comm));
    TRY(comm_agree(l->comm, trainer_open(&l->trainer, s, l->comm, true)));
    l->trainer.pulse = l->pulse;
    TRY(trainer_open_data(&l->trainer));
    count_steps(l);
    introduce(l, about);
    TRY(ckpt_open(&l->ckpt, l->comm, &config));
    pulse_who(l->pulse, ckpt_generation(l->ckpt), comm_rank(l->comm), comm_size(l->comm));
    TRY(comm_agree(l->comm, state_open(&l->state, &l->trainer)));
    return s->ckpt_best && l->trainer.valid
               ? best_open(&l->best, &l->trainer, l->run, about)
               : KR_OK;
}

static void close_loop(struct loop *l)
{
    ckpt_close(l->ckpt);
    best_close(l->best);
    state_close(&l->state);
    report_close(l->report);
    trainer_close(&l->trainer);
    mem_free(l->words);
    mem_free(l->phases);
    mem_free(l->settings_text);
}

/* ---- one step --------------------------------------------------------------------------- */

static kr_status step_once(struct loop *l, int64_t step, enum stop_wish *wish)
{
    struct step_words mine = { (int)stop_asked(is_first(l) ? l->run : NULL),
                               (int)ckpt_phase(l->ckpt) };
    struct report_step told = { .step = step + 1 };
    double start = clock_now(), stalled = kern_queue_stalled(l->trainer.q);
    double waited = l->trainer.waited;

    TRY(trainer_step(&l->trainer, step, mine, &told.stats, l->words));
    told.seconds = clock_now() - start;
    told.exposed_seconds = kern_queue_stalled(l->trainer.q) - stalled;
    waited = l->trainer.waited - waited + told.exposed_seconds;
    pulse_step(l->pulse, step + 1, told.stats.loss, told.seconds - waited, waited);
    report_step(l->report, &told);
    for (int32_t r = 0; r < comm_size(l->comm); r++) {
        l->phases[r] = (enum ckpt_phase)l->words[r].phase;
        if (l->words[r].stop > (int)*wish) *wish = (enum stop_wish)l->words[r].stop;
    }
    return ckpt_advance(l->ckpt, l->phases);
}

static void announce_save(struct loop *l)
{
    int64_t newest = ckpt_newest(l->ckpt);

    if (newest == l->announced) return;
    l->announced = newest;
    if (newest >= 0)
        report_event(l->report, "checkpoint", newest,
                     "checkpoint of step %" PRId64 " saved", newest);
}

static kr_status evaluate(struct loop *l, int64_t step, int64_t batches)
{
    double loss;
    int64_t tokens;
    bool kept = false;

    if (!l->trainer.valid) return KR_OK;
    if (l->best) batches = 0; /* losses are compared, so all are of the same data */
    pulse_phase(l->pulse, PULSE_EVALUATING);
    TRY(trainer_eval(&l->trainer, l->trainer.valid, batches, &loss, &tokens));
    report_eval(l->report, step, loss, tokens);
    if (!l->best) return KR_OK;
    pulse_phase(l->pulse, PULSE_SAVING);
    TRY(best_offer(l->best, step, loss, l->settings_text, &kept));
    if (kept)
        report_event(l->report, "best", step, "step %" PRId64 " is the best so far",
                     step);
    return KR_OK;
}

static kr_status save(struct loop *l, int64_t step)
{
    pulse_phase(l->pulse, PULSE_SAVING);
    return ckpt_save(l->ckpt, l->trainer.q, &l->state.view, step, step * l->set->batch,
                     l->settings_text);
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

/* Steps from start to end; *wish says why it ended early. */
static kr_status run_steps(struct loop *l, int64_t start, int64_t end,
                           enum stop_wish *wish)
{
    const struct settings *s = l->set;

    for (int64_t step = start; step < end && *wish == STOP_NO; step++) {
        int64_t done = step + 1;

        TRY(step_once(l, step, wish));
        announce_save(l);
        if (due(done, s->eval_every) && done < end)
            TRY(evaluate(l, done, s->eval_batches));
        if (due(done, s->ckpt_every) || done == end || *wish != STOP_NO)
            TRY(save(l, done));
    }
    return KR_OK;
}

static kr_status finish(struct loop *l, int64_t end, enum stop_wish wish, bool any)
{
    bool saved = false;

    pulse_phase(l->pulse, PULSE_SAVING);
    TRY(ckpt_wait(l->ckpt, &saved));
    announce_save(l);
    if (any && !saved)
        return is_first(l) ? KR_FAIL(KR_ERR_IO, "the last steps could not be saved")
                           : KR_ERR_IO;
    if (wish != STOP_NO) {
        if (is_first(l)) stop_forget(l->run);
        report_event(l->report, "stop", ckpt_newest(l->ckpt), "stopped on request");
        return KR_OK;
    }
    return end == l->set->steps ? evaluate(l, end, 0) : KR_OK;
}

kr_status loop_train(struct comm *c, const struct settings *set, const char *run,
                     const char *about, struct pulse *pulse, bool *stopped)
{
    struct loop l = {
        .comm = c, .set = set, .run = run, .pulse = pulse, .announced = -1
    };
    int64_t start = 0, end;
    enum stop_wish wish = STOP_NO;
    kr_status st;

    TRY_OR(st, open_loop(&l, about), done);
    set = l.set;
    end = set->stop_after > 0 && set->stop_after < set->steps ? set->stop_after
                                                              : set->steps;
    pulse_phase(pulse, PULSE_READING);
    TRY_OR(st, resume(l.ckpt, &l.trainer, &l.state, &start), done);
    TRY_OR(st, comm_agree(c, open_files(&l)), done);
    if (start > 0)
        report_event(l.report, "resume", start, "resumed at step %" PRId64, start);
    if (start >= end && is_first(&l))
        LOG_NOTE("nothing to train: step %" PRId64 " is done, %s = %" PRId64, start,
                 end < set->steps ? "train.stop_after" : "train.steps", end);
    TRY_OR(st, run_steps(&l, start, end, &wish), done);
    st = finish(&l, end, wish, start < end);
    *stopped = wish == STOP_REQUEUE;
done:
    close_loop(&l);
    return st;
}
