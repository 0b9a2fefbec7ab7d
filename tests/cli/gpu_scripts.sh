#!/bin/bash
# The scripts for a machine with a GPU, on one without: gpu-check and gpu-bench on the emulated
# GPU (tests/emu), in small; gpu-pack.
# usage: tests/cli/gpu_scripts.sh [BUILD_DIR]
# shellcheck source=tests/cli/gpu.bash
. "$(dirname "$0")/gpu.bash"

checks() {
    env ON=emu BUILD="$build" SHAPES=1 REPEATS=1 MOST=20 HUGE=1 LEARN="${small[*]} --set data.train=$work/text" \
        "$top/scripts/gpu-check" hopper huge learn >out 2>&1 &&
        grep -q '^gpu-check: all is well$' out && [ "$(grep -c '^ok .* huge ' out)" -eq 14 ] &&
        [ "$(grep -c '^ok - .*_learns_as_' out)" -eq 3 ] && grep -q '; its own kernels$' out
}
# With a card that tells of itself: clocks while a part runs, and Hopper's kernels by themselves.
benches() {
    mkdir -p bin && cat >bin/nvidia-smi <<'CARD' && chmod +x bin/nvidia-smi
#!/bin/sh
case "$*" in
*compute_cap*) echo 9.0 ;;
*=clocks.sm,power.draw,temperature.gpu*) echo 1755, 690.5, 61 ;;
*) echo NVIDIA H200, 580.1, 143771, 700.00, 1980 ;;
esac
CARD
    env ON=emu BUILD="$build" SMALL=yes ROUNDS=1 PEER=no PATH="$work/bin:$PATH" "$top/scripts/gpu-bench" attention \
        step-llama-8B >out 2>&1 && [ "$(grep -c ' T  *40  backward ' out)" -eq 1 ] &&
        grep -q '^  product with activation  *4 ' out && grep -q 'attention by our Hopper kernels' out &&
        grep -qE '^# [0-9]+ s above 200 W: 1755 MHz \(1755 to 1755\), 690 W \(up to 690\), up to 61 degrees$' out &&
        grep -q '^# NVIDIA H200, 580.1, ' out
}
# A part that has no time left is named; what failed is still a failure.
limited() {
    env ON=emu BUILD="$build" LIMIT=5 "$top/scripts/gpu-check" bf16 fp32 >out 2>&1
    [ $? -eq 3 ] && grep -q '^# LIMIT=5 is over, .*: scripts/gpu-check bf16 fp32$' out && ! grep -q 'all is well' out
}
# A kernel that does not end is one line, and the end of that table.
hangs() {
    "$build/tests/device/parity-emu" --hopper 1 --only attention_bwd --most 600 --patience 1 >out 2>&1
    [ $? -eq 98 ] && grep -qE '^not ok - attention_bwd .* heads of .*# no answer in 1 s$' out
}
check no_answer_is_one hangs
check the_parts_of_gpu_check checks
check the_parts_of_gpu_bench benches
check a_limit_ends_it_and_tells_what_is_left limited

# Programs and libraries in one file, that start from anywhere.
packed() {
    BUILD=$build "$top/scripts/gpu-pack" pack.tar.gz >out 2>&1 && tar xf pack.tar.gz && [ -s gpu-pack/commit ] &&
        ! env -i PATH=/usr/bin:/bin gpu-pack/kilorank train --run none --set run.device=cuda >out 2>&1 &&
        grep -q 'error: no NVIDIA driver' out
}
if [ -x "$real" ] && ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    check a_pack_for_a_bare_machine packed
else
    skip a_pack_for_a_bare_machine "no CUDA worker, or a GPU"
fi
finish
