#!/bin/bash
# Training under plain mpirun on several hosts: the same bits wherever the ranks are, and
# after a lost rank, a lost cable and a lost host the same command goes on with those left.
# LIMIT: 240
# APART: it has several hosts, and limits in seconds
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 4
cd "$work" || exit 1

long=(--set train.steps=240 --set checkpoint.every=10)
# on_hosts DIR HOST... - in the background, one rank on each; $launcher is mpirun
on_hosts() {
    local dir=$1
    shift
    mpirun --hostfile "$(hostfile 1 "$@")" -np $# "$kilorank" train --run "$dir" "${tiny[@]}" "${long[@]}" \
        >out 2>&1 </dev/null &
    launcher=$!
}
exited() { ! kill -0 "$launcher" 2>/dev/null; }
# ended STATUS SECONDS - and so, in that time
ended() {
    if within "$2" exited; then ends_with "$1" wait "$launcher"; return; fi
    kill -KILL "$launcher"
    return 1
}
saved() { [ -n "$(newest_of "$1")" ]; }
going() { exited || { saved "$1" && [ "$(newest_of "$1")" -ge "$2" ]; }; }
under_way() { within 30 going "$1" "$2" && ! exited; } # under_way DIR STEP - that is saved
to_the_end() { # to_the_end DIR HOST... - from a checkpoint, in the bits of the whole run
    on_hosts "$@" && ended 0 60 && said 'resumed at step [1-9]' && [ "$(hash_of "$1")" = "$want" ]
}

train 0 whole "${long[@]}" --set checkpoint.every=0 || { cat out; exit 1; }
want=$(hash_of whole)

same() { on_hosts "$@" && ended 0 60 && [ "$(hash_of "$1")" = "$want" ]; }
check three_hosts_make_the_bits_of_one_rank same three n1 n2 n3
two_each() {
    mpirun --hostfile "$(hostfile 2 n1 n2)" -np 4 "$kilorank" train --run paired "${tiny[@]}" "${long[@]}" \
        >out 2>&1 </dev/null &
    launcher=$!
    ended 0 60 && [ "$(hash_of paired)" = "$want" ]
}
check two_ranks_on_each_of_two_hosts_as_well two_each

# --- a rank ------------------------------------------------------------------------------------
rank_lost() { on_hosts run n1 n2 n3 && under_way run 20 && kill -KILL "$(workers run | tail -n 1)" && ended 137 10; }
check a_killed_rank_ends_the_run rank_lost
swept() { within 5 idle n1 && within 5 idle n2 && within 5 idle n3; }
check and_all_its_programs_on_all_hosts swept

# --- a cable -----------------------------------------------------------------------------------
cut_off() {
    on_hosts run n1 n2 n3 && under_way run 50 && unplug n2 && ended 205 15
}
check a_pulled_cable_is_noticed_in_seconds cut_off
check also_on_the_host_that_was_cut_off swept
others() { to_the_end run n1 n3 n4; }
check the_others_and_a_fresh_host_end_it_in_the_same_bits others
plug n2

# --- a host ------------------------------------------------------------------------------------
# Open MPI itself now and then does not connect at its start: that is not what is tried here.
started() { # started HOST...
    rm -rf run && on_hosts run "$@" && under_way run 20 && return
    kill -KILL "$launcher" 2>/dev/null
    within 20 swept && rm -rf run && on_hosts run "$@" && under_way run 20
}
dead() { started n1 n2 n3 n4 && power_off n4 && ended 205 15; }
check a_host_without_power_is_noticed_in_seconds dead
smaller() { to_the_end run n1 n2; }
check half_the_hosts_end_it_in_the_same_bits smaller
finish
