#!/bin/bash
# The file system of a run hangs for longer than a hang is allowed to last: whatever touches it
# stands still where nothing can kill it.  When it answers again, the run goes on by itself.
# LIMIT: 120
if [ -z "${HUNG_MOUNTS:-}" ] && unshare --mount true 2>/dev/null; then # they end with the script
    HUNG_MOUNTS=1 exec unshare --mount "$BASH" "$0" "$@"
fi
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"
# shellcheck source=tests/fault/launch.bash
. "$(dirname "$0")/launch.bash"

[ -n "${HUNG_MOUNTS:-}" ] || { skip hung_disk "no right to mount" && finish; }
command -v fsfreeze >/dev/null || { skip hung_disk "no program fsfreeze" && finish; }
{ truncate -s 64M "$work/image" && mkfs.ext4 -q "$work/image" 2>"$work/out"; } || { skip hung_disk "no mkfs.ext4" && finish; }
mkdir "$work/disk"
mount -o loop "$work/image" "$work/disk" 2>"$work/out" || { skip hung_disk "no loop devices" && finish; }
# what is frozen when the script ends would stand still for ever
trap 'fsfreeze -u "$work/disk" 2>/dev/null; cleanup' EXIT
cd "$work" || exit 1

long=(--set train.steps=150 --set checkpoint.every=50 --set checkpoint.keep=2)
check a_run_without_faults_is_the_measure reference
timeout -k 2 "$RUN_LIMIT" "$kilorank" launch --run disk/run -n 2 --patience 60 "${tiny[@]}" "${long[@]}" \
    --set dist.fault=delay:0.003 --set snapshot.every=1 >"$work/out" 2>&1 </dev/null &
supervisor=$!
# What freezes it thaws it, whoever kills this script meanwhile: in a session of its own, and
# without the mark by which tests/run finds processes.
hangs() { # hangs SECONDS
    # shellcheck disable=SC2016  # for the other shell to expand
    within 20 is_at disk/run 30 && setsid -w env -u KILORANK_TEST sh -c 'trap "" TERM INT HUP
        fsfreeze -f disk && sleep "$1"; fsfreeze -u disk' hangs "$1"
}
check it_is_hit_while_it_trains hangs 7
check and_goes_on_to_its_end ended 0
check in_the_same_bits same_bits disk/run
scratch() { [ "$(grep -c '^{"step":1,' disk/run/log.jsonl)" -eq 1 ]; }
check and_not_from_scratch scratch
umount disk
finish
