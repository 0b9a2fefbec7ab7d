/* trouble.c - go back, part ways, or stop. */
#include <inttypes.h>
#include <math.h>

#include "base/clock.h"
#include "base/log.h"
#include "trainer/run/loop_parts.h"

enum { SKIPS_MAX = 10 /* steps left out in a row */ };
static const double patience = 5; /* seconds that a suspect has to end the group */

/* To the newest snapshot or, without `memory`, to the newest checkpoint on disk. */
static kr_status go_back(struct loop *l, bool memory)
{
    int64_t was = l->step;
    struct resumed to;

    pulse_phase(l->pulse, PULSE_READING);
    TRY(ckpt_wait(l->ckpt, NULL));
    if (l->keep.snapshot) TRY(snapshot_wait(l->keep.snapshot));
    TRY(ckpt_rewind(l->ckpt));
    TRY(resume(l->ckpt, memory ? l->keep.snapshot : NULL, &l->trainer, &l->state, &to));
    TRY(keep_start(&l->keep, &to));
    l->step = to.step;
    report_event(l->report, "rollback", to.step,
                 "went back from step %" PRId64 " to %" PRId64 ", from %s", was, to.step,
                 to.from_memory ? "memory"
                 : to.is_new    ? "start values"
                                : "disk");
    return KR_OK;
}

/* Ranks that are suspect end the group with the code that asks for other nodes. */
static kr_status part_ways(const struct loop *l, bool mine, const char *why)
{
    if (mine)
        return KR_FAIL(KR_ERR_DEVICE,
                       "rank %d on node %s is suspect: %s; start elsewhere",
                       comm_rank(l->comm), comm_node_name(l->comm), why);
    clock_sleep(patience);
    return KR_ERR_COMM;
}

/* ---- not finite ---------------------------------------------------------------------- */

static kr_status suspect_arithmetic(struct loop *l, const struct step_stats *stats)
{
    int32_t me = comm_rank(l->comm), first = -1;

    for (int32_t r = comm_size(l->comm) - 1; r >= 0; r--)
        if (l->suspect[r]) first = r;
    if (first >= 0)
        report_event(l->report, "hardware", l->step + 1,
                     "step %" PRId64
                     ": loss %g, gradient norm %g, and another result when "
                     "computed again; it differs on rank %d",
                     l->step + 1, stats->loss, stats->grad_norm, first);
    else
        report_event(l->report, "hardware", l->step + 1,
                     "step %" PRId64
                     ": loss %g, gradient norm %g, and another result when "
                     "computed again; which rank is not known",
                     l->step + 1, stats->loss, stats->grad_norm);
    return part_ways(l, first < 0 || l->suspect[me],
                     "the same step gave two different results");
}

static kr_status skip(struct loop *l, const struct step_stats *stats)
{
    if (++l->skipped > SKIPS_MAX)
        return is_first(l) ? KR_FAIL(KR_ERR_NUMERIC, "%d steps in a row are not finite",
                                     l->skipped)
                           : KR_ERR_NUMERIC;
    l->step++;
    report_event(l->report, "skip", l->step,
                 "step %" PRId64 " is left out: loss %g, gradient norm %g", l->step,
                 stats->loss, stats->grad_norm);
    return KR_OK;
}

/* Twice the same bits. */
static kr_status by_policy(struct loop *l, const struct step_stats *stats)
{
    const int policy = l->set->on_nan;

    if (policy == ON_NAN_SKIP) return skip(l, stats);
    if (l->nan_step != l->step) l->nan_tries = 0;
    l->nan_step = l->step;
    /* a snapshot may hold what the next step trips over; the checkpoint before it not */
    if (policy == ON_NAN_ROLLBACK && ++l->nan_tries <= 2)
        return go_back(l, l->nan_tries == 1);
    return is_first(l)
               ? KR_FAIL(KR_ERR_NUMERIC,
                         "step %" PRId64 ": loss %g, gradient norm %g, twice the same; "
                         "nothing was updated",
                         l->step + 1, stats->loss, stats->grad_norm)
               : KR_ERR_NUMERIC;
}

kr_status trouble_not_finite(struct loop *l, struct step_words mine,
                             struct step_stats *stats)
{
    enum judge_nan again;

    TRY(judge_again(&l->trainer, l->step, mine, &again, l->suspect, l->words));
    return again == JUDGE_SAME ? by_policy(l, stats) : suspect_arithmetic(l, stats);
}

/* ---- spikes -------------------------------------------------------------------------- */

kr_status trouble_spike(struct loop *l, double loss)
{
    double by;

    if (!judge_is_spike(&l->judge, loss, l->set->spike, &by)) return KR_OK;
    if (l->set->on_spike == ON_SPIKE_ROLLBACK && l->spike_step != l->step) {
        l->spike_step = l->step;
        report_event(l->report, "spike", l->step,
                     "step %" PRId64 ": loss %g is %.1f deviations above its mean; "
                     "computing it again",
                     l->step, loss, by);
        return go_back(l, true);
    }
    judge_accept(&l->judge, loss);
    report_event(l->report, "spike", l->step,
                 "step %" PRId64 ": loss %g is %.1f deviations above its mean%s", l->step,
                 loss, by, l->spike_step == l->step ? ", again: it is the data" : "");
    return KR_OK;
}

/* ---- replicas ------------------------------------------------------------------------ */

kr_status trouble_replicas(struct loop *l, const struct keep_verdict *v)
{
    if (v->suspect >= 0)
        report_event(l->report, "corruption", v->step,
                     "step %" PRId64 ": rank %d%s holds other bits than the majority of "
                     "ranks",
                     v->step, v->suspect, v->count > 1 ? " and others" : "");
    else
        report_event(l->report, "corruption", v->step,
                     "step %" PRId64
                     ": ranks hold different bits, and no majority the same",
                     v->step);
    if (l->keep.snapshot) TRY(snapshot_forget(l->keep.snapshot, v->step));
    if (v->suspect >= 0 || l->tied)
        return part_ways(l, v->mine, "a bit of its weights or of its optimizer flipped");
    l->tied = true;
    return go_back(l, true);
}
