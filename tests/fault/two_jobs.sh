#!/bin/bash
# One run directory, two jobs: the second refuses and names the first; when the first is
# gone, dead or ended, the next one takes over.
# LIMIT: 90
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

run=$work/run
tiny+=(--set train.steps=100000 --set checkpoint.every=20 --set checkpoint.keep=2)

mpirun -np 2 "$kilorank" train --run "$run" "${tiny[@]}" >"$work/first" 2>&1 </dev/null &
first=$!
for ((i = 0; i < 200; i++)); do
    [ -n "$(steps_of "$run")" ] && break
    sleep 0.1
done
mapfile -t ranks < <(workers "$run")
check the_first_runs [ ${#ranks[@]} -eq 2 ]

refused() { # refused RANKS
    train "$1" "$run"
    [ $? -eq 4 ] && said "held by process ${ranks[0]} on $(hostname)"
}
check a_second_job_of_one_rank_refuses refused 0
check a_second_job_of_two_ranks_refuses refused 2
alive() { kill -0 "${ranks[@]}" && kill -0 "$first"; }
check the_first_does_not_notice alive
prune() {
    "$kilorank" ckpt prune "$run" --keep 1 >"$work/out" 2>&1
    [ $? -eq 4 ] && said 'held by'
}
check pruning_under_a_running_job_refuses prune
reading() { "$kilorank" ckpt hash "$(step_dir "$run" "$(newest_of "$run")")" >/dev/null 2>&1 ||
    "$kilorank" ckpt list "$run" >"$work/out" 2>&1; }
check reading_is_allowed reading

kill -KILL "${ranks[@]}"
wait "$first" 2>/dev/null
begin=$SECONDS
takes_over() { train 2 "$run" --set train.stop_after=1 && said 'resumed at step'; }
check the_next_takes_over_from_the_dead takes_over
check without_waiting [ $((SECONDS - begin)) -le 10 ]
check and_after_an_orderly_end takes_over
# a lease that another host left: its counter is watched, then it is taken
sed -i 's/"host": "[^"]*"/"host": "elsewhere"/' "$run/lease.json"
check a_lease_of_a_host_that_is_gone_is_taken takes_over
finish
