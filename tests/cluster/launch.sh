#!/bin/bash
# A supervised run on several hosts without any fault: none is seen, and at its end nothing of
# it is left.  Again and again, since the ends of hosts are told in any order; at last on hosts
# that have IPv6 only.
# LIMIT: 120
# APART: it has several hosts, and limits in seconds
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 3
# shellcheck source=tests/cluster/launch.bash
. "$(dirname "$0")/launch.bash"

steps=60
reference
no_fault() { launch 3 n1 n2 n3 && ends_well && [ -z "$(events fault)" ]; }
only_ipv6() { # their names lead there, from here on
    local i
    { echo '127.0.0.1 localhost' && echo 'fd99::254 head' && for i in 1 2 3; do echo "fd99::$i n$i"; done; } >"$CLUSTER_DIR/hosts"
    export OMPI_MCA_btl_tcp_if_include=eth0 OMPI_MCA_oob_tcp_if_include=eth0
    ip -6 addr add fd99::254/64 dev br0 nodad || return 1
    for i in 1 2 3; do
        on "n$i" ip -6 addr add "fd99::$i/64" dev eth0 nodad && on "n$i" ip -4 addr flush dev eth0 || return 1
    done
}
for i in 1 2 3 4; do
    if [ "$i" -eq 4 ]; then check hosts_have_ipv6_only only_ipv6; fi
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
