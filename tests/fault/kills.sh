#!/bin/bash
# SIGKILL at random moments, 24 times, and the same command again: the same bits.
# KILLS_SEED repeats a sequence of moments (what the machine does then is its own).
# LIMIT: 300
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

RANDOM=${KILLS_SEED:=$RANDOM}
echo "# KILLS_SEED=$KILLS_SEED"
# long enough to be hit in the middle, saving often enough to be hit while it saves
long=(--set train.steps=1200 --set checkpoint.every=4 --set checkpoint.keep=3
    --set run.log_every=1)
run=$work/run
kills=0 while_saving=0 wanted=24
declare -A struck=()

start() { # start RANKS
    mpirun -np "$1" "$kilorank" train --run "$run" "${tiny[@]}" "${long[@]}" >"$work/out" 2>&1 </dev/null &
    launcher=$!
}

# The moment: after a random time, or as soon as a checkpoint is being written.
wait_for_moment() {
    local i
    for ((i = 0; i < 1000; i++)); do # a first step is done: 10 s at most
        kill -0 "$launcher" 2>/dev/null || return 1
        grep -q 'step ' "$work/out" && break
        sleep 0.01
    done
    mapfile -t pids < <(workers "$run") # now: the moment is short
    if [ $((RANDOM % 2)) -eq 0 ]; then
        for ((i = 0; i < 2000; i++)); do
            if compgen -G "$run/checkpoints/.attempt-*" >/dev/null; then return 0; fi
            kill -0 "$launcher" 2>/dev/null || return 1
        done
    else
        sleep "0.$(printf '%03d' $((RANDOM % 400)))"
    fi
}

strike() { # what is killed: one rank, all of them, or mpirun
    local how
    [ ${#pids[@]} -gt 0 ] || return 1
    how=$((RANDOM % 3))
    compgen -G "$run/checkpoints/.attempt-*" >/dev/null && while_saving=$((while_saving + 1))
    case $how in
    0) kill -KILL "${pids[RANDOM % ${#pids[@]}]}" ;;
    1) kill -KILL "${pids[@]}" ;;
    2) kill -KILL "$launcher" ;;
    esac 2>/dev/null || return 1
    struck[$how]=$((${struck[$how]:-0} + 1))
    kills=$((kills + 1))
}

gone() { # all processes of the run have ended: 20 s at most
    local i
    wait "$launcher" 2>/dev/null
    for ((i = 0; i < 200; i++)); do
        [ -z "$(workers "$run")" ] && return 0
        sleep 0.1
    done
    return 1
}

# Every checkpoint that can be seen is whole.
nothing_torn() { "$kilorank" ckpt verify "$run" >>"$work/verify" 2>&1 || [ -z "$(steps_of "$run")" ]; }

same() { [ -n "$want" ] && [ "$(hash_of "$run")" = "$want" ]; }
train 0 "$work/whole" "${long[@]}" --set checkpoint.every=0 || { cat "$work/out"; exit 1; }
want=$(hash_of "$work/whole")

torn=0 stuck=0 other=0
for ((tries = 0; kills < wanted && tries < 60; tries++)); do
    set -- 1 2 4 3
    shift $((RANDOM % 4))
    start "$1"
    if ! { wait_for_moment && strike; }; then
        gone
        if [ "$(newest_of "$run")" = 1200 ]; then # it got to its end between kills: once more
            same || other=$((other + 1))
            rm -rf "$run"
            continue
        fi
    fi
    gone || stuck=$((stuck + 1))
    nothing_torn || torn=$((torn + 1))
done
echo "# $kills kills (${struck[0]:-0} of one rank, ${struck[1]:-0} of all, ${struck[2]:-0} of mpirun)," \
    "$while_saving of them while a checkpoint was written; step $(newest_of "$run") of 1200"

check killed_at_least_20_times [ "$kills" -ge 20 ]
check some_kills_fell_into_a_save [ "$while_saving" -ge 3 ]
check no_checkpoint_was_torn [ "$torn" -eq 0 ]
check no_rank_outlived_its_run [ "$stuck" -eq 0 ]
check the_run_ends train 2 "$run" "${long[@]}"
check in_the_same_bits same
check and_so_did_those_that_ended_between_kills [ "$other" -eq 0 ]
no_leftovers() { ! compgen -G "$run/checkpoints/.*" >/dev/null || ! find "$run/checkpoints" -name '.attempt-*' | grep -q .; }
check nothing_is_left_of_the_saves_that_died no_leftovers
verified() { "$kilorank" ckpt verify "$run" >"$work/out" 2>&1; }
check every_byte_is_right verified
finish
