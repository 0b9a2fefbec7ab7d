#!/bin/bash
# A checkpoint exists wholly or not at all: crashes at each step of the commit, disks that
# are full, read-only or failing.  tests/unit/t_ckpt_faults.c does the same call by call;
# here it is the worker, on two ranks, under mpirun.
# LIMIT: 240
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

tiny+=(--set train.steps=16 --set checkpoint.every=4 --set checkpoint.keep=2)
train 0 "$work/whole"
declare -A hash_at
for step in 12 16; do hash_at[$step]=$(hash_of "$(step_dir "$work/whole" $step)"); done

# The newest checkpoint is that of a step, all of it; and the run goes on to the same bits.
sound() { # sound DIR
    local newest
    newest=$(newest_of "$1")
    "$kilorank" ckpt verify "$1" >"$work/out" 2>&1 &&
        train 2 "$1" --set train.stop_after=0 && [ "$(hash_of "$1")" = "${hash_at[16]}" ] &&
        [ -n "$newest" ] && [ "$newest" -ge "$2" ]
}

# --- crashes ---------------------------------------------------------------------------------
# The calls that matter, counted from the start of the process that resumes at step 4 and
# saves step 8: `ckpt list` afterwards knows step 4 or step 8, and every byte of it.
crash_at() { # crash_at FAULT
    local dir=$work/crash
    rm -rf "$dir"
    train 2 "$dir" --set train.stop_after=4 || return 1
    if KILORANK_FS_FAULT=$1 train 2 "$dir" --set train.stop_after=8; then return 1; fi
    sound "$dir" 4
}
# rank 0 renames config.ini, the manifest, the attempt (the commit), the hint
for n in 2 3 4; do
    check "killed_before_rename_$n" crash_at "rename:$n:crash"
    check "killed_after_rename_$n" crash_at "rename:$n:after"
done
# both ranks: while shards are written and flushed, and around the flush of the folder
for n in 2 4 7; do check "killed_at_write_$n" crash_at "write:$n:crash"; done
for n in 2 3 4 5 6; do check "killed_at_flush_$n" crash_at "fsync:$n:crash"; done

# --- calls that fail -------------------------------------------------------------------------
# A save that fails is a warning that names the file, training goes on, and the save of
# step 8 is there at the end.
survives() { # survives FAULT SAYS
    local dir=$work/fails
    rm -rf "$dir"
    train 2 "$dir" --set train.stop_after=4 || return 1
    KILORANK_FS_FAULT=$1 train 2 "$dir" --set train.stop_after=12 || return 1
    said "$2" || { echo "# nothing said of $2"; return 1; }
    said 'training goes on' || return 1
    [ "$(newest_of "$dir")" = 12 ] && [ "$(hash_of "$dir")" = "${hash_at[12]}" ] && sound "$dir" 12
}
check a_write_fails survives write:4:EIO 'shard-0000.\.h5: cannot write: Input/output error'
check a_flush_fails survives fsync:4:EIO 'cannot flush to disk: Input/output error'
check the_rename_of_the_manifest_fails survives rename:2:EIO 'manifest\.json'
check the_commit_fails survives rename:3:EIO 'cannot rename'

# The last save of a run fails: the older ones are intact, the code says so.
last_fails() {
    local dir=$work/last
    train 2 "$dir" --set train.stop_after=12 || return 1
    KILORANK_FS_FAULT=$1 train 2 "$dir" --set train.stop_after=16
    [ $? -eq 6 ] || return 1
    said "$2" && [ "$(newest_of "$dir")" = 12 ] && sound "$dir" 12
}
check the_last_save_fails last_fails write:4+:ENOSPC 'No space left on device'

# --- real file systems -----------------------------------------------------------------------
# shellcheck disable=SC2016  # expanded by the inner shell
in_a_mount='
    set -u
    mount -t tmpfs -o size=1m none "$1" || exit 77
    shift
    "$@"'
mounted() { # mounted COMMAND... - in a namespace of its own, over $work/small
    mkdir -p "$work/small"
    export -f train said ends_with full_disk read_only_disk steps_of newest_of
    unshare --mount bash -c "$in_a_mount" mounted "$work/small" "$@"
}
full_disk() { # the state is 1.3 MiB: one checkpoint does not fit into 1 MiB
    local dir=$2/run
    train 2 "$dir" --set "train.stop_after=4"
    [ $? -eq 6 ] && grep -q 'MiB free, a checkpoint needs' "$1/out" && [ -z "$(steps_of "$dir")" ] &&
        mount -o remount,size=8m "$2" && train 2 "$dir" --set train.stop_after=8 &&
        head -c 256k /dev/zero >"$2/reserve" && ! cat /dev/zero 2>/dev/null >"$2/ballast" &&
        rm "$2/reserve" || return 1 # room for small files, not for a checkpoint
    train 2 "$dir" --set train.stop_after=12
    [ $? -eq 6 ] && grep -q "$dir.* free, a checkpoint needs" "$1/out" && [ "$(newest_of "$dir")" = 8 ] &&
        "$kilorank" ckpt verify "$dir" >>"$1/out" 2>&1 &&
        rm "$2/ballast" && train 2 "$dir" --set train.stop_after=12 && [ "$(newest_of "$dir")" = 12 ]
}
read_only_disk() {
    local dir=$2/run
    mount -o remount,size=8m "$2" && train 2 "$dir" --set train.stop_after=4 &&
        mount -o remount,ro "$2" || return 1
    train 2 "$dir" --set train.stop_after=8
    [ $? -eq 6 ] && grep -q 'Read-only file system' "$1/out" && [ "$(newest_of "$dir")" = 4 ] &&
        "$kilorank" ckpt verify "$dir" >>"$1/out" 2>&1
}
export kilorank work RUN_LIMIT
if unshare --mount true 2>/dev/null; then
    # arrays do not pass through the environment
    eval "train() { $(declare -f train | sed '1d'); }"
    tiny_text=$(declare -p tiny)
    in_a_mount="$tiny_text; $in_a_mount"
    check a_full_disk mounted full_disk "$work" "$work/small"
    check a_read_only_disk mounted read_only_disk "$work" "$work/small"
else
    skip a_full_disk "no right to mount"
    skip a_read_only_disk "no right to mount"
fi
finish
