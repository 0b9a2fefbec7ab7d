# lib.bash - what the scripts of this folder share: a tiny model, runs of it on real ranks,
# TAP cases.  Sourced with the script's own arguments; $1 is the build folder.
#
# Every run is told to end after $RUN_LIMIT seconds; what it printed is in $work/out.
# shellcheck shell=bash disable=SC2034  # some names are for the scripts
set -u

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(cd "$top" && cd "${1:-build}" && pwd) || exit 1
kilorank=$build/kilorank
work=$(mktemp -d "${TMPDIR:-/tmp}/kr-fault.XXXXXX") || exit 1
cases=0 bad_cases=0
: "${TIME_FACTOR:=1}" # stretches limits, for slow or crowded machines
: "${RUN_LIMIT:=$((60 * TIME_FACTOR))}"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_base_warn_component_unused=0 OMPI_MCA_orte_base_help_aggregate=0
export OMP_NUM_THREADS=1
export XDG_STATE_HOME=$work/state # no history of nodes but the script's own
# as on a network: ranks that die hold no memory of others
export OMPI_MCA_btl_vader_single_copy_mechanism=none
# what Open MPI leaves of killed ranks (4 MiB each, in /dev/shm by default) goes with $work
mkdir "$work/tmp" "$work/shm" || exit 1
export TMPDIR=$work/tmp OMPI_MCA_btl_vader_backing_directory=$work/shm

# One thread a rank: alone it would take all cores, and two threads of a model as small as this
# mostly wait for each other, at five times the processor time.
tiny=(--set run.threads=1 --set model.layers=2 --set model.dim=64 --set model.heads=4 --set model.kv_heads=2
    --set model.ffn=128 --set model.context=64 --set train.batch=8 --set train.micro_batch=1
    --set train.steps=40 --set checkpoint.every=10 --set checkpoint.keep=1000
    --set eval.every=0 --set optim.warmup=5 --set run.log_every=1000 --set snapshot.every=0)

cleanup() {
    local pids
    mapfile -t pids < <(jobs -p)
    [ ${#pids[@]} -gt 0 ] && kill -KILL "${pids[@]}" 2>/dev/null
    # ranks outlive their mpirun by seconds; nobody else's command line has this folder
    mapfile -t pids < <(pgrep -f -- "--run $work/")
    [ ${#pids[@]} -gt 0 ] && kill -KILL "${pids[@]}" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT

# check NAME COMMAND... - one case; what the last run printed is shown if it fails
check() {
    local name=$1
    shift
    cases=$((cases + 1))
    if "$@"; then
        echo "ok $cases - $name"
    else
        bad_cases=$((bad_cases + 1))
        echo "not ok $cases - $name"
        echo "# failed: $*"
        [ -f "$work/out" ] && tail -n 25 "$work/out" | sed 's/^/# /'
    fi
}
skip() { cases=$((cases + 1)); echo "ok $cases - $1 # SKIP $2"; }
finish() { echo "1..$cases"; [ "$bad_cases" -eq 0 ]; exit; }

# train RANKS DIR [ARGUMENT...] - 0 ranks: without mpirun.  The status is the run's.
train() {
    local ranks=$1 dir=$2 launch=()
    shift 2
    [ "$ranks" -gt 0 ] && launch=(mpirun -np "$ranks")
    timeout -k 2 "$RUN_LIMIT" "${launch[@]}" "$kilorank" train --run "$dir" "${tiny[@]}" "$@" \
        >"$work/out" 2>&1 </dev/null
}
# ends_with STATUS COMMAND...
ends_with() { local want=$1; shift; "$@"; [ $? -eq "$want" ]; }
said() { grep -qE -- "$1" "$work/out"; }

hash_of() { "$kilorank" ckpt hash "$1" 2>>"$work/out"; } # of a run or one checkpoint
step_dir() { printf '%s/checkpoints/step-%08d' "$1" "$2"; }
steps_of() { # steps that have a folder, newest last
    find "$1/checkpoints" -maxdepth 1 -name 'step-*' -printf '%f\n' 2>/dev/null |
        sed 's/step-0*//' | sort -n
}
newest_of() { steps_of "$1" | tail -n 1; }

# workers DIR - pids of the ranks of a run, in order of rank; mpirun is not one of them
workers() {
    local pid rank
    for pid in $(pgrep -f -- "train --run $1 "); do
        rank=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" |
            sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
        [ -n "$rank" ] && echo "$rank $pid"
    done | sort -n | cut -d' ' -f2
}
