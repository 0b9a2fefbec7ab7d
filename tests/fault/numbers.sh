#!/bin/bash
# Wrong numbers: a flipped bit of a weight, a loss that is not a number once or always, a
# spike.  What is repeatable is policy, what is not is the hardware, and no bad state is kept.
# LIMIT: 180
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

mem=$work/mem
mkdir "$mem"
tiny+=(--set snapshot.every=4 --set snapshot.dir="$mem" --set dist.timeout=20)
train 0 "$work/whole" || true
want=$(hash_of "$work/whole")
run=$work/run
faulty() { # faulty FAULT RANKS [ARGUMENT...]
    local fault=$1 ranks=$2
    shift 2
    rm -rf "$run" "${mem:?}"/*
    KILORANK_NUMERIC_FAULT=$fault train "$ranks" "$run" "$@"
}
event() { grep -q "\"event\":\"$1\"" "$run/log.jsonl"; }
goes_on() { train "$1" "$run" "${@:2}" && [ "$(hash_of "$run")" = "$want" ]; }
right() { [ "$(hash_of "$run")" = "$want" ]; }

# Where it goes back to is the newest snapshot that all ranks have written; on a crowded machine
# that may be the one before.
# --- bits of weights that all ranks hold -------------------------------------------------
whole=(--set dist.shard=0 --set checkpoint.every=20)
flip_of_three() { # the snapshot of step 12 is the first after it
    ends_with 7 faulty flip:11:1:3 3 "${whole[@]}" && event corruption &&
        said 'rank 1 holds other bits' && said 'rank 1 on node .* is suspect' &&
        goes_on 3 "${whole[@]}" && said 'resumed at step [48] from node memory'
}
check a_flipped_bit_is_found_and_its_rank_is_named flip_of_three
flip_before_save() { # step 20 is saved to disk, and 18 is not a step of snapshots
    ends_with 7 faulty flip:18:2:0 3 --set dist.shard=0 --set snapshot.every=0 &&
        [ "$(newest_of "$run")" = 10 ] && goes_on 3 --set dist.shard=0 --set snapshot.every=0
}
check a_flipped_bit_is_never_saved_to_disk flip_before_save
flip_of_two() {
    faulty flip:11:1:3 2 "${whole[@]}" && event corruption && event rollback &&
        said 'went back from step 13 to [48], from memory' && right
}
check two_ranks_that_differ_both_go_back flip_of_two

# --- not a number ------------------------------------------------------------------------
once() { ends_with 7 faulty nan:9:1 3 && event hardware && said 'rank 1 on node .* is suspect' && goes_on 3; }
check another_result_the_second_time_is_the_hardware once
alone() { ends_with 7 faulty nan:9:0 0 && event hardware && goes_on 0; }
check also_on_one_rank alone
always() {
    ends_with 5 faulty nan:9:1:1 2 && said 'step 9: loss .*nan.* twice the same' &&
        [ "$(grep -c 'twice the same' "$work/out")" -eq 1 ] && goes_on 2
}
check the_same_result_twice_stops_the_run always
back_and_stop() {
    ends_with 5 faulty nan:9:0:1 0 --set train.on_nan=rollback &&
        said 'went back from step 8 to [48], from memory' && said 'from start values' && goes_on 0
}
check policy_rollback_goes_back_to_memory_then_to_disk_then_stops back_and_stop
left_out() { faulty nan:9:0:1 2 --set train.on_nan=skip && event skip && [ "$(newest_of "$run")" = 40 ] && ! right; }
check policy_skip_leaves_the_step_out left_out

# --- spikes ------------------------------------------------------------------------------
noted() { faulty spike:30:0 2 && event spike && said 'step 30: loss .* deviations above' && right; }
check a_spike_is_told_and_training_goes_on noted
retried() {
    faulty spike:30:0 2 --set train.on_spike=rollback && event spike && event rollback &&
        said 'went back from step 30 to 2[48], from memory' && right
}
check a_spike_that_does_not_come_again_is_gone retried
kept() { faulty spike:30:0:1 2 --set train.on_spike=rollback && said 'again: it is the data'; }
check a_spike_that_comes_again_is_the_data kept
no_alarm() { train 2 "$work/calm" && ! grep -q '"event":"spike"\|"event":"corruption"\|"event":"hardware"' "$work/calm/log.jsonl"; }
check a_healthy_run_has_no_alarm no_alarm
bad_fault() { ends_with 2 faulty flop:1:2 0; }
check a_fault_that_does_not_exist_is_refused bad_fault
finish
