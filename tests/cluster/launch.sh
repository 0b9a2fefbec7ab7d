#!/bin/bash
# A supervised run on several hosts without any fault: none is seen, and at its end nothing of
# it is left.  Again and again, since the ends of hosts are told in any order.
# LIMIT: 120
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 3
# shellcheck source=tests/cluster/launch.bash
. "$(dirname "$0")/launch.bash"

steps=60
reference
no_fault() { launch 3 n1 n2 n3 && ends_well && [ -z "$(events fault)" ]; }
for i in 1 2 3 4; do
    check "run_${i}_ends_without_a_fault" no_fault
    check "run_${i}_leaves_nothing" nothing_left
done
stopped() {
    steps=100000
    launch 3 n1 n2 n3 && within 30 reached 20 && timeout 30 "$kilorank" stop "$run" >>"$work/out" &&
        within 10 over && ends_with 0 wait "$supervisor" && [ -n "$(newest_of "$run")" ]
}
check kilorank_stop_saves_and_ends_it stopped
check and_leaves_nothing nothing_left
finish
