#!/bin/bash
# The CUDA worker without a GPU: what it says where none, an old or a small one is, and
# training on the emulated one (tests/emu), whose losses are those of the CPU.
# usage: tests/cli/gpu.sh [BUILD_DIR]
# shellcheck source=tests/cli/gpu.bash
. "$(dirname "$0")/gpu.bash"

# says CODE LINE ENVIRONMENT... WORKER - one error line, that exit code, nothing written
says() {
    local code=$1 line=$2
    shift 2
    timeout 20 env "$@" train --run none --set run.device=cuda >out 2>&1
    [ $? -eq "$code" ] && [ ! -e none ] && [ "$(grep -c error: out)" -eq 1 ] &&
        grep -qE "error: .*$line" out
}

# The second rank of a node with one GPU.
two_ranks() {
    timeout 30 env EMU_GPUS=1 mpirun -np 2 "$emulated" train --run none "${small[@]}" \
        --set data.train=text --set run.device=cuda >out 2>&1
    [ $? -eq 7 ] && grep -q 'error: rank 1 of this node has no GPU: it sees 1' out
}

loss() { # DEVICE PRECISION - the last loss
    timeout 60 "$emulated" train --run "run-$1-$2" "${small[@]}" --set data.train=text \
        --set run.device="$1" --set run.precision="$2" >out 2>&1 || return 1
    sed -n 's/^step 2\/2  loss \([0-9.]*\) .*/\1/p' out
}

# Heads of 64 in bf16: Hopper's kernels compute, say so, and the losses are the CPU's.
hopper() {
    timeout 60 env EMU_TELL=1 "$emulated" train --run run-hopper "${small[@]}" --set data.train=text \
        --set run.device=cuda --set kernels.hopper=on >out 2>&1 &&
        grep -q 'products by our Hopper kernels, attention by our Hopper kernels' out &&
        [ "$(sed -n 's/^emulated GPU: \([0-9]*\) launches of kernels for Hopper$/\1/p' out)" -gt 20 ] &&
        near "$(sed -n 's/^step 2\/2  loss \([0-9.]*\) .*/\1/p' out)" "$cpu16"
}

# Recomputed activations have the bits that the epilogue of a product made; two layers, for the
# last one's are still there.
recomputed() {
    local family how
    for family in llama gpt2; do
        for how in none selective; do
            timeout 60 "$emulated" train --run "again-$family-$how" "${small[@]}" --set data.train=text \
                --set run.device=cuda --set kernels.hopper=on --set model.family="$family" --set model.layers=2 \
                --set train.steps=1 --set train.recompute="$how" >out 2>&1 || return 1
        done
        [ "$("$kilorank" ckpt hash "again-$family-none")" = "$("$kilorank" ckpt hash "again-$family-selective")" ] || return 1
    done
}

no_hopper() { # PRECISION WHY ENVIRONMENT... - kernels.hopper = on is refused
    local precision=$1 why=$2
    shift 2
    timeout 20 env "$@" "$emulated" train --run none "${small[@]}" --set data.train=text --set run.device=cuda \
        --set run.precision="$precision" --set kernels.hopper=on >out 2>&1
    [ $? -eq 7 ] && [ ! -e none ] && grep -q "error: kernels.hopper = on: .*$why" out
}

# near A B - within 2 in the third decimal
near() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 4e-6) }'; }

check no_driver says 7 'no NVIDIA driver' EMU_DRIVER=0 "$emulated"
check old_driver says 7 'made for CUDA 12.2, this program for 13.0' EMU_DRIVER=12020 "$emulated"
check no_gpu says 7 'shows no GPU' EMU_GPUS=0 "$emulated"
check old_gpu says 7 'compute capability 7.5; want 8.0' EMU_CAPABILITY=75 "$emulated"
check small_gpu says 2 'GiB are available to rank 0' EMU_MEMORY=1 "$emulated"
# 10^10 parameters, whose copies for checkpoints are pinned, on a GPU that is large enough.
small_host() {
    timeout 20 env EMU_MEMORY=100000000 "$emulated" train --run none --set run.device=cuda --set model.layers=48 \
        --set model.dim=4096 --set model.heads=32 --set model.kv_heads=0 --set model.ffn=11008 --set dist.shard=0 >out 2>&1
    [ $? -eq 2 ] && [ ! -e none ] && [ "$(grep -c error: out)" -eq 1 ] &&
        grep -qE 'error: a rank needs [0-9.]+ GiB of pinned host memory .* are available to rank 0 of 1; .*snapshot.every = 0' out
}
check small_host small_host
check rank_without_gpu two_ranks
cpu32=$(loss cpu fp32)
cpu16=$(loss cpu bf16)
# The tables of gpu-bench in tiny shapes, with a peer to compare with.
speed() {
    echo "step-tiny 1000" >peer
    "$build/tests/device/speed-emu" --small --rounds 1 --peer peer >out 2>&1 || return 1
    grep -qE '^tiny +weight grad .* TFLOP/s$' out && grep -qE ' T +40 +backward .* TFLOP/s$' out &&
        grep -qE '^adamw .* % of copy$' out && grep -qE 'tokens/s.*; PyTorch 1000 tokens/s, ratio' out &&
        grep -qE '^  product, forward +[1-9]' out && ! grep -q nan out
}
check the_tables_of_gpu_bench speed
# A save that training goes on beside is of the step it says: the copy is out before weights
# change.  On the emulated GPU it comes as late as it may.
beside() {
    local run=("$emulated" train "${small[@]}" --set data.train=text --set run.device=cuda
        --set train.steps=4 --set snapshot.every=0)
    timeout 60 "${run[@]}" --run goes-on --set checkpoint.every=2 --set checkpoint.keep=3 >out 2>&1 &&
        timeout 60 "${run[@]}" --run ends --set train.stop_after=2 >out 2>&1 || return 1
    [ "$("$kilorank" ckpt hash goes-on/checkpoints/step-00000002)" = \
        "$("$kilorank" ckpt hash ends/checkpoints/step-00000002)" ]
}
check a_save_beside_training_is_of_its_step beside
check fp32_learns_as_the_cpu near "$(loss cuda fp32)" "$cpu32"
check bf16_learns_as_the_cpu near "$(loss cuda bf16)" "$cpu16"
check hopper_learns_as_the_cpu hopper
check hopper_recomputes_the_same_bits recomputed
check hopper_is_not_ampere no_hopper bf16 'capability 8.0, these kernels are for 9.0' EMU_CAPABILITY=80
check hopper_computes_in_bf16 no_hopper fp32 'compute in bf16'
if [ -x "$real" ] && ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    check the_worker_starts_without_a_driver says 7 'no NVIDIA driver' "$real"
    check the_front_command_finds_it says 7 'no NVIDIA driver' "$kilorank"
else
    skip the_worker_starts_without_a_driver "no CUDA worker, or a GPU"
    skip the_front_command_finds_it "no CUDA worker, or a GPU"
fi
finish
