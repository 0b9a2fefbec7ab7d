#!/bin/bash
# `kilorank chaos` on four hosts and a spare: faults of every kind, cut cables among them, one
# after the other, and the same bits.  CHAOS_SEED, CHAOS_STEPS, CHAOS_EVERY (seconds) and
# CHAOS_DELAY (seconds, of each message) choose another, or a longer, course of events.
# APART: it has several hosts, and faults come by the clock
# LIMIT: 300
# shellcheck source=tests/cluster/lib.bash
. "$(dirname "$0")/lib.bash"
cluster 5
# shellcheck source=tests/cluster/launch.bash
. "$(dirname "$0")/launch.bash"
cd "$work" || exit 1

: "${CHAOS_SEED:=3}" "${CHAOS_STEPS:=1000}" "${CHAOS_EVERY:=3}" "${CHAOS_DELAY:=0.002}"
cat >outage <<END
#!/bin/sh
# a node's cable, out and in again after the run has noticed
ip link set v\$1 down && : >$CLUSTER_DIR/\$1.unplugged && sleep 8 &&
    ip link set v\$1 up && rm $CLUSTER_DIR/\$1.unplugged
END
chmod +x outage
hosts=$(hostfile 1 n1 n2 n3 n4 n5)
chaos() {
    timeout -k 5 "$((250 * TIME_FACTOR))" "$kilorank" chaos --run "$work/both" -n 4 --hostfile "$hosts" \
        --agent-command "$rsh" --shell "$rsh" --node-fault "$work/outage" --seed "$CHAOS_SEED" \
        --every "$CHAOS_EVERY" --faults rank,hang,launcher,agent,supervisor,node \
        "${tiny[@]}" "${small[@]}" --set "dist.fault=delay:$CHAOS_DELAY" --set snapshot.every=1 \
        --set checkpoint.every=100 --set "train.steps=$CHAOS_STEPS" >out 2>&1 </dev/null
}
check a_run_under_faults_ends chaos
check in_the_same_bits said '^the same bits after [0-9]+ faults'
several() { [ "$(grep -c 'went on after' out)" -ge 4 ]; }
check after_several_faults several
effective() { said '^chaos +'"$CHAOS_STEPS"' steps, .* ETTR [0-9.]+ %'; }
check and_tells_what_they_cost effective
sed -n 's/^/# /; /fault  *times/,$p' out

refused() { ends_with 2 "$kilorank" chaos "$@" >out 2>&1 && [ "$(wc -l <out)" -eq 1 ] && said "$why"; }
why='--run DIR is missing' && check it_wants_a_run refused -n 2
why='both exists' && check it_wants_a_new_folder refused -n 2 --run both
why='no fault is called "rain"' && check it_knows_its_faults refused -n 2 --run new --faults rank,rain
why='needs --node-fault' && check a_node_is_not_taken_by_magic refused -n 2 --run new --faults node
why='want a number above 0' && check times_are_numbers refused -n 2 --run new --every never
finish
