# gpu.bash - what the tests of the CUDA worker start from: the worker, a run of a moment, a text.
# Sourced; goes into $work.
# shellcheck shell=bash disable=SC2034
# shellcheck source=tests/fault/lib.bash
. "$(dirname "${BASH_SOURCE[0]}")/../fault/lib.bash"
emulated=$build/tests/emu/kilorank-worker-cuda
real=$build/kilorank-worker-cuda
cd "$work" || exit 1

small=(--set model.layers=1 --set model.dim=64 --set model.heads=1 --set model.kv_heads=1
    --set model.ffn=128 --set model.context=32 --set train.batch=2 --set train.micro_batch=1
    --set train.steps=2 --set eval.every=0 --set eval.batches=1 --set run.log_every=1
    --set checkpoint.every=0 --set data.held_out=0)
mkdir text && seq 1 300 >text/numbers.txt
