#!/bin/bash
# Requests to stop: the step is finished and saved, the exit code says what it was, and the
# same command goes on to the same bits.
# usage: tests/cli/stop.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

# long enough to be met in the middle; saves only when it is asked to stop, and at the end
long=(--set train.steps=400 --set checkpoint.every=0)
train 0 whole "${long[@]}" || { cat out; exit 1; }
want=$(hash_of whole)

# begin RANKS DIR [ARGUMENT...] - in the background; $pid is the process to be signalled.
# 0 ranks: as $launch says, which is empty.  Several exchange so slowly that a run is not over
# before mpirun hands a signal on, which may take a second.
launch=()
begin() {
    local ranks=$1 dir=$2
    shift 2
    [ "$ranks" -gt 0 ] && set -- --set dist.fault=delay:0.002 "$@" && local launch=(mpirun -np "$ranks")
    steps_before=$(steps "$dir")
    "${launch[@]}" "$kilorank" train --run "$dir" "${tiny[@]}" "${long[@]}" "$@" >out 2>&1 </dev/null &
    pid=$!
}
steps() { if [ -f "$1/log.jsonl" ]; then grep -c '^{"step"' "$1/log.jsonl"; else echo 0; fi; }
under_way() { # under_way DIR - some steps of this start are done: 20 s at most
    local i
    for ((i = 0; i < 2000 * TIME_FACTOR; i++)); do
        [ "$(steps "$1")" -ge $((steps_before + 5)) ] && return
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.01
    done
    return 1
}
ended() { # ended STATUS - within 20 s, and so
    local i
    for ((i = 0; i < 200 * TIME_FACTOR; i++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null
    ends_with "$1" wait "$pid"
}
# The last step in the log is the one that was saved; not the last of the run.
saved_last_step() {
    local last
    last=$(sed -n 's/^{"step":\([0-9]*\),.*/\1/p' "$1/log.jsonl" | tail -n 1)
    [ "$last" -lt 400 ] && [ "$(newest_of "$1")" = "$last" ] &&
        "$kilorank" ckpt verify "$(step_dir "$1" "$last")" >>out 2>&1 &&
        tail -n 1 "$1/log.jsonl" | grep -q "\"event\":\"stop\",\"step\":$last,"
}
goes_on() { # goes_on RANKS DIR - to the end and the same bits
    train "$1" "$2" "${long[@]}" && said 'resumed at step [1-9]' && [ "$(hash_of "$2")" = "$want" ]
}
# stopped RANKS DIR SIGNAL STATUS
stopped() {
    begin "$1" "$2" && under_way "$2" && kill -s "$3" "$pid" && ended "$4" && saved_last_step "$2"
}

# --- signals -------------------------------------------------------------------------------
for signal in TERM USR1 INT; do # one run, met again and again
    check "SIG${signal}_saves_and_asks_to_be_started_again" stopped 0 met "$signal" 75
done
check and_ends_in_the_bits_of_a_run_that_was_not_stopped goes_on 0 met

check SIGUSR1_to_mpirun_stops_all_ranks stopped 2 ranks USR1 75
one_rank() { # the second of them only
    local rank
    begin 2 ranks && under_way ranks || return 1
    rank=$(workers ranks | tail -n 1)
    [ "$rank" != "$pid" ] && kill -TERM "$rank" && ended 75 && saved_last_step ranks
}
check SIGTERM_to_one_rank_stops_all_of_them one_rank
# mpirun hands it on after a second and ends with 1 by itself; the ranks save in the time that it
# gives them
term() { OMPI_MCA_odls_base_sigkill_timeout=$((2 * TIME_FACTOR)) stopped 2 ranks TERM 1; }
check SIGTERM_to_mpirun_leaves_a_checkpoint term
check the_ranks_end_in_the_same_bits goes_on 2 ranks

# While MPI starts: the second rank waits for a file, so the first one waits in MPI_Init.
takes_signals() { # takes_signals PID - SIGUSR1 has a handler
    local caught
    caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null)
    [ $((0x${caught:-0} & 0x200)) -ne 0 ]
}
early() {
    local i first
    # shellcheck disable=SC2016  # for the inner shell to expand
    local launch=(mpirun -np 2 sh -c 'until [ "$OMPI_COMM_WORLD_RANK" = 0 ] || [ -e go ]; do sleep 0.05; done
        exec "$@"' sh)
    begin 0 early
    for ((i = 0; i < 200 * TIME_FACTOR; i++)); do
        first=$(workers early | head -n 1)
        [ -n "$first" ] && takes_signals "$first" && break
        sleep 0.05
    done
    takes_signals "$first" && kill -USR1 "$first" && : >go && ended 75 && saved_last_step early
}
check a_signal_while_mpi_starts_is_kept early

# --- the file ------------------------------------------------------------------------------
file() { # file RANKS DIR
    begin "$1" "$2" && under_way "$2" && : >"$2/stop" && ended 0 && saved_last_step "$2" && [ ! -e "$2/stop" ]
}
check the_file_stop_saves_and_is_done file 0 filed
check the_file_stop_on_two_ranks file 2 filed
waiting() { # there before the start: one step is done, so that a restart loop gets on
    : >filed/stop
    steps_before=$(steps filed)
    train 0 filed "${long[@]}" && [ ! -e filed/stop ] && [ "$(steps filed)" -eq $((steps_before + 1)) ] &&
        saved_last_step filed
}
check a_file_that_was_there_before_stops_after_a_step waiting
check after_the_file_it_ends_in_the_same_bits goes_on 0 filed

# --- signals while it saves ----------------------------------------------------------------
# Many parameters, so that a save takes a while; the signal is sent again until all is over.
large=(--set model.vocab=60000 --set model.context=16 --set train.batch=2 --set train.steps=400)
while_saving() { # while_saving SIGNAL STATUS...
    local signal=$1 hits=0 status
    shift
    rm -rf large
    begin 0 large "${large[@]}" && under_way large || return 1
    for ((i = 0; i < 4000; i++)); do
        kill -s "$signal" "$pid" 2>/dev/null || break
        if compgen -G 'large/checkpoints/.attempt-*' >/dev/null; then hits=$((hits + 1)); fi
        sleep 0.002
    done
    wait "$pid"
    status=$?
    echo "# exit code $status, $hits signals while it saved" >>out
    [ "$hits" -gt 0 ] && [[ " $* " == *" $status "* ]]
}
save_is_whole() { saved_last_step large && "$kilorank" ckpt verify large >>out 2>&1; }
repeated() { while_saving "$1" 75 && save_is_whole; }
check SIGTERM_again_and_again_does_not_disturb_the_save repeated TERM
check SIGUSR1_again_and_again_does_not_disturb_the_save repeated USR1

# A second SIGINT ends it at once.  What was saved before stays good, and it goes on there.
pending() { # pending PID - a SIGINT that it has not noticed yet, with which another would be one
    sed -n 's/^S[a-z]*Pnd:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null |
        while read -r bits; do [ $((0x$bits & 2)) -eq 0 ] || echo yes; done | grep -q yes
}
impatient() {
    begin 0 large "${large[@]}" && under_way large || return 1
    kill -INT "$pid"
    while pending "$pid"; do :; done
    kill -INT "$pid" 2>/dev/null
    ended 130 && "$kilorank" ckpt verify large >>out 2>&1 &&
        train 0 large "${large[@]}" --set train.stop_after=$(($(newest_of large) + 1)) && said 'resumed at step [1-9]'
}
check a_second_SIGINT_ends_at_once_and_spoils_nothing impatient

finish
