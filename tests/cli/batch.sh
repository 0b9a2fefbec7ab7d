#!/bin/bash
# The scripts that start training: the Slurm batch file, run here as the script that it is,
# and the restart loop of a plain cluster.
# usage: tests/cli/batch.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

export KILORANK=$kilorank
# not over before mpirun hands a signal on, which may take a second
long=("${tiny[@]}" --set train.steps=250 --set checkpoint.every=0 --set dist.fault=delay:0.002)
train 0 whole --set train.steps=250 --set checkpoint.every=0 || { cat out; exit 1; }
want=$(hash_of whole)

steps() { if [ -f "$1/log.jsonl" ]; then grep -c '^{"step"' "$1/log.jsonl"; else echo 0; fi; }
under_way() { # under_way DIR STEPS - so many are in its log: 20 s at most
    local i
    for ((i = 0; i < 2000; i++)); do
        [ "$(steps "$1")" -ge "$2" ] && return
        kill -0 "$script" 2>/dev/null || return 1
        sleep 0.01
    done
    return 1
}
ended() { # ended STATUS - within 30 s, and so
    local i
    for ((i = 0; i < 300; i++)); do
        kill -0 "$script" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$script" 2>/dev/null
    ends_with "$1" wait "$script"
}

# --- Slurm ---------------------------------------------------------------------------------
# What Slurm would set, and in its place a command that writes down how it is called.
mkdir bin
cat >bin/scontrol <<'END'
#!/bin/sh
echo "scontrol $*" >>"$CALLS"
END
chmod +x bin/scontrol
export CALLS=$work/calls
batch() { # batch RESTARTS DIR [ARGUMENT...]
    env PATH="$work/bin:$PATH" RUN="$2" SLURM_JOB_ID=4711 SLURM_JOB_NAME=test SLURM_NTASKS=2 \
        SLURM_JOB_NODELIST=node1 SLURM_RESTART_COUNT="$1" \
        bash "$top/scripts/train.sbatch" "${long[@]}" "${@:3}" >out 2>&1 </dev/null &
    script=$!
}
limit() { # the signal before the limit
    batch 0 job && under_way job 5 && kill -USR1 "$script" && ended 75 &&
        said '== job 4711, start 1, on node1' && [ "$(newest_of job)" = "$(steps job)" ]
}
requeued() { [ "$(cat calls)" = 'scontrol requeue 4711' ]; }
often() { # asked again and again while it saves: still the right code
    local i
    rm -f calls
    batch 1 job && under_way job $(($(steps job) + 5)) || return 1
    for ((i = 0; i < 300; i++)); do kill -USR1 "$script" 2>/dev/null || break; done
    ended 75 && requeued
}
cancel() { # scancel, or the limit itself
    rm -f calls
    batch 2 job && under_way job $(($(steps job) + 5)) && kill -TERM "$script" && ended 75 &&
        [ ! -e calls ] && "$kilorank" ckpt verify job >>out 2>&1
}
to_the_end() {
    rm -f calls
    batch 3 job && ended 0 && said 'start 4' && said 'resumed at step [1-9]' && [ ! -e calls ] &&
        [ "$(hash_of job)" = "$want" ]
}
refused() { # what no restart can mend does not come back
    rm -f calls
    batch 0 new --set model.layers=0
    ended 2 && [ ! -e calls ] && said 'model\.layers = 0'
}
lost() { # a rank dies: another start may mend that
    rm -f calls
    batch 0 dying --set checkpoint.every=20
    under_way dying 50 && kill -KILL "$(workers dying | tail -n 1)" && ended 137 && requeued
}
hopeless() { # hopeless RESTARTS - every start fails in its first steps
    rm -f calls
    batch "$1" hopeless --set dist.fault=fail:20
    ended 8
}
tried_again() { hopeless 2 && requeued; }
given_up() { hopeless 3 && [ ! -e calls ]; }
options() { # that the behaviour above rests on
    grep -qE '^#SBATCH --signal=B:USR1@[0-9]+' "$top/scripts/train.sbatch" &&
        grep -qE '^#SBATCH --requeue' "$top/scripts/train.sbatch" &&
        grep -qE '^#SBATCH --open-mode=append' "$top/scripts/train.sbatch"
}
check the_batch_file_asks_for_the_signal_and_for_its_queue options
check before_its_limit_a_job_saves_and_ends limit
check and_goes_back_into_the_queue requeued
check more_signals_change_nothing often
check a_cancelled_job_saves_and_stays_away cancel
check started_again_it_goes_on_to_the_end_and_stays_there to_the_end
check a_refused_job_stays_away refused
check a_job_that_lost_a_rank_goes_back_into_the_queue lost
check starts_without_progress_are_tried_again tried_again
check but_not_for_ever given_up

# --- plain cluster -------------------------------------------------------------------------
export RANKS=2 PAUSE=0.2
loop() {
    "$top/scripts/train-mpirun.sh" "$@" >out 2>&1 </dev/null &
    script=$!
}
echo 'localhost slots=2' >hosts

help() { "$top/scripts/train-mpirun.sh" --help >out && said '^usage: .*train-mpirun\.sh --run DIR' && ! said '^(#|set)'; }
no_run() { loop --set train.steps=3; ended 2 && said '--run DIR is missing'; }
rank_lost() { # saved now and then, so that the second start has something to go on from
    HOSTFILE=hosts loop --run lost "${long[@]}" --set checkpoint.every=20
    under_way lost 50 && kill -KILL "$(workers lost | tail -n 1)" && ended 0 &&
        said 'ended with 137; starting again \(1 of 5\)' && said 'resumed at step [1-9]' && [ "$(hash_of lost)" = "$want" ]
}
asked() { # Ctrl-C: saved, and not started again
    loop --run asked "${long[@]}" && under_way asked 5 && kill -TERM "$script" && ended 75 &&
        ! said 'starting again' && [ "$(newest_of asked)" = "$(steps asked)" ]
}
loop_ends() { # every start fails in its first steps
    TRIES=2 loop --run hopeless "${long[@]}" --set dist.fault=fail:20
    ended 8 && [ "$(grep -c 'starting again' out)" -eq 1 ]
}
not_tried() { loop --run new --set model.layers=0; ended 2 && ! said 'starting again'; }
check train_mpirun_has_help help
check train_mpirun_wants_a_run no_run
check a_lost_rank_is_replaced_and_the_bits_are_the_same rank_lost
check a_request_to_stop_ends_the_loop asked
check tries_without_progress_are_bounded loop_ends
check a_refused_run_is_not_tried_again not_tried

finish
