#!/bin/bash
# Power loss: what the disk holds at a random moment, without what the system still meant to
# write.  A file system in a file is copied while a run saves, and the copy is mounted: every
# checkpoint that was reported is there, everything that can be seen is whole, and from there
# the run ends in the same bits.  POWER_SEED repeats a sequence of moments.
# LIMIT: 120
if [ -z "${POWER_MOUNTS:-}" ] && unshare --mount true 2>/dev/null; then # they end with the script
    POWER_MOUNTS=1 exec unshare --mount "$BASH" "$0" "$@"
fi
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

RANDOM=${POWER_SEED:=$RANDOM}
echo "# POWER_SEED=$POWER_SEED"
trials=6
tiny+=(--set train.steps=100000 --set checkpoint.every=3 --set checkpoint.keep=2)

[ -n "${POWER_MOUNTS:-}" ] || { skip power_loss "no right to mount" && finish; }
disk() { # disk IMAGE - mounted on $work/disk: its journal is replayed, as after a crash
    mkdir -p "$work/disk" && mount -o loop "$1" "$work/disk" 2>"$work/out"
}
{ truncate -s 64M "$work/image" && mkfs.ext4 -q "$work/image" 2>"$work/out"; } || { skip power_loss "no mkfs.ext4" && finish; }
disk "$work/image" || { skip power_loss "no loop devices" && finish; }

run=$work/disk/run
mpirun -np 2 "$kilorank" train --run "$run" "${tiny[@]}" >"$work/first" 2>&1 </dev/null &
reported() { sed -n 's/.*checkpoint of step \([0-9]*\) saved.*/\1/p' "$work/first" | tail -n 1; }
for ((i = 0; i < 200; i++)); do
    [ -n "$(reported)" ] && break
    sleep 0.1
done
mapfile -t ranks < <(workers "$run")

# Each copy is named after the newest checkpoint that had been reported before.
for ((i = 0; i < trials; i++)); do
    sleep "0.$(printf '%03d' $((RANDOM % 500)))"
    kill -STOP "${ranks[@]}"
    cp --sparse=always "$work/image" "$work/lost-$i-$(reported)"
    kill -CONT "${ranks[@]}"
done
kill -KILL "${ranks[@]}"
wait
umount "$work/disk"

after() { # after COPY - the machine is started again
    local step=${1##*-}
    newest=0
    disk "$1" || return 1
    newest=$(newest_of "$run")
    echo "# step $step was reported, step ${newest:-none} is there"
    [ "${newest:-0}" -ge "$step" ] && "$kilorank" ckpt verify "$run" >"$work/out" 2>&1 &&
        train 2 "$run" --set "train.stop_after=$((newest + 2))" && said "resumed at step $newest"
}
same() {
    train 0 "$work/whole" --set "train.stop_after=$((newest + 2))" &&
        [ "$(hash_of "$run")" = "$(hash_of "$work/whole")" ]
}
for ((i = 0; i < trials; i++)); do
    check "power_lost_at_moment_$i" after "$work/lost-$i-"*
    [ "$i" -eq $((trials - 1)) ] && check and_the_run_goes_on_in_the_same_bits same
    umount "$work/disk" 2>/dev/null
done
finish
