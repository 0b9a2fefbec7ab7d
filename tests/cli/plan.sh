#!/bin/bash
# The memory plan: told before the first step, held against what there is, and without a run.
# usage: tests/cli/plan.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

told() { train 0 run --set train.steps=2 && said 'memory of a rank +weights +master .*sum +available' && said 'MiB +[0-9]'; }
check a_run_tells_its_memory_before_it_starts told

# 175 billion parameters
big=(--set model.layers=96 --set model.dim=12288 --set model.heads=96 --set model.kv_heads=0
    --set model.ffn=32768 --set model.context=2048 --set train.micro_batch=4)
refused() { # RANKS
    ends_with 2 train "$1" never "${big[@]}" && [ "$(grep -c 'error:' out)" -eq 1 ] && [ ! -e never ] &&
        said 'a rank needs [0-9.]+ GiB, and [0-9.]+ GiB are available' &&
        said 'train.recompute = full \([0-9.]+\), optim.moments = bf16'
}
check what_can_not_fit_is_refused_with_what_would_help refused 0
check on_two_ranks_too refused 2
check which_also_may_share_out_more said 'dist.shard = 3 \('

plan() { timeout 20 "$kilorank" train "$@" >out 2>&1 </dev/null; }
sum_of() { awk '/ MiB /{ print int($NF); exit }' out; }
planned() {
    local one many
    big+=(--set train.batch=4096 --set train.micro_batch=1 --set dist.shard=3 --set train.recompute=full)
    plan --plan 1 "${big[@]}" && one=$(sum_of) && plan --plan 1024 "${big[@]}" && many=$(sum_of) &&
        [ "$many" -gt 0 ] && [ "$((many * 20))" -lt "$one" ]
}
check a_plan_needs_no_run_and_no_ranks planned
check a_plan_is_for_a_number_of_ranks ends_with 2 plan --plan many
check a_plan_reads_settings_as_a_run_does ends_with 2 plan --plan 64 --set train.batch=8
finish
