#!/bin/bash
# The batch file under a real Slurm: asked to stop it saves, goes back into the queue and goes
# on, over a restart of the controller; a lost node costs a requeue and no bit.
# LIMIT: 240
# APART: it has several hosts, and limits in seconds
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
# shellcheck source=tests/cluster/slurm.bash
. "$(dirname "$0")/slurm.bash"
cluster 3
cd "$work" || exit 1
missing=$(slurm_needs | head -n 1)
if [ -n "$missing" ]; then skip slurm "$missing" && finish; fi

export KILORANK=$kilorank RUN=$work/run
long=("${tiny[@]}" --set train.steps=400 --set checkpoint.every=20)
train 0 whole --set train.steps=400 --set checkpoint.every=0 || { cat out; exit 1; }
want=$(hash_of whole)

check three_nodes_are_up slurm_up

submit() { # submit NODES [ARGUMENT...]
    local nodes=$1
    shift
    job=$(timeout 10 sbatch --parsable -N "$nodes" --ntasks-per-node=1 --cpus-per-task=1 -o "$work/out" \
        "$top/scripts/train.sbatch" "${long[@]}" "$@")
}
is() { [[ " $* " == *" $(job_state "$job") "* ]]; }
saved() { [ "$(newest_of run)" -ge "$1" ] 2>/dev/null; }
starts() { [ "$(grep -c '^== job' out)" -ge "$1" ]; } # so many times
ends() { within "$1" is COMPLETED FAILED CANCELLED NODE_FAIL TIMEOUT; }

runs() { submit 2 && within 30 saved 20 && is RUNNING; }
check a_job_of_two_nodes_trains runs
preempted() { timeout 10 scancel -b -s USR1 "$job" && within 20 is PENDING && said 'kilorank ended with 75'; }
check asked_to_stop_it_saves_and_goes_back_into_the_queue preempted
restarted() { controller stop && controller start && within 40 starts 2; }
check a_controller_that_went_down_and_came_up_starts_it_again restarted
resumed() { within 20 said 'resumed at step [1-9]' && ! said 'start 3'; }
check it_goes_on_where_it_stopped resumed

# The node of rank 1 loses its power: mpirun says so after seconds, Slurm later.
node_lost() {
    local step
    step=$(newest_of run)
    within 20 saved $((step + 20)) && power_off n2 && within 15 said 'kilorank ended with 205' && within 40 starts 3
}
check a_lost_node_costs_a_requeue node_lost
to_the_end() { ends 60 && is COMPLETED && [ "$(hash_of run)" = "$want" ]; }
check on_other_nodes_it_ends_in_the_bits_of_a_run_without_faults to_the_end
nothing_left() { within 10 idle n1 && within 10 idle n3; }
check nothing_of_it_is_left nothing_left

refused() { submit 1 --set model.layers=0 && ends 20 && is FAILED && said 'model\.layers = 0'; }
check what_no_restart_can_mend_fails_at_once refused
finish
