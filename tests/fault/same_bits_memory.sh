#!/bin/bash
# What saves memory costs no promise: for each way to store state, the same bits on any
# number of ranks, in any stage, and after a resume.
# LIMIT: 240
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

# begin ARGUMENT... - a reference on one rank; what follows must end in its bits
begin() {
    how=("$@")
    rm -rf "$work/reference"
    train 0 "$work/reference" "${how[@]}"
    want=$(hash_of "$work/reference")
}
ends_alike() { # RANKS DIR ARGUMENT...
    train "$1" "$2" "${how[@]}" "${@:3}" && [ "$(hash_of "$2")" = "$want" ]
}
same() { # NAME RANKS ARGUMENT...
    rm -rf "$work/run"
    check "$1" ends_alike "$2" "$work/run" "${@:3}"
}
moved() { # other ranks and another stage at each resume
    rm -rf "$work/moved"
    train 4 "$work/moved" "${how[@]}" --set train.stop_after=13 --set dist.shard=3 &&
        train 2 "$work/moved" "${how[@]}" --set train.stop_after=27 --set dist.shard=0 &&
        ends_alike 3 "$work/moved" --set train.stop_after=0 --set dist.shard=2
}

begin
plain=$want
same recomputed_norms_and_activations 2 --set train.recompute=selective
same recomputed_blocks 3 --set train.recompute=full
same recomputed_blocks_in_guarded_memory 0 --set train.recompute=full --set run.device=guard

for stage in 2 3; do
    same "stage_${stage}_on_one_rank" 0 --set "dist.shard=$stage"
    same "stage_${stage}_on_two_ranks" 2 --set "dist.shard=$stage"
    same "stage_${stage}_on_four_ranks" 4 --set "dist.shard=$stage"
    same "stage_${stage}_on_three_ranks_whose_last_round_is_not_full" 3 --set "dist.shard=$stage"
    same "stage_${stage}_in_guarded_memory" 2 --set "dist.shard=$stage" --set run.device=guard
done
same evaluation_between_steps_of_stage_3 3 --set dist.shard=3 --set eval.every=7
same recomputed_blocks_of_gathered_weights 2 --set dist.shard=3 --set train.recompute=full
check resumed_on_other_ranks_and_other_stages moved

begin --set model.family=gpt2 --set model.kv_heads=0
same tied_weights_in_stage_3 2 --set dist.shard=3
same tied_weights_in_stage_2_on_three_ranks 3 --set dist.shard=2

# Sizes that leave gaps between parameters, which must not count.
begin --set model.dim=56 --set model.ffn=100
same gaps_in_stage_3 2 --set dist.shard=3

begin --set run.precision=bf16
check bf16_is_no_fp32 [ "$want" != "$plain" ]
same bf16_on_three_ranks 3
same bf16_on_four_ranks_that_shard_nothing 4 --set dist.shard=0
same bf16_with_three_threads 0 --set run.threads=3
same bf16_in_stage_3 4 --set dist.shard=3
check bf16_resumed_on_other_ranks moved

begin --set optim.moments=bf16
check bf16_moments_are_others [ "$want" != "$plain" ]
same bf16_moments_on_three_ranks 3
same bf16_moments_on_four_ranks_that_shard_nothing 4 --set dist.shard=0
same bf16_moments_in_guarded_memory 2 --set run.device=guard
check bf16_moments_resumed_on_other_ranks moved

begin --set train.grads=bf16
check bf16_gradients_are_others [ "$want" != "$plain" ]
same bf16_gradients_on_three_ranks 3
same bf16_gradients_on_four_ranks_that_shard_nothing 4 --set dist.shard=0
same bf16_gradients_in_stage_2 4 --set dist.shard=2
same bf16_gradients_in_stage_3_on_three_ranks 3 --set dist.shard=3

begin --set train.grads=bf16 --set optim.moments=bf16 --set run.precision=bf16 --set train.recompute=full
same all_that_saves_memory_on_two_ranks 2
same all_that_saves_memory_in_stage_3 3 --set dist.shard=3
check all_that_saves_memory_resumed_on_other_ranks moved
# Two ranks of stage 3 are killed as soon as there is a checkpoint, and started again.
killed() {
    local dir=$work/killed pids launcher i
    rm -rf "$dir"
    mpirun -np 2 "$kilorank" train --run "$dir" "${tiny[@]}" "${how[@]}" --set dist.shard=3 \
        --set checkpoint.every=5 >"$work/out" 2>&1 </dev/null &
    launcher=$!
    for ((i = 0; i < 2000; i++)); do
        [ -n "$(steps_of "$dir")" ] && break
        sleep 0.01
    done
    mapfile -t pids < <(workers "$dir")
    [ ${#pids[@]} -eq 2 ] && kill -KILL "${pids[@]}"
    wait "$launcher" 2>/dev/null
    [ "$(newest_of "$dir")" -lt 40 ] && ends_alike 2 "$dir" --set dist.shard=3
}
check all_that_saves_memory_killed_and_started_again killed
finish
