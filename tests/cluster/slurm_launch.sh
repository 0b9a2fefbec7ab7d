#!/bin/bash
# A supervised run under a real Slurm, with a spare node inside the allocation: it moves off a
# node that is drained; a lost node and a killed supervisor cost seconds and no requeue; asked
# to stop it saves, goes back into the queue and goes on, over a restart of the controller.
# LIMIT: 240
# APART: it has several hosts, and limits in seconds
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
# shellcheck source=tests/cluster/slurm.bash
. "$(dirname "$0")/slurm.bash"
cluster 4
cd "$work" || exit 1
missing=$(slurm_needs | head -n 1)
if [ -n "$missing" ]; then skip slurm "$missing" && finish; fi

export KILORANK=$kilorank RUN=$work/run SPARES=1 KILORANK_DRAIN_SECONDS=1
long=("${tiny[@]}" --set train.steps=400 --set checkpoint.every=20)
train 0 whole --set train.steps=400 --set checkpoint.every=0 || { cat out; exit 1; }
want=$(hash_of whole)

check four_nodes_are_up slurm_up

is() { [[ " $* " == *" $(job_state "$job") "* ]]; }
events() { grep -c "\"event\": \"$1\"" run/supervisor.jsonl 2>/dev/null; }
has() { [ "$(events "$1")" -ge "$2" ]; } # has EVENT COUNT
saved() { [ "$(newest_of run)" -ge "$1" ] 2>/dev/null; }
starts() { [ "$(grep -c '^== job' out)" -ge "$1" ]; }
said_in_journal() { grep -qE -- "$1" run/supervisor.jsonl; }

runs() {
    job=$(timeout 10 sbatch --parsable -N 4 --ntasks-per-node=1 --cpus-per-task=1 -o "$work/out" \
        "$top/scripts/launch.sbatch" "${long[@]}" --set dist.fault=delay:0.003) &&
        within 30 saved 20 && said_in_journal '"ranks": 3, .*"nodes": \["n1", "n2", "n3"\]'
}
check a_job_of_three_nodes_and_a_spare_trains runs

node_state() { timeout 10 scontrol update NodeName=n3 State="$1" Reason=test; }
drained() {
    node_state DRAIN && within 20 has running 2 && said_in_journal '"event": "regroup"' && ! has fault 1 &&
        said_in_journal '"ranks": 3, .*"nodes": \["n1", "n2", "n4"\]' && within 10 idle n3 && is RUNNING
}
check a_node_that_is_drained_is_left_without_a_fault drained
undrained() { node_state RESUME && within 20 comes n3; }
comes() { [ "$(grep -c "\"node\": \"$1\", \"state\": \"up\"" run/supervisor.jsonl)" -ge 2 ]; }
check and_is_a_spare_when_it_is_not_drained_any_more undrained

# Its agent, its step and its slurmd go without a word.
node_lost() {
    power_off n2 && within 25 has running 3 && said_in_journal '"rung": "spare"' &&
        said_in_journal '"kind": "node lost", "node": "n2"' && is RUNNING && ! starts 2
}
check a_lost_node_is_replaced_within_the_allocation node_lost

# The batch script starts the next one; it waits for the agents of the first and finds all.
supervisor_lost() {
    on n1 pkill -KILL -f "^$kilorank launch" && within 15 has adopted 1 && is RUNNING && ! starts 2
}
check a_killed_supervisor_is_followed_by_one_that_adopts_the_ranks supervisor_lost

preempted() { timeout 10 scancel -b -s USR1 "$job" && within 30 said 'launch ended with 75' && within 45 is PENDING RUNNING; } # once Slurm has given n2 up
check asked_to_stop_it_saves_and_goes_back_into_the_queue preempted
boot_again() { boot n2 && slurmd_on n2; }
restarted() { controller stop && boot_again && controller start && within 60 starts 2; }
check over_a_restart_of_the_controller_it_starts_again restarted
to_the_end() {
    within 90 is COMPLETED FAILED CANCELLED NODE_FAIL TIMEOUT && is COMPLETED &&
        said 'resumed at step [1-9]' && [ "$(hash_of run)" = "$want" ]
}
check it_ends_in_the_bits_of_a_run_without_faults to_the_end
nothing_left() { within 10 idle n1 && within 10 idle n3 && within 10 idle n4; }
check nothing_of_it_is_left nothing_left
finish
