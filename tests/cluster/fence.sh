#!/bin/bash
# A job that fell silent comes back after another has taken its run: it must not write, and
# the other must not notice.  Stopped processes stand for a host that the network lost.
# LIMIT: 90
# APART: it has several hosts, and limits in seconds
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 4
cd "$work" || exit 1

long=(--set train.steps=400 --set checkpoint.every=10 --set checkpoint.keep=3)
train 0 whole "${long[@]}" --set checkpoint.every=0 || { cat out; exit 1; }
want=$(hash_of whole)

job() { # job OUTPUT HOST... - the run on these hosts, in the background; $! is mpirun
    local out=$1
    shift
    mpirun --hostfile "$(hostfile 1 "$@")" -np $# "$kilorank" train --run run "${tiny[@]}" "${long[@]}" \
        >"$out" 2>&1 </dev/null &
}
saved() { [ "$(newest_of run)" -ge "$1" ] 2>/dev/null; }
says() { grep -qE "$2" "$1"; }
exited() { ! kill -0 "$1" 2>/dev/null; }
lease_generation() { sed -n 's/.*"generation": \([0-9]*\).*/\1/p' run/lease.json; }

job zombie n1 n2
first=$!
: >zombie
check the_first_job_saves within 30 saved 20
mapfile -t ranks < <(workers run)
kill -STOP "${ranks[@]}"
before=$(newest_of run)

job heir n3 n4
heir=$!
: >heir
check a_second_job_waits_and_takes_the_run_over within 40 says heir 'resumed at step'
generation=$(lease_generation)
check and_gets_on within 30 saved $((before + 20))

kill -CONT "${ranks[@]}"
check the_first_job_comes_back_and_saves_nothing_more within 20 says zombie 'lease.json: .*nothing more is saved'
ends_as_busy() { within 20 exited "$first" && ends_with 4 wait "$first"; }
check and_ends_since_another_has_the_run ends_as_busy
check the_lease_is_untouched [ "$(lease_generation)" = "$generation" ]
ends_well() { within 60 exited "$heir" && ends_with 0 wait "$heir"; }
check the_second_does_not_notice ends_well
same() { [ "$(hash_of run)" = "$want" ] && "$kilorank" ckpt verify run >out 2>&1; }
check and_ends_in_the_same_bits same
finish
