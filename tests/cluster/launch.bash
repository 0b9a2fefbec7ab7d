# launch.bash - a supervised run on the hosts of lib.bash, faults for it, and what to ask of
# it after each.
#
# After `cluster N`:
#
#   launch RANKS HOST...    a new run in $run on these hosts, in the background
#   strike NAME RUNG SECONDS WHY COMMAND...
#       one case: COMMAND is a fault; the supervisor says WHY (a pattern of its line), takes
#       that RUNG in the end, and a new step is done within SECONDS, no more than $lost_max lost
#   of_rank COMMAND RANK    COMMAND HOST for the host of a rank; power_off, unplug, freeze, ...
#   ends_well       the run ended with 0, in the bits of $want, never from scratch, and left nothing
#   times           table of all strikes: seconds until seen, until the next step, steps lost
#
# Victims are found as users find them, in `kilorank status --json`.
# shellcheck shell=bash disable=SC2034,SC2154

run=$work/run
steps=400     # of a run; enough for the faults of a script
extra=()      # settings of it
options=()    # of `kilorank launch`
agents=(--agent-command "$rsh") # how agents come to hosts
lost_max=1000 # steps that a fault may cost
struck=()     # lines of `times`
: "${CLUSTER_CASES:=some}" # all: also what takes long
# small enough that a step is mostly messages: four ranks share the cores of one machine
small=(--set model.layers=1 --set model.dim=32 --set model.heads=2 --set model.kv_heads=2
    --set model.ffn=64 --set model.context=32 --set train.batch=4)
# and no machine is so fast that a run is over before its faults are
slowly=(--set dist.fault=delay:0.002)
unset OMPI_MCA_plm OMPI_MCA_plm_rsh_agent OMPI_MCA_plm_rsh_no_tree_spawn # launch has its own

# The same run without a supervisor and without faults: the bits that all must end in.
reference() {
    train 0 "$work/whole" "${small[@]}" --set "train.steps=$steps" "${extra[@]}" \
        --set checkpoint.every=0 --set snapshot.every=0 || { cat "$work/out"; exit 1; }
    want=$(hash_of "$work/whole")
}

launch() {
    local ranks=$1
    shift
    rm -rf "$run"
    launch_line=("$kilorank" launch --run "$run" -n "$ranks" --hostfile "$(hostfile 1 "$@")"
        "${agents[@]}" "${options[@]}" "${tiny[@]}" "${small[@]}" --set "train.steps=$steps"
        "${slowly[@]}" "${extra[@]}")
    : >"$work/out"
    relaunch
}
relaunch() { # the same command again
    "${launch_line[@]}" >>"$work/out" 2>&1 </dev/null &
    supervisor=$!
}

# --- what is known of it -----------------------------------------------------------------------

journal() { cat "$run/supervisor.jsonl" 2>/dev/null; }
events() { journal | tail -n +$((mark + 1)) | grep "\"event\": \"$1\""; } # since the mark
mark=0
set_mark() { mark=$(journal | wc -l); }
member() { sed -nE "s/.*\"$1\": \"?([^\",}]*).*/\1/p" | head -n 1; } # of the first line
status() { timeout 5 "$kilorank" status "$run" --json 2>/dev/null; }
step_now() { # done by all ranks, as its log says; 0: none
    local step
    step=$(tail -n 3 "$run/log.jsonl" 2>/dev/null | sed -n 's/^{"step":\([0-9]*\),.*/\1/p' | tail -n 1)
    echo "${step:-0}"
}
reached() { [ "$(step_now)" -ge "$1" ] || over; }
over() { ! kill -0 "$supervisor" 2>/dev/null; }
running() { status | grep -qE '"state": "running".*"step": [1-9]'; } # and has done a step
# rank_place RANK - "NODE PID"
rank_place() {
    status | sed -nE "s/.*\"rank\": $1, \"node\": \"([^\"]*)\", \"pid\": ([0-9]*).*/\1 \2/p"
}
known() { [ -n "$(rank_place "$1")" ]; }
done_again() { # steps that were done more than once
    sed -n 's/^{"step":\([0-9]*\),.*/\1/p' "$run/log.jsonl" | sort -n | uniq -d | wc -l
}

# --- faults ------------------------------------------------------------------------------------

signal_rank() { # signal_rank SIGNAL RANK...
    local signal=$1 rank place places=() sent=1
    shift
    for rank; do
        within 5 known "$rank" || return 1
        places+=("$(rank_place "$rank")")
    done
    for place in "${places[@]}"; do # the first takes others along: they need not be there
        on "${place% *}" kill -s "$signal" "${place#* }" && sent=0
    done 2>/dev/null
    return $sent
}
# signal_program SIGNAL HOST PATTERN - of a command line on that host
signal_program() { on "$2" pkill "-$1" -f -- "$3"; }
# of_rank COMMAND RANK - done to the host of that rank, which is $victim afterwards
of_rank() {
    local pid
    within 5 known "$2" && read -r victim pid < <(rank_place "$2") && "$1" "$victim"
}
freeze() { on "$1" pkill -STOP -f 'kilorank|orted|mpirun'; }
thaw() { on "$1" pkill -CONT -f 'kilorank|orted|mpirun'; }
signal_supervisor() { kill -s "$1" "$supervisor"; }

# The host is back, without ranks.
is_spare() { status | grep -qE "\"name\": \"$1\", \"state\": \"up\", \"role\": \"spare\""; }

without_ranks() { ! on "$1" pgrep -f 'kilorank[^ ]* train ' >/dev/null; }

# --- cases -------------------------------------------------------------------------------------

strike() {
    local name=$1
    shift
    check "$name" struck "$name" "$@"
}
went_on() { [ -n "$(events running)" ] || over; }
struck() {
    local name=$1 rung=$2 limit=$3 why=$4 begin seen on_again again=0
    shift 4
    within 40 running && within 20 reached $(($(step_now) + 8)) && ! over || { echo "# no run to strike"; return 1; }
    again=$(done_again) && set_mark && begin=$EPOCHREALTIME
    "$@" || { echo "# no strike"; return 1; }
    within $((limit + 20)) went_on && ! over || { echo "# it does not go on"; journal | tail -n 5; return 1; }
    seen=$(events fault | member time) && on_again=$(events running | member time)
    again=$(($(done_again) - again))
    struck+=("$name $begin ${seen:-$begin} $on_again $again")
    events fault | grep -qE "$why" && [[ $(events start | tail -n 1 | member rung) =~ ^($rung)$ ]] && [ "$again" -le "$lost_max" ] &&
        awk "BEGIN { exit !($on_again - $begin <= $limit * $TIME_FACTOR) }" && return
    echo "# went on after $(awk "BEGIN { print $on_again - $begin }") s, $again steps again"
    journal | tail -n +$((mark + 1)) | sed 's/^/# /'
    return 1
}

# Nothing of a run is left on any host: programs, node memory, lease, token, attempts.
clean() { # clean HOST
    idle "$1" && { ! alive "$1" || [ -z "$(on "$1" ls /dev/shm)" ]; }
}
nothing_left() {
    local host
    for host in "$CLUSTER_DIR"/n*.init; do
        host=${host##*/} && host=${host%.init}
        within 15 clean "$host" || { echo "# left on $host:"; programs "$host"; on "$host" ls /dev/shm; return 1; }
    done
    [ ! -e "$run/.token" ] && grep -q '"host": ""' "$run/lease.json" &&
        ! find "$run/checkpoints" -name '.attempt-*' | grep -q .
}
# It never began again at the beginning: step 1 was done once.
never_from_scratch() { [ "$(grep -c '^{"step":1,' "$run/log.jsonl")" -eq 1 ]; }
further() { over || [ "$(step_now)" -gt "$at" ]; }
ends_well() {
    local at
    until over; do # as long as it gets on
        at=$(step_now)
        within 60 further || { signal_supervisor KILL; echo "# does not end"; return 1; }
    done
    ends_with 0 wait "$supervisor" && [ "$(newest_of "$run")" = "$steps" ] && [ "$(hash_of "$run")" = "$want" ] &&
        never_from_scratch && "$kilorank" ckpt verify "$run" >>"$work/out" 2>&1
}

times() {
    printf '%s\n' "${struck[@]}" | awk '
    { printf "# %-44s seen %5.2f s  next step %6.2f s  %3d steps again\n", $1, $3 - $2, $4 - $2, $5 }'
}
