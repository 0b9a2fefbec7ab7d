#!/bin/bash
# A launched run on one node: whatever is killed, it goes on by itself to the same bits, and
# leaves nothing behind.
# LIMIT: 240
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"
# shellcheck source=tests/fault/launch.bash
. "$(dirname "$0")/launch.bash"
cd "$work" || exit 1
RUN_LIMIT=$((150 * TIME_FACTOR)) # a run sees several faults
# some 10 s: faults have time to strike, and checkpoints are seldom
long=(--set train.steps=240 --set checkpoint.every=50 --set checkpoint.keep=2)
slowly=(--set dist.fault=delay:0.003)

# A command whose standard output is a pipe that is full, and that nobody reads.
cat >stuck_pager <<'END'
import os, sys
read, write = os.pipe()
os.set_inheritable(read, True)
os.set_blocking(write, False)
try:
    while os.write(write, bytes(4096)): pass
except BlockingIOError:
    os.set_blocking(write, True)
os.dup2(write, 1)
os.execvp(sys.argv[1], sys.argv[1:])
END
through=()

# launch DIR [ARGUMENT...] - in the background; its process is $supervisor
launch() {
    local dir=$1
    shift
    timeout -k 2 "$RUN_LIMIT" "${through[@]}" "$kilorank" launch --run "$dir" -n 2 --patience 10 \
        "${tiny[@]}" "${long[@]}" "${slowly[@]}" "$@" >>"$work/out" 2>&1 </dev/null &
    supervisor=$!
}

check a_run_without_faults_is_the_measure reference

# A container has no other user, and nobody there has told Open MPI that root may.
by_root() {
    env -u OMPI_ALLOW_RUN_AS_ROOT -u OMPI_ALLOW_RUN_AS_ROOT_CONFIRM timeout -k 2 "$RUN_LIMIT" \
        "$kilorank" launch --run root -n 2 "${tiny[@]}" --set train.steps=5 >out 2>&1 </dev/null
}
check root_needs_no_words_for_open_mpi by_root

# --- killed processes --------------------------------------------------------------------------
# struck DIR WHO RUNNING - kill it once the run is under way; it runs again by itself
struck() {
    local pid
    within 20 is_at "$1" $(($(steps "$1") + 30)) && note "$1" && pid=$("$2_of" "$1") && [ -n "$pid" ] &&
        kill -KILL "$pid" && runs_again "$1" "$3"
}
through=(python3 stuck_pager) # a supervisor that waited for its reader would watch nothing
launch killed
through=()
check a_killed_rank_is_replaced struck killed rank 2
check a_killed_mpirun_is_replaced struck killed mpirun 3
check a_killed_agent_is_replaced struck killed agent 4
check it_ends_with_0 ended 0
check and_with_the_bits_of_a_run_without_faults same_bits killed
check nothing_is_left_behind nothing_is_left killed
fast() { # recovery_s of each fault is on record and small; an overloaded machine is given time
    [ "$(grep -c recovery_s killed/supervisor.jsonl)" -eq 3 ] &&
        ! grep -oE 'recovery_s": [0-9.]+' killed/supervisor.jsonl |
        awk '{ print "# recovery", $2 } $2 > 15 { slow = 1 } END { exit !slow }' >>out
}
check each_recovery_takes_seconds fast

# --- the supervisor ----------------------------------------------------------------------------
supervisor_dies() {
    launch lone
    within 20 is_at lone 30 && rank=$(rank_of lone) || return 1
    pkill -KILL -P "$supervisor" && wait "$supervisor"
    sleep 1
    launch lone
    within 10 has lone adopted 1 && [ "$(rank_of lone)" = "$rank" ] && [ "$(event lone start)" -eq 1 ]
}
check a_supervisor_that_was_killed_finds_its_ranks_running supervisor_dies
both_die() { # what is left of a generation that is not whole is ended
    local old
    mapfile -t old < <(workers lone)
    pkill -KILL -P "$supervisor" && wait "$supervisor"
    kill -KILL "$rank" && launch lone && within 20 said_in lone '"event": "running", "generation": 2' && ! kill -0 "${old[@]}" 2>/dev/null &&
        ended 0 && same_bits lone
}
check one_that_died_with_a_rank_starts_them_anew both_die
second() { # while one is there
    launch two
    within 20 is_at two 20 || return 1
    "$kilorank" launch --run two -n 2 >second 2>&1
    [ $? -eq 4 ] && grep -q 'another supervisor' second
}
check a_second_supervisor_is_refused second

# --- status and stop ---------------------------------------------------------------------------
status() {
    "$kilorank" status two >text && grep -q '2 of 2 ranks' text && "$kilorank" status two --json >json &&
        python3 -c 'import json; s = json.load(open("json"))
assert s["state"] == "running" and s["step"] > 0 and len(s["ranks_now"]) == 2, s
assert [n["name"] for n in s["nodes"]] == ["localhost"], s' &&
        "$kilorank" status two --prometheus >text && grep -q '^kilorank_training{run=".*/two"} 1$' text &&
        grep -q '^kilorank_node_ranks{run=".*/two",node="localhost"} 2$' text
}
check status_tells_people_and_programs status
others() { # a token in an argument or in the environment of a rank could be read by others
    local token pid
    token=$(cut -d' ' -f3 two/.token)
    [ "$(stat -c %a two/.token)" = 600 ] && note two && [ ${#token} -eq 32 ] || return 1
    for pid in $(pgrep -f -- "--run $work/two"); do
        ! grep -qaF "$token" "/proc/$pid/cmdline" "/proc/$pid/environ" 2>/dev/null || return 1
    done
}
check the_token_is_in_no_command_line others
strangers() { # garbage, silence and floods change nothing
    local host port i
    read -r host port _ <two/.token
    for ((i = 0; i < 100; i++)); do
        { head -c 300 /dev/urandom >"/dev/tcp/$host/$port"; } 2>/dev/null
        # shellcheck disable=SC2034  # kept open, and silent
        exec {fd}<>"/dev/tcp/$host/$port"
    done
    "$kilorank" status two >/dev/null && [ "$(event two fault)" -eq 0 ]
}
check strangers_disturb_nothing strangers
stops() { "$kilorank" stop two >>out 2>&1 && ended 0 && "$kilorank" ckpt verify two >>out 2>&1; }
check stop_saves_and_ends_with_0 stops
check nothing_is_left_after_stop nothing_is_left two
past() {
    "$kilorank" status two | grep -q '^ended' &&
        "$kilorank" status two --prometheus | grep -q '^kilorank_supervised{run="/.*/two"} 0$'
}
check status_of_an_ended_run_comes_from_its_journal past
signal() { # before there are ranks: it reaches them when there are
    launch two
    within 20 has two start 2 && pkill -TERM -P "$supervisor" && ended 75 && [ "$(event two running)" -eq 2 ]
}
check a_signal_saves_and_asks_to_be_started_again signal
check nothing_is_left_after_a_signal nothing_is_left two
goes_on() { launch two && ended 0 && same_bits two; }
check and_it_goes_on_to_the_same_bits goes_on

# --- faults that come again --------------------------------------------------------------------
usage() { launch bad --set train.nonsense=1; ended 2 && [ "$(event bad start)" -eq 1 ]; }
check a_bad_setting_is_not_tried_again usage
loop() { launch loop --set dist.fault=quit:5:1; ended 9 && [ "$(event loop start)" -eq 3 ]; }
check an_early_end_at_every_start_ends_after_three_attempts loop
pause() { # of an agent: longer than it waits for a supervisor, but it is not that one that was away
    launch stuck --attempts 2 --patience 2
    within 20 is_at stuck 30 && kill -STOP "$(agent_of stuck)" && sleep 3 && kill -CONT "$(agent_of stuck)" &&
        sleep 0.5 && [ -n "$(agent_of stuck)" ] && [ "$(event stuck fault)" -eq 0 ]
}
check an_agent_that_stood_still_blames_nobody pause
hang() { # stopped for good
    kill -STOP "$(rank_of stuck)" && runs_again stuck 2 &&
        grep -q '"kind": "hang".*"rank": 0' stuck/supervisor.jsonl && ended 0 && same_bits stuck
}
check a_stopped_rank_is_named_and_replaced hang

finish
