#!/bin/bash
# A supervised run on four hosts whose processes are killed, stopped and crash, and one of whose clocks jumps: it is seen, the ranks are started again on the same hosts, and the
# run ends in the same bits.
# LIMIT: 300
# APART: it has several hosts, and limits in seconds
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 4
# shellcheck source=tests/cluster/launch.bash
. "$(dirname "$0")/launch.bash"

# On the host of rank 0 the time of day is what the test says.
echo 0 >"$work/shift"
cat >"$work/rsh" <<END
#!/bin/sh
host=\$1
shift
[ "\$host" != n1 ] || set -- "export LD_PRELOAD=$work/clock.so CLOCK_SHIFT=$work/shift; \$*"
exec "$rsh" "\$host" "\$@"
END
chmod +x "$work/rsh"
has_clock=''
if "${CC:-cc}" -shared -fPIC -o "$work/clock.so" "$top/tests/cluster/clock.c" 2>"$work/out"; then
    has_clock=1 agents=(--agent-command "$work/rsh")
fi

steps=900 extra=(--set snapshot.every=1) lost_max=8
reference
launch 4 n1 n2 n3 n4

strike one_rank_is_killed again 15 'rank 2' signal_rank KILL 2
strike three_ranks_at_once again 15 'rank [013]' signal_rank KILL 0 1 3

# Between two steps it is an hour later, then a day earlier.
jumps() {
    local to
    set_mark
    for to in 3600 -86400; do
        echo "$to" >"$work/shift" && within 20 reached $(($(step_now) + 15)) || return 1
    done
    ! over && [ -z "$(events fault)" ] && echo 0 >"$work/shift"
}
is_told() { # its own log has the hour
    awk -F'"time":' '/^{"step"/ { sub(/}.*/, "", $2); if (t && $2 - t > 3000) found = 1; t = $2 } END { exit !found }' "$run/log.jsonl"
}
if [ -n "$has_clock" ]; then
    check a_clock_that_jumps_disturbs_nobody jumps
    check and_it_did_jump is_told
else
    skip a_clock_that_jumps_disturbs_nobody 'no C compiler'
fi

strike a_rank_has_a_segmentation_fault again 15 'rank 1' signal_rank SEGV 1
strike a_rank_stands_still again 20 'rank 3' signal_rank STOP 3
strike mpirun_is_killed again 30 '' signal_program KILL n1 'mpirun .*--leave-session-attached'
strike a_daemon_of_Open_MPI_is_killed again 30 '' signal_program KILL n3 '^orted'

all_agents() {
    local host
    for host in n1 n2 n3 n4; do signal_program KILL "$host" ' agent --run'; done
}
strike all_agents_are_killed_at_once again 30 'its ranks are gone|connection' all_agents

check the_run_ends_in_the_same_bits ends_well
check nothing_of_it_is_left nothing_left
times
finish
