#!/bin/bash
# A supervised run whose agents come to their hosts by ssh, as on a cluster without a batch
# system: hosts that ssh cannot reach, or does not trust, are named and left out.
# LIMIT: 240
# APART: it has several hosts, and limits in seconds
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
# shellcheck source=tests/cluster/ssh.bash
. "$(dirname "$0")/ssh.bash"
cluster 9
# shellcheck source=tests/cluster/launch.bash
. "$(dirname "$0")/launch.bash"
missing=$(ssh_needs | head -n 1)
if [ -n "$missing" ]; then skip ssh "$missing" && finish; fi

# What must be left out comes first in the host file; n7 is the spare that is needed, n9 another.
export KILORANK_CHECK_SECONDS=4
steps=200 agents=() options=(--spares 6 --patience 8 --replace-slow)
RUN_LIMIT=150 small=(--set train.batch=12) slowly=(--set dist.fault=delay:0.005) extra=(--set checkpoint.every=200 --set snapshot.every=10)
reference
runs="$work/a user's runs" run="$work/a user's runs/one"
mkdir -p "$runs"
slow_link() { on "$1" tc qdisc add dev eth0 root tbf rate 2mbit burst 32kb latency 200ms; }
check hosts_have_an_sshd ssh_up n1 n2 n3 n4 n6 n7 n8 n9
forget_host_key n4              # the user has never been there
unplug n5                       # no power
slow_link n8                    # a cable with a fault
on n6 mount -t tmpfs own "$runs" # not the file system of the others
tokens() {                      # who can list processes does not see it
    local token
    token=$(cut -d' ' -f3 "$run/.token")
    [ ${#token} -eq 32 ] && ! grep -qaF "$token" /proc/[0-9]*/cmdline 2>/dev/null
}
starts() { launch 3 n4 n5 n6 n8 n1 n2 n3 n7 n9 && within 15 known 0 && tokens; }
check agents_start_by_ssh_and_no_command_line_has_the_token starts
nodes_are() { [ "$(events start | head -n 1 | sed 's/.*"nodes": //')" = '["n1", "n2", "n3"]}' ]; }
check ranks_are_where_ssh_got_to nodes_are
check a_host_whose_key_is_unknown_is_named within 10 said '^kilorank launch: warning: n4: ssh does not get there'
check so_is_one_that_does_not_answer within 10 said '^kilorank launch: warning: n5: ssh does not get there'
check a_host_with_a_slow_link_is_left_out within 10 said 'n8 is left out: link: [0-9.]+ MB/s, .* to n[0-9]; normal here are'
view() { "$kilorank" status "$run" | grep -qE '^  n4 +away +none +ssh does not get there'; }
check status_says_why_a_host_is_not_used view
check the_start_says_who_is_missing said 'starts without n4 n5 n6'

# A rank that stands still for most of the time, in pieces shorter than what it computes.
slow_down() { # slow_down HOST PID
    # shellcheck disable=SC2016  # for the other shell to expand
    on "$1" nice -n -10 "$BASH" -c 'exec 9<> <(:); nap() { read -rt "$1" -u 9; }
        while kill -STOP $1; do nap 0.015; kill -CONT $1; nap 0.003; done' slow "$2" 2>/dev/null
}
replaced() {
    local pid
    within 10 running && within 5 known 1 && read -r victim pid < <(rank_place 1) && set_mark || return 1
    slow_down "$victim" "$pid" &
    within 90 went_on && [ -z "$(events fault)" ] && events slow | grep -q "\"node\": \"$victim\", \"rank\": 1" &&
        events start | grep -q '"nodes": \["n1", "n7", "n3"\]' && return
    journal | sed 's/^/# /'
    return 1
}
within 20 running && slow_link n9
# by the clock: wants an idle machine, so only `make check-cluster` asks for it
if [ "${CLUSTER_CASES:-}" != all ]; then skip a_slow_rank_is_named 'make check-cluster tries it'; victim=n2; else
    check a_slow_rank_is_named_and_a_spare_takes_its_hosts_place replaced
fi
check a_spare_whose_link_has_become_slow_is_left_out within 30 said 'n9 is left out: link: '
check what_an_agent_says_reaches_the_log said "agent on n6: warning: .*'s runs/one has no supervisor's"
no_step_is_done_twice() { [ "$(done_again)" -eq 0 ]; }
check its_steps_are_not_lost no_step_is_done_twice
# what the slow host keeps of snapshots is of no use afterwards; another run's is
others=/dev/shm/kilorank-0-0123456789abcdef-0123456789abcdef-n2
kept() { on "$victim" mkdir -p "$others" && [ "$(on "$victim" ls /dev/shm | grep -c "^kilorank-0-")" -eq 2 ]; }
[ -z "$(events slow)" ] || check the_slow_host_still_has_its_snapshots kept
check the_run_ends_in_the_same_bits ends_well
no_ssh() { ! pgrep -x ssh >/dev/null; }
check no_ssh_outlives_it within 2 no_ssh
on n6 umount "$runs"
on "$victim" mkdir -p "$others"
check what_another_run_has_there_stays on "$victim" rmdir "$others"
check nothing_of_it_is_left nothing_left
finish
