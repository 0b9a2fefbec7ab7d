#!/bin/bash
# The same bits however a run is spread: ranks, sharding, threads, device, saves, resumes.
# LIMIT: 240
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

# same NAME RANKS [ARGUMENT...] - a run from the start that must end in $want
same() {
    local name=$1 ranks=$2 dir=$work/run
    shift 2
    rm -rf "$dir"
    ends_in() { train "$ranks" "$dir" "$@" && [ "$(hash_of "$dir")" = "$want" ]; }
    check "$name" ends_in "$@"
}

train 0 "$work/reference"
want=$(hash_of "$work/reference")
check a_run_has_a_hash [ ${#want} -eq 32 ]

same one_rank_under_mpirun 1
same two_ranks 2
same three_ranks_that_share_unevenly 3
same four_ranks 4
same eight_ranks_of_one_micro_batch_each 8
same whole_optimizer_state_on_each_of_two 2 --set dist.shard=0
same whole_optimizer_state_on_each_of_four 4 --set dist.shard=0
same one_rank_that_shards_nothing 0 --set dist.shard=0
same three_threads 0 --set run.threads=3
same two_ranks_of_two_threads 2 --set run.threads=2
same guarded_memory 0 --set run.device=guard
same guarded_memory_on_two_ranks 2 --set run.device=guard
same saves_that_training_waits_for 2 --set checkpoint.async=false --set checkpoint.every=3
same no_saves_but_the_last 2 --set checkpoint.every=0
same evaluation_between_steps 2 --set eval.every=7

# A run that changes its number of ranks and its stage on the way.
moved() {
    local dir=$work/moved
    train 2 "$dir" --set train.stop_after=11 --set dist.shard=0 &&
        train 4 "$dir" --set train.stop_after=23 &&
        train 3 "$dir" --set train.stop_after=31 --set run.device=guard &&
        train 0 "$dir" --set train.stop_after=0 --set run.device=cpu && [ "$(hash_of "$dir")" = "$want" ]
}
check resumed_on_other_ranks_and_another_stage moved

# The library's order depends on how many ranks there are, and a run that changes that says so.
few=(--set dist.reduce=library --set train.steps=6)
told() {
    local dir=$work/told
    train 2 "$dir" "${few[@]}" --set train.stop_after=2 && train 2 "$dir" "${few[@]}" --set train.stop_after=4 &&
        ! said 'the bits are others' && train 3 "$dir" "${few[@]}" --set train.stop_after=0 &&
        said '2 ranks computed step 4, 3 go on: .* the bits are others'
}
check other_ranks_under_the_librarys_sum_are_told told

# Steps before the last, too: each checkpoint of one run against that of the other.
all_steps_alike() {
    local step
    train 4 "$work/four" || return 1
    [ "$(steps_of "$work/four" | tr '\n' ' ')" = "10 20 30 40 " ] || return 1
    for step in 10 20 30 40; do
        [ "$(hash_of "$(step_dir "$work/four" "$step")")" = \
            "$(hash_of "$(step_dir "$work/reference" "$step")")" ] || return 1
    done
}
check every_checkpoint_of_four_ranks_is_that_of_one all_steps_alike
same_tensors() { "$kilorank" ckpt diff "$work/four" "$work/reference" >"$work/out" 2>&1; }
check no_tensor_differs same_tensors

# Other families, with what they alone have: biases, learned positions, tied heads; a norm of
# the embedding, whose gradient meets that of the head in one unit; sandwich norms.
llama=$want
family() { # family NAME [ARGUMENT...]
    local name=$1
    shift
    train 0 "$work/$name" --set model.family="$name" "$@"
    want=$(hash_of "$work/$name")
    check "${name}_is_another_hash_than_llama" [ "$want" != "$llama" ]
    same "${name}_on_three_guarded_ranks" 3 --set model.family="$name" --set run.device=guard "$@"
}
family gpt2 --set model.kv_heads=0
family bloom --set model.kv_heads=0 --set train.steps=10
family glm4 --set train.steps=10

# And a hash that tells runs apart.
train 0 "$work/seed" --set train.seed=2
check another_seed_is_another_hash [ "$(hash_of "$work/seed")" != "$llama" ]
train 0 "$work/order" --set data.seed=2
check another_order_is_another_hash [ "$(hash_of "$work/order")" != "$llama" ]
train 0 "$work/longer" --set optim.lr=3.0001e-3
check a_ten_thousandth_of_the_learning_rate_is_another_hash [ "$(hash_of "$work/longer")" != "$llama" ]
finish
