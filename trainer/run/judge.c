/* judge.c - compute again, compare bits. */
#include "trainer/run/judge.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "trainer/run/exchange.h"

enum { KNOWN = 20 /* steps until deviations mean something */ };
static const double forget = 0.02; /* weight of a new loss */

void judge_accept(struct judge *j, double loss)
{
    double off = loss - j->mean;

    if (j->steps++ == 0) {
        j->mean = loss;
        return;
    }
    j->mean += forget * off;
    j->square = (1 - forget) * (j->square + forget * off * off);
}

bool judge_is_spike(struct judge *j, double loss, double limit, double *by)
{
    double dev = sqrt(j->square);

    *by = dev > 0 ? (loss - j->mean) / dev : 0;
    if (limit > 0 && j->steps >= KNOWN && *by > limit) return true;
    judge_accept(j, loss);
    return false;
}

kr_status judge_again(struct trainer *t, int64_t step, struct step_words words,
                      enum judge_nan *out, bool *suspect, struct step_words *all)
{
    size_t row = exchange_row_bytes(t);
    size_t ranks = (size_t)comm_size(t->comm), own = exchange_loss_bytes(t);
    struct step_stats stats;
    char *before = NULL;
    kr_status st;

    TRY(mem_alloc(&before, row, ranks, "the step's messages"));
    memcpy(before, t->all, row * ranks);
    st = trainer_step(t, step, words, &stats, all);
    *out = JUDGE_SAME;
    for (size_t r = 0; r < ranks && (st == KR_OK || st == KR_ERR_NUMERIC); r++) {
        size_t at = r * row + exchange_words_bytes();
        const char *now = (const char *)t->all + at;

        suspect[r] = memcmp(before + at, now, own) != 0;
        if (memcmp(before + at, now, row - exchange_words_bytes()) != 0)
            *out = JUDGE_OTHER;
    }
    mem_free(before);
    return st == KR_ERR_NUMERIC ? KR_OK : st;
}
