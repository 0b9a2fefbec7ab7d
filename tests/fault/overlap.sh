#!/bin/bash
# A slow link is hidden behind the backward and the next forward: what each collective sends
# takes as long as at $rate, and the compute queue waits for little of it.
# ALONE: it measures time
# LIMIT: 150
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

rate=120 steps=10 # MiB/s
deep=("${tiny[@]}" --set model.layers=8 --set model.dim=192 --set model.ffn=512
    --set train.batch=2 --set train.steps="$steps" --set checkpoint.every=0
    --set data.held_out=0.02 --set run.tensorboard=false)

# best DIR MEMBER - the least of log.jsonl over steps, without the first three: buffers are
# new.  Other work on this machine can only lengthen a wait.
best() {
    sed -n "s/^{\"step\":.*\"$2\":\([0-9.]*\).*/\1/p" "$1/log.jsonl" | tail -n +4 | sort -n |
        head -n 1
}
# exposed CONTEXT [ARGUMENT...] - ms per step that compute stood still; sets `shown`
exposed() {
    local context=$1 dir=$work/run
    shift
    rm -rf "$dir"
    tiny=("${deep[@]}")
    train 2 "$dir" --set model.context="$context" --set dist.fault=slow:"$rate" "$@" || return 1
    [ "$(grep -c '^{"step"' "$dir/log.jsonl")" -eq "$steps" ] || return 1
    shown=$(best "$dir" comm_exposed_ms)
    echo "# context $context $*: step $(best "$dir" step_ms) ms, exposed $shown ms"
}
holds() { awk "BEGIN { exit !($1) }"; }

# Each of two ranks sends half of the gradient and half of the weights: 4 bytes a parameter.
nothing_to_hide_behind() {
    local millions
    exposed 8 || return 1
    millions=$(sed -n 's/.* \([0-9.]*\)M parameters.*/\1/p' "$work/out")
    transfer=$(awk "BEGIN { print $millions * 4e6 / ($rate * 1048576) * 1e3 }")
    echo "# $millions million parameters: $transfer ms of transfer in each step"
    holds "$shown > 0.8 * $transfer && $shown < 3 * $transfer"
}
hidden() { exposed 1024 "$@" && holds "$shown < 0.4 * $transfer"; }

check without_compute_all_of_it_shows nothing_to_hide_behind
check most_is_hidden_behind_compute hidden
check most_is_hidden_without_sharding hidden --set dist.shard=0
check most_is_hidden_where_weights_are_gathered hidden --set dist.shard=3
check most_is_hidden_in_library_order hidden --set dist.reduce=library
finish
