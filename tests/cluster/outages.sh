#!/bin/bash
# A supervised run on four hosts with two spares, whose hosts lose power, cables and their
# voice, stand still and come back: a spare takes the place, what was cut off ends itself, and
# when no spare is left the run goes on with fewer ranks.  The bits are the same, and what is
# lost are a few steps, not all since the last checkpoint.
# ALONE: it tells a cut of two seconds from a longer one
# LIMIT: 400
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 6
# shellcheck source=tests/cluster/launch.bash
. "$(dirname "$0")/launch.bash"

# a lost host takes its memory along: its part of the newest snapshot lies on the next one
steps=2500 extra=(--set snapshot.every=1) lost_max=8
reference
launch 4 n1 n2 n3 n4 n5 n6

# --- with spares -------------------------------------------------------------------------------
strike a_host_loses_power spare 60 'heard' of_rank power_off 2
boot "$victim"
check and_is_a_spare_when_it_boots within 30 is_spare "$victim"

strike a_host_is_cut_off spare 60 'heard' of_rank unplug 1
check its_ranks_end_although_nobody_can_tell_them within 15 without_ranks "$victim"
plug "$victim"
check and_is_a_spare_when_the_cable_is_back within 40 is_spare "$victim"

strike a_host_falls_mute spare 60 'heard' of_rank mute 3
unmute "$victim"
check and_is_a_spare_when_it_is_heard_again within 40 is_spare "$victim"

strike a_host_stands_still spare 60 'heard' of_rank freeze 2
thaw "$victim"
check and_is_refused_until_it_has_ended_what_it_ran within 40 is_spare "$victim"

strike the_host_of_rank_0_and_mpirun_loses_power spare 60 'heard' of_rank power_off 0
boot "$victim"
within 30 is_spare "$victim"

rank_and_host() { signal_rank KILL 1 && sleep 0.5 && of_rank power_off 3; }
strike a_host_is_lost_while_the_run_recovers again 60 'rank 1' rank_and_host
within 30 reached $(($(step_now) + 20))
boot "$victim"
within 30 is_spare "$victim"

# A cable that is out for two seconds: no host is given up.
blink() { unplug "$1" && sleep 2 && plug "$1"; }
short_cut() {
    set_mark
    within 20 running && of_rank blink 2 && within 20 reached $(($(step_now) + 20)) && ! over &&
        ! events start | grep -qE '"rung": "(spare|fewer)"'
}
check a_cut_of_two_seconds_costs_no_host short_cut

# --- without -----------------------------------------------------------------------------------
idle_spares() { for host in n1 n2 n3 n4 n5 n6; do if is_spare "$host"; then power_off "$host"; fi; done; }
idle_spares
strike no_spare_is_left fewer 60 'heard' of_rank power_off 3
check the_run_ends_in_the_same_bits ends_well
check nothing_of_it_is_left nothing_left
times
finish
