#!/bin/bash
# A supervised run on four hosts with two spares, whose hosts lose power, cables and their
# voice, stand still and come back, whose network is bad and falls in halves: a spare takes the
# place, what was cut off ends itself, and when no spare is left the run goes on with fewer
# ranks.  The bits are the same, and what is lost are a few steps, not all since the last
# checkpoint.
# LIMIT: 600
# APART: it has several hosts, and limits in seconds
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 6
# shellcheck source=tests/cluster/launch.bash
. "$(dirname "$0")/launch.bash"

# a lost host takes its memory along: its part of the newest snapshot lies on the next one
steps=2500 extra=(--set snapshot.every=1) lost_max=8
reference
launch 4 n1 n2 n3 n4 n5 n6
are_spares() { is_spare "$1" && is_spare "$2"; }

# --- with spares -------------------------------------------------------------------------------
# Two faults one after the other, and then both hosts are back.
strike a_host_loses_power spare 60 'heard' of_rank power_off 2
first=$victim
boot "$first"
strike a_host_is_cut_off spare 60 'heard' of_rank unplug 1
check its_ranks_end_although_nobody_can_tell_them within 15 without_ranks "$victim"
plug "$victim"
check both_are_spares_when_they_are_back within 40 are_spares "$first" "$victim"

strike a_host_falls_mute spare 60 'heard' of_rank mute 3
first=$victim
unmute "$first"
strike a_host_stands_still spare 60 'heard' of_rank freeze 2
thaw "$victim"
check both_are_refused_until_they_have_ended_what_they_ran within 40 are_spares "$first" "$victim"

strike the_host_of_rank_0_and_mpirun_loses_power spare 60 'heard' of_rank power_off 0
boot "$victim"
rank_and_host() { signal_rank KILL 1 && sleep 0.5 && of_rank power_off 3; }
# "spare": both faults fell into one recovery
strike a_host_is_lost_while_the_run_recovers 'again|spare' 60 'rank 1' rank_and_host
boot "$victim"

# --- halves ------------------------------------------------------------------------------------
# Two hosts that hold each other's memory: their part is nowhere else, so the disk has it.
halves() {
    local pid
    read -r other pid < <(rank_place 2) && read -r victim pid < <(rank_place 3) && split "$other" "$victim"
}
within 40 running && lost_max=40
# "again": a host with its third fault has made room for a spare before
strike the_network_falls_in_halves 'spare|again' 60 'heard' halves
lost_max=8
alone() { without_ranks "$other" && without_ranks "$victim"; }
check the_other_half_ends_itself within 15 alone
tells_the_price() { grep -qE 'resumed at step [0-9]+ from disk; [0-9]+ steps are done again' "$work/out"; }
check the_price_is_told tells_the_price
rejoin "$other" "$victim"
check and_is_spare_when_the_halves_are_one_again within 40 are_spares "$other" "$victim"

# --- a bad network -----------------------------------------------------------------------------
# No host is given up.  A connection that broke for a moment costs a start at most.
quiet() { # quiet STEPS COMMAND... - so many steps under it
    local more=$1
    shift
    set_mark
    within 20 running && "$@" && within 40 reached $(($(step_now) + more)) && ! over &&
        ! events start | grep -qE '"rung": "(spare|fewer)"'
}
no_event() { [ -z "$(events fault)" ]; }
blink() { unplug "$1" && sleep 2 && plug "$1"; }
check a_cut_of_two_seconds_costs_no_host quiet 20 of_rank blink 2
lossy() { loss "$1" 5; }
if command -v nft >/dev/null; then
    check a_host_that_loses_packets_is_not_lost quiet 40 of_rank lossy 1
    check nor_is_that_a_fault no_event
    loss "$victim" 0
else
    skip a_host_that_loses_packets_is_not_lost 'no program nft'
fi
narrow() { throttle "$1" 2mbit; }
if throttle n1 2mbit && throttle n1 0; then
    check a_host_with_a_slow_link_is_not_lost quiet 10 of_rank narrow 3
    check nor_is_that_a_fault no_event
    throttle "$victim" 0
else
    skip a_host_with_a_slow_link_is_not_lost 'the kernel has no tbf'
fi

# --- without -----------------------------------------------------------------------------------
idle_spares() { for host in n1 n2 n3 n4 n5 n6; do if is_spare "$host"; then power_off "$host"; fi; done; }
idle_spares
strike no_spare_is_left fewer 60 'heard' of_rank power_off 3
check the_run_ends_in_the_same_bits ends_well
check nothing_of_it_is_left nothing_left
times
finish
