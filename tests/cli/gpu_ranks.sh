#!/bin/bash
# Several ranks on emulated GPUs whose streams are threads: the same bits as one rank.
# usage: tests/cli/gpu_ranks.sh [BUILD_DIR]
# LIMIT: 400
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
worker=$build/tests/emu/kilorank-worker-cuda
export EMU_STREAMS=1 EMU_GPUS=4
cd "$work" || exit 1

mkdir text && seq 1 300 >text/numbers.txt
args=(--set data.train=text --set run.device=cuda --set model.layers=1 --set model.dim=32
    --set model.heads=1 --set model.kv_heads=1 --set model.ffn=32 --set model.context=16
    --set train.batch=4 --set train.micro_batch=1 --set train.steps=2 --set eval.every=0
    --set eval.batches=1 --set run.log_every=1 --set data.held_out=0 --set run.tensorboard=false)

# ranks N DIR [ARGUMENT...] - 1: without mpirun
ranks() {
    local launch=() dir=$2
    [ "$1" -gt 1 ] && launch=(mpirun -np "$1")
    shift 2
    timeout -k 2 40 "${launch[@]}" "$worker" train --run "$dir" "${args[@]}" "$@" >out 2>&1 </dev/null
}

same() { # N [ARGUMENT...]
    rm -rf run
    ranks "$1" run "${@:2}" && [ "$(hash_of run)" = "$want" ]
}

# fails CODES LINE SECONDS [ARGUMENT...] - on two ranks
fails() {
    local code=$1 line=$2 most=$3 begun=$SECONDS
    shift 3
    rm -rf run
    ranks 2 run "$@"
    [[ $? =~ ^($code)$ ]] && [ $((SECONDS - begun)) -le "$most" ] && said "$line"
}
once() { [ "$(grep -c error: out)" -eq 1 ]; }
# what mpirun sees first: the signal, or that the other rank gives up
killed() { fails '137|8' 'fault: ended in collective' 15 --set dist.fault=kill:4:1; }
silent() { FAKE_NCCL=mute:1:5 fails 8 'NCCL: some rank did not answer in 2 s' 20 --set dist.timeout=2; }
stuck() { FAKE_NCCL=stuck:1:5 fails 8 'NCCL is not rid of its last collectives 2 s after' 20 --set dist.timeout=2; }
old_library() { FAKE_NCCL_VERSION=21803 fails 7 'error: NCCL 2.18.3 is too old' 20 && once; }
# One that cannot be opened: as if it were missing, also where there is a real one.
no_library() {
    mkdir -p bad && : >bad/libnccl.so.2
    LD_LIBRARY_PATH=$work/bad fails 7 'error: several GPUs need NCCL: .*libnccl.so.2: .*set dist.comm = mpi' 20 && once
}

# A launcher that shows each rank one GPU, which is its number 0; without NCCL.
own_gpu_each() {
    rm -rf run
    EMU_GPUS=1 timeout 40 mpirun -np 1 -x CUDA_VISIBLE_DEVICES=4 "$worker" train --run run "${args[@]}" \
        --set dist.comm=mpi : -np 1 -x CUDA_VISIBLE_DEVICES=7 "$worker" train --run run "${args[@]}" \
        --set dist.comm=mpi >out 2>&1 </dev/null && [ "$(hash_of run)" = "$want" ]
}

# run.device = auto on nodes that differ.
mixed_kinds() {
    local auto=("${args[@]}" --set run.device=auto)
    timeout 40 mpirun -np 1 "$worker" train --run none "${auto[@]}" : \
        -np 1 "$build/kilorank-worker-cpu" train --run none "${auto[@]}" >out 2>&1 </dev/null
    [ $? -eq 2 ] && [ ! -e none ] && [ "$(grep -c error: out)" -eq 1 ] &&
        said 'error: rank 1 .* has device cpu, rank 0 cuda: all ranks must drive the same kind'
}

# told NAME - of the memory plan in `out`, MiB
told() { awk -v name="$1" '/memory of a rank/ { for (i = 1; i <= NF; i++) if ($i == name) at = NF - i }
    / MiB / && at != "" { print $(NF - at); exit }' out; }
# What all ranks take at most is what was planned, but for NCCL's own buffers: those are all that
# a plan in library order has of messages.  To a tenth of a MiB, three of which are rounded.
planned() { # N [ARGUMENT...]
    local n=$1 nccl sum pinned
    shift
    rm -rf run
    "$worker" train --plan "$n" "${args[@]}" "$@" --set dist.reduce=library >out 2>&1 && nccl=$(told messages) &&
        EMU_TELL=1 ranks "$n" run "$@" && sum=$(told sum) && pinned=$(sed -n 's/.* \([0-9.]*\) MiB pinned for copies.*/\1/p' out) &&
        awk -v want="$(echo "$sum $nccl" | awk '{ print $1 - $2 }')" -v pinned="$pinned" '
            /^emulated GPU: .* MiB of memory/ { if ($3 > got) got = $3; if ($7 > host) host = $7 }
            END { exit !(got > 1 && (got - want) ^ 2 < 0.04 && (host - pinned) ^ 2 < 0.02) }' out
}

ranks 1 one
want=$(hash_of one)
check a_run_has_a_hash [ ${#want} -eq 32 ]
check two_ranks same 2
said 'NCCL 2.28.9' || bad_cases=$((bad_cases + 1))
check four_ranks same 4
check sharded_weights_on_two same 2 --set dist.shard=3
large=(--set model.vocab=2000 --set train.steps=1)
check two_ranks_take_what_was_planned planned 2 "${large[@]}"
check four_with_shared_weights_too planned 4 "${large[@]}" --set dist.shard=3
check three_that_are_no_cube_too planned 3 "${large[@]}" --set dist.shard=1
# Replicas are compared without moving them, and a piece is moved by the rank that writes it: of
# snapshots after steps 1 and 2 and a save after step 3 each rank copies its share, which the plan
# tells twice, and of losses and sums next to nothing.
each_its_share() { # N
    local two
    rm -rf run
    EMU_TELL=1 ranks "$1" run "${large[@]}" --set train.steps=3 --set dist.shard=0 --set snapshot.every=1 \
        --set snapshot.dir="$work" || return 1
    two=$(sed -n 's/.*snapshots \([0-9.]*\) MiB of node memory/\1/p' out)
    grep '^emulated GPU: .* copied to the host' out | awk -v n="$1" -v two="$two" '{ seen++; if ($10 > 1.5 * two + 0.2) bad = 1 }
        END { exit bad || seen != n }'
}
check two_ranks_copy_their_shares_only each_its_share 2
check four_ranks_copy_their_shares_only each_its_share 4
# A bit of a weight of one rank, of three that hold all: named at the next snapshot, and before a save.
flipped() { # [ARGUMENT...]
    rm -rf run
    KILORANK_NUMERIC_FAULT=flip:2:1:3 ranks 3 run --set train.steps=4 --set dist.shard=0 --set checkpoint.every=1 "$@"
    [ $? -eq 7 ] && said 'rank 1 holds other bits' && said 'rank 1 on node .* is suspect'
}
at_a_snapshot() { flipped --set checkpoint.every=0 --set snapshot.every=1 --set snapshot.dir="$work"; }
before_a_save() { flipped --set snapshot.every=0 && [ ! -e run/checkpoints/step-00000002 ]; }
check a_flipped_bit_is_found_at_a_snapshot at_a_snapshot
check and_before_a_save before_a_save
# Stopped and gone on with, also by other numbers of ranks; killed in the midst of the third step
# and gone on with from what the memory of the node holds.
resumed() { # N N
    rm -rf run
    ranks "$1" run --set train.stop_after=1 && ranks "$2" run --set train.stop_after=0 && said 'resumed at step 1 from disk' && [ "$(hash_of run)" = "$want" ]
}
check a_run_goes_on_with_the_same_bits resumed 2 2
check and_on_other_numbers_of_ranks resumed 4 1
from_memory() {
    local four=(--set train.steps=4 --set checkpoint.every=0 --set snapshot.every=1 --set snapshot.dir="$work")
    rm -rf run whole
    ranks 1 whole "${four[@]}" || return 1
    ranks 2 run "${four[@]}" --set dist.fault=kill:16:1
    [ ! -e run/checkpoints/step-00000004 ] && ranks 2 run "${four[@]}" --set dist.fault= && said 'resumed at step [12] from node memory' &&
        [ "$(hash_of run)" = "$(hash_of whole)" ]
}
check from_node_memory_too from_memory
check library_order_without_shards ranks 2 library --set dist.reduce=library --set dist.shard=0
check a_killed_rank_ends_the_run killed
check a_silent_rank_ends_the_run silent
check an_abort_that_hangs_ends_the_process stuck
check an_old_library_is_one_line old_library
check a_missing_library_is_one_line no_library
check through_the_host_with_a_gpu_of_ones_own own_gpu_each
said 'GPU memory through the host' || bad_cases=$((bad_cases + 1))
check ranks_of_two_kinds_are_refused mixed_kinds
finish
