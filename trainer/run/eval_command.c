/* eval_command.c - `eval`: how good a checkpoint is, on tokens or on questions. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/log.h"
#include "base/options.h"
#include "scheduler/exitcode.h"
#include "trainer/run/commands.h"
#include "trainer/run/eval_choices.h"
#include "trainer/run/eval_match.h"
#include "trainer/run/load.h"

struct eval_args {
    char data[SETTINGS_TEXT], match[SETTINGS_TEXT], choices[SETTINGS_TEXT],
        out[SETTINGS_TEXT];
    int64_t batches, tokens;
};

/* clang-format off */
static const struct cfg_field eval_options[] = {
    CFG_TEXT(struct eval_args, data, "data", "", "tokens to read; empty: what the run holds out"),
    CFG_INT (struct eval_args, batches, "batches", "0", 0, 1e12, "batches of train.batch sequences; 0: all"),
    CFG_TEXT(struct eval_args, match, "match", "", "records with answers (*.jsonl): how many does it answer exactly so?"),
    CFG_INT (struct eval_args, tokens, "tokens", "256", 1, 1e6, "most tokens of such an answer"),
    CFG_TEXT(struct eval_args, out, "out", "", "where those records go, with \"generated\" added"),
    CFG_TEXT(struct eval_args, choices, "choices", "", "multiple choice by likelihood: HellaSwag-style *.jsonl, or llm.c's *.bin"),
    { .name = NULL },
};
/* clang-format on */

static void help(FILE *out)
{
    fprintf(
        out,
        "usage: kilorank eval DIR [--data PATH | --match FILE | --choices FILE]\n"
        "                         [--set section.key=value]...\n\n"
        "How good the newest valid checkpoint of run DIR is, or checkpoint DIR, as one "
        "JSON\n"
        "object: mean loss (nats per token) and perplexity; exact match of generated\n"
        "answers; or accuracy on multiple choice.  Works on several ranks:\n\n"
        "  mpirun -np 4 kilorank eval runs/a --data valid.bin\n"
        "  kilorank eval runs/a --match held-out.jsonl\n\nOptions:\n");
    cfg_help(eval_options, out);
}

static kr_status open_data(struct loaded *l, const struct eval_args *a)
{
    return a->data[0] ? trainer_open_valid(&l->trainer, a->data)
                      : trainer_open_data(&l->trainer);
}

static kr_status evaluate_loss(struct loaded *l, struct comm *c, const struct options *o,
                               const struct eval_args *a)
{
    int64_t tokens;
    double loss;

    TRY(open_data(l, a));
    if (!l->trainer.valid)
        return comm_rank(c)
                   ? KR_ERR_ARG
                   : KR_FAIL(KR_ERR_ARG, "%s: the run holds nothing out; give --data",
                             o->path);
    TRY(trainer_eval(&l->trainer, l->trainer.valid, a->batches, &loss, &tokens));
    if (comm_rank(c) == 0)
        printf("{\"step\": %" PRId64
               ", \"loss\": %.9g, \"perplexity\": %.9g, \"tokens\": %" PRId64 "}\n",
               l->step, loss, exp(loss), tokens);
    return KR_OK;
}

static kr_status evaluate(struct loaded *l, struct comm *c, const struct options *o,
                          const struct eval_args *a)
{
    TRY(load_model(l, c, o->path, o->sets, o->set_count));
    if (a->match[0]) return eval_match(l, c, a->match, a->tokens, a->out);
    if (a->choices[0]) return eval_choices(l, c, a->choices);
    return evaluate_loss(l, c, o, a);
}

int eval_command(int argc, char **argv)
{
    struct loaded l = { 0 };
    struct options o;
    struct eval_args a;
    struct settings set;
    struct comm *c = NULL;
    kr_status st;

    if (options_read(argc, argv, eval_options, &a, &o) != KR_OK) return EXIT_USAGE;
    if (o.help) {
        help(stdout);
        return EXIT_DONE;
    }
    if (!o.path) {
        (void)KR_FAIL(KR_ERR_ARG, "eval: DIR is missing");
        return EXIT_USAGE;
    }
    if (load_check_sets(o.sets, o.set_count, &set) != KR_OK) return EXIT_USAGE;
    st = start_comm(&c, &set);
    if (st != KR_OK) return exit_code_of(st);
    st = evaluate(&l, c, &o, &a);
    load_close(&l);
    return end_comm(c, st, st == KR_ERR_ARG || st == KR_ERR_NO_CKPT, exit_code_of(st));
}
