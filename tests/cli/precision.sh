#!/bin/bash
# Mixed precision: bf16 beside fp32 in one run's loss, one checkpoint for both, the same
# bits on one rank and on two.
# usage: tests/cli/precision.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

bf16=(--set run.precision=bf16)
train 0 fp32 || { cat out; exit 1; }
train 0 bf16 "${bf16[@]}" || { cat out; exit 1; }
want=$(hash_of bf16)

# losses DIR - of every step, in order
losses() { grep -o '"loss":[^,]*' "$1/log.jsonl" | cut -d: -f2; }
near() { # each loss within 1 % of the other run's, not all of them equal
    paste <(losses "$1") <(losses "$2") | awk '
        { d = $1 - $2; if (d < 0) d = -d; if (d > 0.01 * $1) bad = 1; if (d > 0) off = 1 }
        END { exit bad || !off || NR < 40 }'
}
check bf16_learns_as_fp32_does near fp32 bf16
differ_in_hash() { [ "$want" != "$(hash_of fp32)" ]; }
check bf16_is_another_run differ_in_hash

ends_alike() { # RANKS DIR ARGUMENT... - a run in bf16 that ends in the same bits
    train "$@" "${bf16[@]}" && [ "$(hash_of "$2")" = "$want" ]
}
check two_ranks_end_in_the_same_bits ends_alike 2 two
check two_ranks_that_shard_nothing_too ends_alike 2 whole --set dist.shard=0
resumed() {
    train 0 halves "${bf16[@]}" --set train.stop_after=17 && ends_alike 0 halves --set train.stop_after=0
}
check a_resumed_run_ends_in_the_same_bits resumed

# The checkpoint holds fp32 master weights whatever the precision.
same_types() {
    "$kilorank" ckpt show fp32 >a && "$kilorank" ckpt show bf16 >b && grep -q weight/ a &&
        [ "$(grep -c f32 a)" -gt 0 ] && [ "$(grep -c f32 a)" -eq "$(grep -c f32 b)" ]
}
check checkpoints_do_not_tell_the_precision same_types
other_precision() {
    train 0 fp32 "${bf16[@]}" --set train.steps=50 && train 2 bf16 --set train.steps=50 \
        --set run.precision=fp32 && near fp32 bf16
}
check a_run_goes_on_in_the_other_precision other_precision

evaluates() {
    timeout 20 "$kilorank" eval bf16 "${bf16[@]}" >narrow 2>out && timeout 20 "$kilorank" eval bf16 \
        --set run.precision=fp32 >wide 2>>out && [ "$(paste <(grep -o 'loss": [0-9.]*' narrow) \
        <(grep -o 'loss": [0-9.]*' wide) | awk '{ d = $2 - $4; if (d < 0) d = -d; print (d < 0.02 && d > 0) }')" = 1 ]
}
check eval_in_bf16_is_near_eval_in_fp32 evaluates
writes() {
    timeout 20 "$kilorank" generate bf16 "${bf16[@]}" --tokens 20 >text 2>out && [ -s text ]
}
check generate_works_in_bf16 writes

# Moments in bf16, beside weights in fp32.
moments=(--set optim.moments=bf16)
halved() {
    train 0 moments "${moments[@]}" && near fp32-again moments &&
        [ "$(stat -c %s moments/checkpoints/step-00000040/*.h5 | sort -n | tail -n 1)" -lt \
            $(($(stat -c %s fp32-again/checkpoints/step-00000040/*.h5 | sort -n | tail -n 1) * 7 / 10)) ]
}
train 0 fp32-again
check bf16_moments_learn_as_fp32_does_in_less_space halved
check a_run_keeps_its_kind_of_moments ends_with 2 train 0 moments \
    --set train.steps=50 --set optim.moments=fp32

# Sums of gradients in bf16, on two ranks that share out gradients and weights.
gradients() { train 2 grads --set train.grads=bf16 --set dist.shard=3 && near fp32-again grads; }
check bf16_gradients_learn_as_fp32_does gradients

refuses() { # TEXT ARGUMENT... - one line, code 2
    local text=$1
    shift
    ends_with 2 train 0 never "$@" && said "$text" && [ ! -e never ]
}
check guarded_memory_has_no_bf16 refuses 'run.precision = bf16 .*guard' "${bf16[@]}" --set run.device=guard
check double_precision_is_no_fp32 refuses 'run.precision = fp32 .*cpu64' --set run.precision=fp32 --set run.device=cpu64
check double_precision_has_no_bf16_moments refuses 'optim.moments = bf16 .*cpu64' "${moments[@]}" --set run.device=cpu64
check double_precision_has_no_bf16_gradients refuses 'train.grads = bf16 .*cpu64' --set train.grads=bf16 --set run.device=cpu64
check bf16_gradients_belong_to_the_canonical_order refuses 'train.grads = bf16 needs dist.reduce = canonical' \
    --set train.grads=bf16 --set dist.reduce=library
check back_ends_are_no_devices refuses 'run.device = cpu16' --set run.device=cpu16
finish
