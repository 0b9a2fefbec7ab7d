/*
 * loop.c - steps, and what happens between them.
 *
 * Order within a step: compute and exchange (all ranks learn all wishes and phases), then
 * report, move a snapshot and a save on, evaluate, start a save, take a snapshot, stop.
 * Everything that is decided is decided from what the exchange told all ranks alike.  What
 * becomes of steps that go wrong is in trouble.c.
 */
#include "trainer/run/loop.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "trainer/run/base.h"
#include "trainer/run/loop_parts.h"
#include "trainer/run/origin.h"
#include "trainer/run/speech.h"

/* ---- start ------------------------------------------------------------------------------ */

static void introduce(const struct loop *l, const char *about)
{
    const struct trainer *t = &l->trainer;
    const struct model_shape *s = &t->shape;
    const char *by = kern_device_kernels(t->device);
    char names[LORA_TEXT];

    if (!is_first(l)) return;
    LOG_NOTE("%s", about);
    LOG_NOTE("%s; device %s: %s%s%s", comm_describe(l->comm), kern_device_name(t->device),
             kern_device_describe(t->device), by ? ", " : "", by ? by : "");
    LOG_NOTE("model %s: %" PRId64 " layers, dim %" PRId64 ", %" PRId64 "/%" PRId64
             " heads, %.2fM parameters",
             s->family->name, s->layers, s->dim, s->heads, s->kv_heads,
             (double)t->params.total / 1e6);
    if (s->lora.rank > 0)
        LOG_NOTE("adapters of rank %" PRId64 " on %s: %.3fM parameters are trained",
                 s->lora.rank, lora_print(s->lora.sites, names),
                 (double)t->params.trained / 1e6);
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
    if (l->set->init[0]) TRY(origin_keep(l->set->init, l->run));
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

/* What is being copied out of device memory. */
static kr_status hold_back(void *self, struct kern_queue *q)
{
    struct loop *l = self;

    TRY(ckpt_hold(l->ckpt, q));
    return l->keep.snapshot ? snapshot_hold(l->keep.snapshot, q) : KR_OK;
}

static kr_status open_loop(struct loop *l, const char *about)
{
    const struct settings *s = l->set;
    struct ckpt_config config = { l->run, (int)s->ckpt_keep, s->ckpt_async, false,
                                  about };
    size_t ranks = (size_t)comm_size(l->comm);

    TRY(mem_alloc(&l->words, ranks, sizeof *l->words, "words"));
    TRY(mem_alloc(&l->phases, ranks, sizeof *l->phases, "phases"));
    TRY(mem_alloc(&l->suspect, ranks, sizeof *l->suspect, "suspects"));
    TRY(plan_check(&l->plan, &l->available, s, l->comm));
    TRY(comm_agree(l->comm, trainer_open(&l->trainer, s, l->comm, true)));
    l->trainer.pulse = l->pulse;
    l->trainer.hold = hold_back;
    l->trainer.holder = l;
    TRY(trainer_open_data(&l->trainer));
    count_steps(l);
    introduce(l, about);
    TRY(ckpt_open(&l->ckpt, l->comm, &config));
    pulse_who(l->pulse, ckpt_generation(l->ckpt), comm_rank(l->comm), comm_size(l->comm));
    TRY(comm_agree(l->comm, state_open(&l->state, &l->trainer)));
    TRY(comm_agree(l->comm, ckpt_reserve(l->ckpt, l->trainer.q, &l->state.view)));
    if (s->ckpt_best && l->trainer.valid)
        TRY(best_open(&l->best, &l->trainer, l->run, about));
    return keep_open(&l->keep, &l->trainer, &l->state, l->run, ckpt_generation(l->ckpt));
}

bool loop_ends_together(kr_status st)
{
    return st == KR_OK || st == KR_ERR_ARG || st == KR_ERR_BUSY || st == KR_ERR_NO_CKPT ||
           st == KR_ERR_NUMERIC;
}

static void close_loop(struct loop *l, kr_status st)
{
    if (!loop_ends_together(st)) ckpt_abandon(l->ckpt);
    keep_close(&l->keep, st == KR_OK);
    ckpt_close(l->ckpt);
    best_close(l->best);
    state_close(&l->state);
    report_close(l->report);
    trainer_close(&l->trainer);
    mem_free(l->words);
    mem_free(l->phases);
    mem_free(l->suspect);
    mem_free(l->settings_text);
}

/* ---- one step --------------------------------------------------------------------------- */

static struct step_words own_words(const struct loop *l)
{
    enum stop_wish stop = stop_asked(is_first(l) ? l->run : NULL);
    struct step_words w = { .stop = (int)(ckpt_is_lost(l->ckpt) ? STOP_LOST : stop),
                            .phase = (int)ckpt_phase(l->ckpt),
                            .step_seconds = l->step_seconds };

    keep_words(&l->keep, &w);
    return w;
}

/* A step was done: tell. */
static void tell(struct loop *l, const struct step_stats *stats, double seconds,
                 double exposed, double waited)
{
    struct report_step told = { l->step, *stats, seconds, exposed };

    l->step_seconds = seconds;
    pulse_step(l->pulse, l->step, stats->loss, seconds - waited, waited);
    report_step(l->report, &told);
}

/* Whatever is computed from here on nobody wants. */
static kr_status taken_over(const struct loop *l)
{
    return is_first(l)
               ? KR_FAIL(KR_ERR_BUSY, "%s: another job goes on with this run", l->run)
               : KR_ERR_BUSY;
}

/* What all ranks told in the step that was computed. */
static kr_status hear(struct loop *l, enum stop_wish *wish)
{
    struct keep_verdict verdict;

    for (int32_t r = 0; r < comm_size(l->comm); r++) {
        l->phases[r] = (enum ckpt_phase)l->words[r].phase;
        if (l->words[r].stop > (int)*wish) *wish = (enum stop_wish)l->words[r].stop;
    }
    if (*wish == STOP_LOST) return taken_over(l);
    TRY(keep_step(&l->keep, l->words, &verdict));
    if (verdict.step >= 0) return trouble_replicas(l, &verdict);
    return ckpt_advance(l->ckpt, l->phases);
}

static kr_status flip_if_asked(struct loop *l)
{
    int bit = fault_flip(&l->trainer.fault, l->step, comm_rank(l->comm));

    return bit < 0 ? KR_OK : shard_flip(l->trainer.shard, bit);
}

/* Compute step l->step + 1; it is done, or gone back from, or left out. */
static kr_status step_once(struct loop *l, enum stop_wish *wish)
{
    struct step_words mine = own_words(l);
    struct step_stats stats;
    double start = clock_now(), stalled = kern_queue_stalled(l->trainer.q), exposed;
    double waited = l->trainer.waited;
    kr_status st = trainer_step(&l->trainer, l->step, mine, &stats, l->words);
    int64_t was = l->step;

    if (st == KR_ERR_NUMERIC) return trouble_not_finite(l, mine, &stats);
    TRY(st);
    l->skipped = 0;
    l->step++;
    exposed = kern_queue_stalled(l->trainer.q) - stalled;
    tell(l, &stats, clock_now() - start, exposed, l->trainer.waited - waited + exposed);
    TRY(hear(l, wish));
    if (l->step == was + 1) TRY(trouble_spike(l, stats.loss));
    return l->step == was + 1 ? flip_if_asked(l) : KR_OK;
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

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

/* To disk, if all ranks hold the same. */
static kr_status save(struct loop *l)
{
    struct keep_verdict verdict;

    pulse_phase(l->pulse, PULSE_SAVING);
    TRY(keep_compare(&l->keep, l->step, &verdict));
    if (verdict.step >= 0) return trouble_replicas(l, &verdict);
    return ckpt_save(l->ckpt, l->trainer.q, &l->state.view, l->step,
                     l->step * l->set->batch, l->settings_text);
}

/* What follows a step that is done. */
static kr_status between_steps(struct loop *l, int64_t end, enum stop_wish wish)
{
    const struct settings *s = l->set;
    bool last = l->step == end || wish != STOP_NO;
    int64_t step = l->step;

    announce_save(l);
    if (due(l->step, s->eval_every) && l->step < end)
        TRY(evaluate(l, l->step, s->eval_batches));
    if (due(step, s->ckpt_every) || last) TRY(save(l));
    /* a snapshot comes last: messages to its partner wait until it is out of the device */
    return last || l->step != step ? KR_OK : keep_take(&l->keep, step);
}

/* Steps until the end; *wish says why it ended early. */
static kr_status run_steps(struct loop *l, int64_t end, enum stop_wish *wish)
{
    while (l->step < end && *wish == STOP_NO) {
        int64_t was = l->step;

        TRY(step_once(l, wish));
        if (l->step == was + 1) TRY(between_steps(l, end, *wish));
        /* it went back: a request to stop is heard again, when there is something to save */
        if (l->step != was + 1) *wish = STOP_NO;
    }
    return KR_OK;
}

/* What snapshots cost this rank, of the seconds since `begin`. */
static void tell_cost(struct loop *l, double begin)
{
    const struct keep *k = &l->keep;

    if (k->taken == 0) return;
    report_event(l->report, "snapshots", l->step,
                 "%" PRId64
                 " snapshot%s held training up for %.2f ms each, %.3f%% of its "
                 "time",
                 k->taken, k->taken == 1 ? "" : "s", 1e3 * k->stalled / (double)k->taken,
                 100 * k->stalled / (clock_now() - begin));
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

static void tell_resumed(struct loop *l, const struct resumed *from, int64_t reached)
{
    const char *source = from->from_memory ? "node memory" : "disk";

    if (from->is_new) return;
    if (reached > from->step)
        report_event(l->report, "resume", from->step,
                     "resumed at step %" PRId64 " from %s; %" PRId64 " step%s again",
                     from->step, source, reached - from->step,
                     reached - from->step == 1 ? " is done" : "s are done");
    else
        report_event(l->report, "resume", from->step,
                     "resumed at step %" PRId64 " from %s", from->step, source);
    if (is_first(l) && l->set->reduce == REDUCE_LIBRARY && from->world > 0 &&
        from->world != comm_size(l->comm))
        LOG_WARNING("%d ranks computed step %" PRId64 ", %d go on: with dist.reduce = "
                    "library the bits are others from here on than those of %d ranks",
                    from->world, from->step, comm_size(l->comm), from->world);
}

static kr_status start(struct loop *l, int64_t end)
{
    int64_t reached = is_first(l) ? report_reached(l->run) : 0;
    struct resumed from;

    pulse_phase(l->pulse, PULSE_READING);
    TRY(base_load(&l->trainer));
    TRY(resume(l->ckpt, l->keep.snapshot, &l->trainer, &l->state, &from));
    TRY(comm_agree(l->comm, open_files(l)));
    tell_resumed(l, &from, reached);
    TRY(keep_start(&l->keep, &from));
    l->step = from.step;
    if (l->step < end) return KR_OK;
    if (is_first(l))
        LOG_NOTE("nothing to train: step %" PRId64 " is done, %s = %" PRId64, l->step,
                 end < l->set->steps ? "train.stop_after" : "train.steps", end);
    return from.from_memory ? save(l) : KR_OK; /* disk does not have it yet */
}

kr_status loop_train(struct comm *c, const struct settings *set, const char *run,
                     const char *about, struct pulse *pulse, bool *stopped)
{
    struct loop l = { .comm = c,
                      .set = set,
                      .run = run,
                      .pulse = pulse,
                      .announced = -1,
                      .nan_step = -1,
                      .spike_step = -1 };
    int64_t end;
    enum stop_wish wish = STOP_NO;
    double begin;
    bool any;
    kr_status st;

    TRY_OR(st, open_loop(&l, about), done);
    set = l.set;
    end = set->stop_after > 0 && set->stop_after < set->steps ? set->stop_after
                                                              : set->steps;
    TRY_OR(st, start(&l, end), done);
    any = l.step < end;
    begin = clock_now();
    TRY_OR(st, run_steps(&l, end, &wish), done);
    tell_cost(&l, begin);
    st = finish(&l, end, wish, any);
    *stopped = wish == STOP_REQUEUE;
done:
    close_loop(&l, st);
    return st;
}
