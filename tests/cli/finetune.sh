#!/bin/bash
# Fine-tuning: a run that starts from another's weights, on examples; epochs, the best
# checkpoint, the tokenizer that goes with a run; the same bits on two ranks and after a stop.
# usage: tests/cli/finetune.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

python3 - <<'END'
import json, random
rng = random.Random(1)
with open("ex.jsonl", "w") as f:
    for i in range(60):
        a, b = rng.randint(0, 99), rng.choice("abcdef")
        f.write(json.dumps({"prompt": f"say {b} {a}", "completion": f"{b * 3}{a}"}) + "\n")
END
# tune RANKS DIR ARGUMENT... - without the model's settings: they come with train.init
tune() {
    local ranks=$1 dir=$2 launch=()
    shift 2
    [ "$ranks" -gt 0 ] && launch=(mpirun -np "$ranks")
    timeout 60 "${launch[@]}" "$kilorank" train --run "$dir" --set train.init=base --set data.train=ex.jsonl \
        --set train.batch=4 --set train.micro_batch=1 --set optim.warmup=2 --set eval.every=4 \
        --set checkpoint.every=0 --set checkpoint.best=true --set data.epochs=4 "$@" >out 2>&1 </dev/null
}
train 0 base --set train.steps=20 || { cat out; exit 1; }

tuned() { tune 0 one && said 'weights of base/checkpoints/step-00000020, step 20' && said 'template plain'; }
check a_run_starts_from_the_weights_of_another tuned
model() { grep -q '^layers = 2' one/config.ini && grep -q '^dim = 64' one/config.ini; }
check the_model_is_that_of_the_weights model
first_loss() { # step 0 of a run that learns nothing is the base's own loss on the same rows
    tune 0 still --set optim.lr=0 --set optim.min_lr=0 --set optim.weight_decay=0 &&
        "$kilorank" eval base --data ex.jsonl >a 2>>out &&
        "$kilorank" eval still --data ex.jsonl >b 2>>out &&
        [ "$(sed 's/.*"loss"/"loss"/' a)" = "$(sed 's/.*"loss"/"loss"/' b)" ]
}
check nothing_is_lost_on_the_way first_loss
epochs() { # rows of 54 examples, four times, in batches of 4
    local rows
    rows=$(sed -n 's/.*data ex.jsonl: 54 examples in \([0-9]*\) rows.*/\1/p' out)
    [ -n "$rows" ] && [ "$(newest_of one)" -eq $(((4 * rows + 3) / 4)) ]
}
check epochs_decide_the_steps epochs
best() { # the lowest loss of all evaluations, and a checkpoint of its step
    python3 - <<'END'
import json
evals = [e for e in map(json.loads, open("one/log.jsonl")) if e.get("event") == "eval"]
best = min(evals, key=lambda e: e["valid_loss"])
note = json.load(open("one/best/best.json"))
assert note["step"] == best["step"] and abs(note["loss"] - best["valid_loss"]) < 1e-6, (note, best)
assert len(evals) > 2
END
    [ "$(newest_of one/best)" -eq "$(sed 's/.*"step": \([0-9]*\).*/\1/' one/best/best.json)" ] &&
        "$kilorank" eval one/best --data ex.jsonl >a 2>>out
}
check the_best_weights_are_kept best
ranks() { tune 2 two && [ "$(hash_of one)" = "$(hash_of two)" ] && [ "$(hash_of one/best)" = "$(hash_of two/best)" ]; }
check two_ranks_end_in_the_same_bits ranks
stopped() { # and the weights that it started from may be gone then
    tune 0 parts --set train.stop_after=5 && mv base elsewhere && tune 0 parts --set train.stop_after=0 &&
        [ "$(hash_of one)" = "$(hash_of parts)" ] && mv elsewhere base
}
check a_run_that_stopped_goes_on_to_the_same_bits stopped
missing() { ends_with 2 tune 0 none --set train.init=nowhere && said 'train.init = nowhere: no valid checkpoint' && [ ! -e none ]; }
check weights_that_are_not_there_are_one_line missing
other_shape() { ends_with 2 tune 0 none --set model.dim=32; }
check weights_of_another_shape_are_refused other_shape
speaks() { # a run keeps its tokenizer, also for those that start from it
    "$kilorank" tokenizer train "$top"/docs/*.md -o t.json --vocab 300 2>out &&
        train 0 spoken --set train.steps=2 --set data.tokenizer=t.json --set model.vocab=300 &&
        cmp -s t.json spoken/tokenizer.json && rm t.json &&
        tune 0 heir --set train.init=spoken --set data.epochs=1 && said 'template chatml' &&
        cmp -s spoken/tokenizer.json heir/tokenizer.json
}
check a_run_keeps_its_tokenizer speaks

finish
