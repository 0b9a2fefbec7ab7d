/* eval_choices.c - one forward an ending. */
#include "trainer/run/eval_choices.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "trainer/data/choices.h"
#include "trainer/run/speech.h"

struct score {
    int64_t right, right_norm;
};

/* Loss of ending i of q, summed over its tokens (*count of them that fit). */
static kr_status ending_loss(struct trainer *t, const struct choices *c,
                             const struct choice_question *q, int32_t i, double *loss,
                             int64_t *count)
{
    int64_t context = t->set.context, end = q->ending_len[i];
    int64_t before = q->context_len, n;
    struct batch b = { .token = t->token, .label = t->label, .sequences = 1 };

    if (end > context) end = context;
    if (before + end > context + 1) before = context + 1 - end;
    n = before + end - 1;
    *count = before > 0 ? end : end - 1;
    if (*count < 1)
        return KR_FAIL(KR_ERR_ARG, "a question with an empty context or ending");
    for (int64_t k = 0; k <= n; k++) {
        int32_t id = k < before ? c->ids.at[q->context + q->context_len - before + k]
                                : c->ids.at[q->ending[i] + k - before];

        if (k < n) t->token_host[k] = id;
        if (k > 0) t->label_host[k - 1] = k < before ? KERN_IGNORE : id;
    }
    b.seq = n;
    TRY(kern_upload(t->q, t->token, t->token_host, (size_t)n * sizeof(int32_t)));
    TRY(kern_upload(t->q, t->label, t->label_host, (size_t)n * sizeof(int32_t)));
    TRY(model_eval(t->model, shard_weights(t->shard), &b, t->loss));
    TRY(kern_download(t->q, loss, t->loss, sizeof *loss));
    return kern_queue_sync(t->q);
}

static kr_status judge(struct trainer *t, const struct choices *c,
                       const struct choice_question *q, struct score *s)
{
    double best = 0, best_norm = 0;
    int32_t choice = 0, choice_norm = 0;

    for (int32_t i = 0; i < q->count; i++) {
        double loss, norm;
        int64_t count;

        TRY(ending_loss(t, c, q, i, &loss, &count));
        norm = loss / (double)count;
        if (i == 0 || loss < best) {
            best = loss;
            choice = i;
        }
        if (i == 0 || norm < best_norm) {
            best_norm = norm;
            choice_norm = i;
        }
    }
    s->right += choice == q->label;
    s->right_norm += choice_norm == q->label;
    return KR_OK;
}

static void tell(int64_t done, int64_t all, double *told)
{
    bool terminal = isatty(STDERR_FILENO);

    if (done < all && clock_now() - *told < (terminal ? 0.2 : 5)) return;
    *told = clock_now();
    fprintf(stderr, "%s%" PRId64 " of %" PRId64 " questions%s",
            terminal ? "\r\033[K" : "", done, all, terminal && done < all ? "" : "\n");
}

static kr_status judge_own(struct trainer *t, struct comm *comm, const struct choices *c,
                           struct score *mine)
{
    int32_t rank = comm_rank(comm), size = comm_size(comm);
    double told = clock_now();

    for (int64_t i = rank; i < c->count; i += size) {
        TRY(judge(t, c, &c->list[i], mine));
        if (rank == 0) tell(i + size < c->count ? i + 1 : c->count, c->count, &told);
    }
    return KR_OK;
}

static kr_status read_questions(struct loaded *l, const char *path, struct choices *c)
{
    struct tokenizer *t = NULL;
    kr_status st = speech_open(&t, &l->set);

    if (st == KR_OK) st = choices_read(c, path, t, l->set.vocab);
    tokenizer_close(t);
    return st;
}

static kr_status report(const struct loaded *l, struct comm *comm, int64_t questions,
                        const struct score *mine)
{
    struct score *all = NULL, sum = { 0 };
    kr_status st;

    TRY(mem_alloc(&all, (size_t)comm_size(comm), sizeof *all, "scores"));
    st = comm_all_gather_bytes(comm, mine, sizeof *mine, all);
    for (int32_t r = 0; r < comm_size(comm) && st == KR_OK; r++) {
        sum.right += all[r].right;
        sum.right_norm += all[r].right_norm;
    }
    if (st == KR_OK && comm_rank(comm) == 0)
        printf("{\"step\": %" PRId64 ", \"questions\": %" PRId64
               ", \"acc\": %.6g, \"acc_norm\": %.6g}\n",
               l->step, questions, (double)sum.right / (double)questions,
               (double)sum.right_norm / (double)questions);
    mem_free(all);
    return st;
}

kr_status eval_choices(struct loaded *l, struct comm *comm, const char *path)
{
    struct choices c = { 0 };
    struct score mine = { 0 };
    bool first = comm_rank(comm) == 0;
    kr_status st;

    TRY_OR(st, comm_agree(comm, first ? read_questions(l, path, &c) : KR_OK), done);
    TRY_OR(st, comm_agree(comm, first ? KR_OK : read_questions(l, path, &c)), done);
    TRY_OR(st, comm_agree(comm, judge_own(&l->trainer, comm, &c, &mine)), done);
    st = report(l, comm, c.count, &mine);
done:
    choices_free(&c);
    return st;
}
