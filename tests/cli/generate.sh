#!/bin/bash
# `generate` and `eval`: the same words for the same seed, clean output, numbers that agree.
# usage: tests/cli/generate.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

# A model that has learnt a little, so that its choices are not all alike, and an older one.
train 0 run --set train.steps=60 --set checkpoint.every=30 || { cat out; exit 1; }
older=run/checkpoints/step-00000030 newer=run/checkpoints/step-00000060

# write FILE ARGUMENT... - the text that a model writes; what it says goes to $work/out
write() {
    local file=$1
    shift
    timeout 20 "$kilorank" generate "$@" >"$file" 2>out </dev/null
}
alike() { cmp -s "$1" "$2"; }
differ() { ! cmp -s "$1" "$2"; }

# --- choices -------------------------------------------------------------------------------
same_seed() {
    write a run --tokens 60 --seed 7 && write b run --tokens 60 --seed 7 && [ -s a ] && alike a b
}
other_seed() { write b run --tokens 60 --seed 8 && differ a b; }
check the_same_seed_writes_the_same same_seed
check another_seed_writes_another_text other_seed

greedy() {
    write greedy run --tokens 40 --temperature 0 --prompt The --seed 1 &&
        write b run --tokens 40 --temperature 0 --prompt The --seed 2 && alike greedy b
}
top_one() { write b run --tokens 40 --top-k 1 --prompt The --seed 3 && alike greedy b; }
tiny_p() { write b run --tokens 40 --top-p 0 --prompt The --seed 4 && alike greedy b; }
not_all() { write b run --tokens 40 --prompt The --seed 3 && differ greedy b; }
check temperature_0_takes_the_likeliest_whatever_the_seed greedy
check top_k_of_one_is_the_likeliest top_one
check top_p_of_nothing_is_the_likeliest tiny_p
check without_them_choices_are_wider not_all

# fewer tokens of the same seed are the beginning of more
prefix() {
    write a run --tokens 30 --prompt The --seed 5 && write b run --tokens 10 --prompt The --seed 5 &&
        [ "$(wc -c <b)" -le 14 ] && cmp -s -n $(($(wc -c <b) - 1)) a b
}
check a_shorter_text_is_the_beginning_of_a_longer_one prefix

threads_alike() {
    write a run --tokens 30 --set run.threads=1 && write b run --tokens 30 --set run.threads=3 && alike a b
}
check threads_do_not_change_the_text threads_alike

# --- output --------------------------------------------------------------------------------
prompt_first() { write a run --tokens 5 --prompt 'Freedom and "quotes", ü' && [ "$(head -c 24 a)" = 'Freedom and "quotes", ü' ]; }
check the_prompt_comes_first prompt_first
only_text() { # prompt, 5 tokens of a byte each at most, a newline, and not a word on stderr
    write a run --tokens 5 --prompt abc --temperature 0 && [ ! -s out ] &&
        [ "$(wc -c <a)" -gt 4 ] && [ "$(wc -c <a)" -le 9 ] && [ "$(tail -c 1 a | xxd -p)" = 0a ]
}
check nothing_but_the_text_is_printed only_text
piped() { [ "$("$kilorank" generate run --tokens 300 --temperature 0 2>/dev/null | head -c 5 | wc -c)" -eq 5 ]; }
check a_reader_that_leaves_early_gets_what_it_read piped
full() { ends_with 6 write /dev/full run --tokens 5 && said 'error: standard output: '; }
check a_full_disk_is_no_success full

# --- which weights -------------------------------------------------------------------------
newest() { write a run --tokens 40 && write b "$newer" --tokens 40 && alike a b; }
named() { write b "$older" --tokens 40 && differ a b; }
check a_run_means_its_newest_checkpoint newest
check an_older_checkpoint_can_be_named named
longer_than_context() { write a run --tokens 20 --prompt "$(printf 'the %.0s' {1..50})" && [ "$(wc -c <a)" -gt 200 ]; }
check a_prompt_may_be_longer_than_the_context longer_than_context
unchanged() { [ "$(find run -type f -exec md5sum {} + | sort)" = "$before" ]; }
before=$(find run -type f -exec md5sum {} + | sort)
write a run --tokens 1
check reading_a_run_writes_nothing_there unchanged

# --- eval ----------------------------------------------------------------------------------
# evaluate RANKS FILE ARGUMENT...
evaluate() {
    local ranks=$1 file=$2 launch=()
    shift 2
    [ "$ranks" -gt 0 ] && launch=(mpirun -np "$ranks")
    timeout 30 "${launch[@]}" "$kilorank" eval "$@" >"$file" 2>out </dev/null
}
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }
consistent() {
    evaluate 0 one run && python3 - one <<'END'
import json, math, sys
got = json.load(open(sys.argv[1]))
assert sorted(got) == ["loss", "perplexity", "step", "tokens"], got
assert got["step"] == 60 and got["tokens"] > 10000 and 1 < got["loss"] < 5.5, got
assert abs(math.exp(got["loss"]) / got["perplexity"] - 1) < 1e-7, got
END
}
check eval_prints_loss_and_its_perplexity consistent
logged() { # the loss that training found at its end, on the same tokens
    local loss
    loss=$(sed -n 's/.*"event":"eval","step":60,"valid_loss":\([0-9.]*\),.*/\1/p' run/log.jsonl)
    [ -n "$loss" ] && [ "$loss" = "$(field one loss)" ]
}
check eval_finds_what_training_found_at_its_end logged
on_two() { evaluate 2 two run && alike one two; }
check eval_on_two_ranks_prints_the_same_once on_two
older_is_worse() {
    evaluate 0 old "$older" && [ "$(field old step)" -eq 30 ] &&
        python3 -c 'import sys; sys.exit(not float(sys.argv[1]) > float(sys.argv[2]))' "$(field old loss)" "$(field one loss)"
}
check eval_of_an_older_checkpoint_is_worse older_is_worse
own_data() { # 101 tokens: one window of 64 and its labels
    printf '%0100d' 0 | tr 0 a >mine.txt
    evaluate 0 mine run --data mine.txt && [ "$(field mine tokens)" -eq 64 ]
}
check eval_reads_other_data own_data

# --- nothing to read -----------------------------------------------------------------------
damaged() { # every manifest broken: 3, and the line names the run
    cp -r run broken
    for m in broken/checkpoints/step-*/manifest.json; do printf '{' >"$m"; done
    ends_with 3 evaluate 0 a broken && said '^kilorank: error: broken: 2 checkpoints, none of them valid' &&
        ends_with 3 write a broken && [ ! -s a ] && said 'none of them valid'
}
check no_valid_checkpoint_is_an_error_of_its_own damaged
previous() { # the newest broken: the one before it is used
    cp -r run half
    printf '{' >half/checkpoints/step-00000060/manifest.json
    write b "$older" --tokens 40 && write a half --tokens 40 && alike a b
}
check a_broken_newest_checkpoint_is_passed_over previous

finish
