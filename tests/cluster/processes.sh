#!/bin/bash
# A supervised run on four hosts whose processes are killed, stopped and crash: it is seen,
# the ranks are started again on the same hosts, and the run ends in the same bits.
# ALONE: what is seen within seconds
# LIMIT: 300
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 4
# shellcheck source=tests/cluster/launch.bash
. "$(dirname "$0")/launch.bash"

steps=900
reference
launch 4 n1 n2 n3 n4

strike one_rank_is_killed again 15 'rank 2' signal_rank KILL 2
strike three_ranks_at_once again 15 'rank [013]' signal_rank KILL 0 1 3
strike a_rank_has_a_segmentation_fault again 15 'rank 1' signal_rank SEGV 1
strike a_rank_stands_still again 20 'rank 3' signal_rank STOP 3
strike mpirun_is_killed again 30 '' signal_program KILL n1 'mpirun .*--leave-session-attached'
strike a_daemon_of_Open_MPI_is_killed again 30 '' signal_program KILL n3 '^orted'
strike an_agent_is_killed again 30 'n2' signal_program KILL n2 ' agent --run'

check the_run_ends_in_the_same_bits ends_well
check nothing_of_it_is_left nothing_left
times
finish
