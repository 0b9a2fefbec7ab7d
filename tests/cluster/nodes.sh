#!/bin/bash
# The pretend cluster itself: its hosts are as separate as the tests that use it believe.
# LIMIT: 60
# APART: it has several hosts, and limits in seconds
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 3

names() { [ "$(hostname) $(on n1 hostname) $(on n2 hostname)" = 'head n1 n2' ]; }
check hosts_have_names names
hears() { # hears HOST PEER - a connection is accepted; needs no program on the other side
    on "$1" timeout 1 "$BASH" -c ": 3<>/dev/tcp/$2/22" 2>&1 | grep -q refused
}
check hosts_reach_each_other hears n1 n2
check hosts_reach_the_head hears n1 head

# --- memory and processes ---------------------------------------------------------------------
own_memory() {
    on n1 touch /dev/shm/mine /tmp/mine
    on n1 test -e /dev/shm/mine && ! on n2 test -e /dev/shm/mine && ! on n2 test -e /tmp/mine &&
        [ ! -e /dev/shm/mine ]
}
check each_has_its_own_memory own_memory
shared_files() { on n1 touch "$work/all" && on n2 test -e "$work/all"; }
check files_are_shared shared_files
own_processes() {
    on n1 sleep 1000 &
    within 5 on n1 pgrep -f 'sleep 1000' >/dev/null && ! on n2 pgrep -f 'sleep 1000' >/dev/null
}
check each_has_its_own_processes own_processes

# --- cables -----------------------------------------------------------------------------------
unplugged() { unplug n2 && ! hears n1 n2 && ! hears n2 head && hears n1 n3; }
check a_pulled_cable_cuts_one_host_off unplugged
plugged() { plug n2 && within 5 hears n1 n2; }
check and_comes_back plugged
# shellcheck disable=SC2016  # for the other shell to expand
no_shell() { unplug n2 && ! "$rsh" n2 true 2>/dev/null && plug n2 && [ "$("$rsh" n2 'echo $((1 + 1))')" = 2 ]; }
check nor_does_a_remote_shell_pass no_shell
if command -v nft >/dev/null; then
    muted() { mute n2 && ! hears n1 n2 && unmute n2 && hears n1 n2; }
    check a_mute_host_is_not_heard muted
    lossy() { loss n1 100 && ! hears n1 n2 && loss n1 0 && hears n1 n2; }
    check packets_can_be_lost lossy
else
    skip a_mute_host_is_not_heard 'no program nft'
fi

# --- power ------------------------------------------------------------------------------------
powerless() {
    on n1 "$BASH" -c 'exec -a kr-marked sleep 1000' &
    within 5 pgrep -f kr-marked >/dev/null && power_off n1 && within 5 dark
}
dark() { ! alive n1 && ! pgrep -f kr-marked >/dev/null; }
check without_power_every_process_ends powerless
back() { boot n1 && alive n1 && within 5 hears n1 n2 && ! on n1 test -e /dev/shm/mine; }
check a_host_boots_with_empty_memory back

# --- the end ----------------------------------------------------------------------------------
# A cluster inside this one, killed without a chance to clean up.
cat >"$work/inner.sh" <<'END'
. "$LIB" && cluster 2
on n2 "$BASH" -c 'exec -a kr-inner sleep 1000' &
wait
END
gone() { ! pgrep -f kr-inner >/dev/null; }
killed() {
    CLUSTER='' LIB=${BASH_SOURCE[0]%/*}/lib.bash "$BASH" "$work/inner.sh" "$build" &
    within 10 pgrep -f kr-inner >/dev/null && kill -KILL $! && within 5 gone
}
check SIGKILL_of_a_script_leaves_nothing killed
finish
