#!/bin/bash
# A launched run on several nodes: their agents are started by a command in place of ssh,
# here on this machine.  Lost, cut off, bad, slow and returning nodes.  What needs networks
# of their own is in tests/cluster.
# LIMIT: 240
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"
# shellcheck source=tests/fault/launch.bash
. "$(dirname "$0")/launch.bash"
cd "$work" || exit 1
RUN_LIMIT=$((150 * TIME_FACTOR)) # a run sees several faults
long=(--set train.steps=240 --set checkpoint.every=20 --set checkpoint.keep=2)
slowly=(--set dist.fault=delay:0.003)

# A host is a file; without it nobody gets there.
cat >rsh <<'EOF'
#!/bin/sh
[ -e "$PRETEND/$1" ] || exit 255
host=$1
shift
[ -e "$PRETEND/$host.bad" ] && export KILORANK_CHECK_FAULT=memory
export TMPDIR=$PRETEND/tmp/$host # Open MPI's daemons of hosts do not share one
mkdir -p "$TMPDIR"
exec sh -c "$*"
EOF
chmod +x rsh
export PRETEND=$work
host() { local h; for h; do : >"$h"; done; }
hosts() { local h; for h; do echo "$h slots=1"; done >hostfile; }

launch() { # launch DIR RANKS [ARGUMENT...] - in the background
    local dir=$1 ranks=$2
    shift 2
    timeout -k 2 "$RUN_LIMIT" "$kilorank" launch --run "$dir" -n "$ranks" --hostfile hostfile \
        --bind 127.0.0.1 --agent-command "$work/rsh" --patience 10 "${tiny[@]}" "${long[@]}" \
        "${slowly[@]}" "$@" >>"$work/out" 2>&1 </dev/null &
    supervisor=$!
}
node_is() { # node_is DIR NODE STATE ROLE
    "$kilorank" status "$1" | grep -qE "^  $2 +$3 +$4"
}
power_off() { # power_off DIR NODE - and what was in its memory is gone
    local agent slots
    agent=$(agent_of "$1" "$2") || return 1
    slots=$(readlink "/proc/$agent"/fd/* | grep kilorank-pulse | head -n 1)
    rm -f "$2" && kill -KILL "$agent" && rm -f "$slots"
}

check a_run_on_one_rank_is_the_measure reference

# --- lost nodes --------------------------------------------------------------------------------
host n1 n2 n3 n4
hosts n1 n2 n3 n4
starts() { launch lost 3 && within 20 is_at lost 15 && said_in lost '"nodes": \["n1", "n2", "n3"\]'; }
check the_first_nodes_get_the_ranks_and_the_rest_is_spare starts
spare() { power_off lost n1 && within 20 has lost running 2 && said_in lost '"rung": "spare".*"head": "n4"'; }
check a_spare_takes_the_place_of_a_lost_node spare
fewer() { power_off lost n3 && within 20 has lost running 3 && said_in lost '"ranks": 2, "rung": "fewer"'; }
check without_a_spare_it_goes_on_with_fewer_ranks fewer
grows() { host n1 && within 30 said_in lost '"generation": 4, "ranks": 3' && within 20 has lost running 4; }
check it_grows_when_a_node_comes_back grows
check it_ends_with_0 ended 0
check and_with_the_bits_of_one_rank same_bits lost
check nothing_is_left_behind nothing_is_left lost

# --- nodes that are not dead -------------------------------------------------------------------
silent() { # stopped, as one that hangs or is cut off: lost after 5 s; back, it is a spare
    local agent
    launch cut 2 --set dist.fault=delay:0.01 && within 20 is_at cut 15 && agent=$(agent_of cut n2) && kill -STOP "$agent" &&
        within 15 has cut running 2 && said_in cut '"kind": "node lost", "node": "n2".*nothing heard' &&
        kill -CONT "$agent" && within 10 node_is cut n2 up spare
}
host n3
check a_silent_node_is_replaced_and_is_a_spare_when_it_is_back silent
fenced() { [ "$(workers cut | wc -l)" -eq 2 ]; }
check its_old_ranks_are_gone fenced
new_host() { # the file changes: one joins
    host n5 && hosts n1 n2 n3 n4 n5 && within 15 node_is cut n5 up spare
}
check a_node_that_joins_the_host_file_is_taken_in new_host
leaves() { # one with ranks leaves: they save and move, no step is lost
    hosts n2 n3 n4 n5 && within 20 said_in cut '"event": "regroup"' && within 20 has cut running 3 &&
        node_is cut n1 gone none
}
check a_node_that_leaves_it_gives_up_its_ranks leaves
check the_cut_run_ends_with_0 ended 0
check the_cut_run_ends_in_the_same_bits same_bits cut

# --- before the start --------------------------------------------------------------------------
hosts n1 n2 n3
: >n1.bad
bad() {
    launch bad 2 --set train.stop_after=5 && ended 0 && said_in bad '"node": "n1", "state": "bad", "why": "memory' &&
        said_in bad '"nodes": \["n2", "n3"\]'
}
check a_node_that_fails_its_check_is_left_out_and_named bad
: >n2.bad
none() { launch none 3 --wait 2 --min-ranks 2; ended 10 && said_in none '"code": 10'; }
check too_few_nodes_end_with_a_code_of_their_own none
rm -f n1.bad n2.bad n3
late() { launch late 3 --wait 30 --min-ranks 3 --set train.stop_after=5; sleep 2; host n3; ended 0; }
check a_node_that_is_late_is_waited_for late
refused() { # refused PATTERN ARGUMENT...
    local pattern=$1
    shift
    "$kilorank" launch --run refused "$@" >text 2>&1
    [ $? -eq 2 ] && [ "$(wc -l <text)" -eq 1 ] && grep -qE -- "$pattern" text
}
check too_many_ranks_are_refused refused 'slots' -n 9 --hostfile hostfile
check too_many_spares_are_refused refused 'spares' -n 2 --spares 2 --hostfile hostfile
echo 'n1 slots=x' >wrong
check a_bad_host_file_is_refused refused 'wrong:1' -n 1 --hostfile wrong
echo 'fd00::1 slots=1' >six
check an_address_is_no_name refused 'six:1: fd00::1: an IPv6 address; give the host a name' -n 1 --hostfile six

finish
