#!/bin/bash
# What nodes keep in memory brings a run back within a step, whoever dies; what is damaged,
# lost, stale or another run's is never used, and then it goes on from disk.
# MEMORY_SEED repeats a sequence of moments.
# LIMIT: 240
if [ -z "${MEMORY_MOUNTS:-}" ] && unshare --mount true 2>/dev/null; then # they end with the script
    MEMORY_MOUNTS=1 exec unshare --mount "$BASH" "$0" "$@"
fi
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

RANDOM=${MEMORY_SEED:=$RANDOM}
echo "# MEMORY_SEED=$MEMORY_SEED"
mem=$work/mem
mkdir "$mem"
tiny+=(--set snapshot.every=1 --set snapshot.dir="$mem" --set dist.timeout=20 --set dist.fault=
    --set checkpoint.async=false)
train 0 "$work/whole" || true
want=$(hash_of "$work/whole")
check a_run_has_a_hash [ ${#want} -eq 32 ]
check a_run_that_ends_leaves_no_memory [ -z "$(ls -A "$mem")" ]
told() { grep -qE '"event":"snapshots","step":40,"text":"39 snapshots held training up for [0-9.]+ ms each' "$work/whole/log.jsonl"; }
check and_tells_what_snapshots_cost told
not_pointed_at() { [ ! -e "$work/whole/memory" ]; }
check and_no_pointer_to_any not_pointed_at

run=$work/run
fresh() { rm -rf "$run" "${mem:?}"/*; }
# until_step STEP RANKS [ARGUMENT...] - a new run in which a rank is killed after some STEP steps
until_step() {
    local step=$1 ranks=$2
    shift 2
    fresh
    train "$ranks" "$run" --set dist.fault="kill:$((step * 6)):$((ranks > 1))" "$@"
    [ -n "$(find "$mem" -name 'part-*')" ]
}
from_memory() { said 'resumed at step [0-9]+ from node memory'; }
from_disk() { said 'resumed at step [0-9]+ from disk'; }
lost() { # steps done again
    local n
    n=$(sed -n 's/.*resumed at .*; \([0-9]*\) steps* .* again.*/\1/p' "$work/out")
    echo "${n:-0}"
}
ends_right() { [ "$(hash_of "$run")" = "$want" ] && [ -z "$(ls -A "$mem")" ]; }
# back RANKS [ARGUMENT...] - the run goes on from memory to the same bits, losing a step at most and
# one more if its snapshot was still being written
back() { local ranks=$1; shift; train "$ranks" "$run" "$@" && from_memory && [ "$(lost)" -le 2 ] && ends_right; }

# --- killed ranks ------------------------------------------------------------------------
killed() { until_step "$@" && back "$2"; }
check one_of_two_ranks_is_killed killed 23 2

check with_nothing_whole_on_any killed 17 2 --set dist.shard=3
again_elsewhere() { # a run of RANKS that is killed goes on as TO ranks
    until_step 25 "$1" && back "$2" --set dist.shard="$3"
}
check two_ranks_go_on_as_three again_elsewhere 2 3 1
check three_ranks_go_on_as_one again_elsewhere 3 0 1
check two_ranks_go_on_as_four_that_shard_nothing again_elsewhere 2 4 0

long=(--set train.steps=600 --set checkpoint.every=200)
train 2 "$work/long" "${long[@]}" --set snapshot.every=0
killed_at_random() { # one rank, then all, and the same command until it ends
    local i pids tries=0 most=0 sign='"step":2'
    fresh
    for i in 1 2; do
        : >"$work/out"
        mpirun -np 2 "$kilorank" train --run "$run" "${tiny[@]}" "${long[@]}" >"$work/out" 2>&1 </dev/null &
        for ((tries = 0; tries < 500; tries++)); do
            grep -q "$sign" "$run/log.jsonl" "$work/out" 2>/dev/null && break
            sleep 0.02
        done
        sleep "0.$(printf '%03d' $((RANDOM % 900)))"
        mapfile -t pids < <(workers "$run")
        [ "$i" = 1 ] && pids=("${pids[RANDOM % ${#pids[@]}]}")
        kill -KILL "${pids[@]}" 2>/dev/null
        wait
        if [ "$i" = 2 ]; then from_memory || return 1; fi
        sign='resumed at'
        [ "$(lost)" -gt "$most" ] && most=$(lost)
        sleep 0.3
    done
    train 2 "$run" "${long[@]}" && from_memory || return 1
    [ "$(lost)" -gt "$most" ] && most=$(lost)
    echo "# killed twice: at most $most steps done again"
    [ "$most" -le 2 ] && [ "$(hash_of "$run")" = "$(hash_of "$work/long")" ] && [ -z "$(ls -A "$mem")" ]
}
check one_rank_and_then_all_killed_at_random_moments killed_at_random

# --- damage ------------------------------------------------------------------------------
part() { find "$mem" -name "part-0000$1-of-*.$2" | sort | head -n 1; }
flip_newest() { # flip a bit of the payload of the newest buffer of a part
    python3 - "$1" <<'END'
import struct, sys
f = open(sys.argv[1], "r+b")
size = f.seek(0, 2)
places = []
for begin in (0, size // 2):
    f.seek(begin)
    head = f.read(128)
    if head[:8] == b"KRMEMORY":
        places.append((struct.unpack_from("<q", head, 56)[0], begin + 8192 + 777))
step, at = max(places)
f.seek(at)
byte = f.read(1)[0]
f.seek(at)
f.write(bytes([byte ^ 4]))
END
}
one_flipped() {
    until_step 23 2 && flip_newest "$(part 1 own)" || return 1
    train 2 "$run" && from_memory && said 'block 0 is damaged' && [ "$(lost)" -ge 1 ] && ends_right
}
check a_flipped_bit_sends_the_run_to_the_snapshot_before one_flipped
no_part() {
    until_step 23 2 && rm "$(part 1 own)" && train 2 "$run" && from_disk &&
        said 'not whole: parts of 1 ranks are lost' && ends_right
}
check a_lost_part_sends_it_to_disk_with_a_word no_part
wiped() {
    until_step 23 0 && rm -rf "${mem:?}"/* && train 0 "$run" && from_disk &&
        said 'hold no snapshot of this run in memory' && [ "$(lost)" -ge 1 ] && ends_right
}
check wiped_memory_sends_it_to_disk_with_a_word wiped
cut_short() { until_step 23 0 && truncate -s 5000 "$(part 0 own)" && train 0 "$run" && from_disk && ends_right; }
check a_part_that_is_cut_short_is_not_used cut_short

# --- other runs --------------------------------------------------------------------------
begun_anew() {
    until_step 23 0 && rm -rf "$run" && train 0 "$run" --set train.steps=20 && ! said resumed && [ -z "$(ls -A "$mem")" ]
}
check a_run_begun_anew_in_the_same_place_starts_from_nothing begun_anew
copied() {
    until_step 23 0 && rm -rf "$work/copy" && cp -a "$run" "$work/copy" && train 0 "$work/copy" &&
        from_disk && [ "$(hash_of "$work/copy")" = "$want" ]
}
check the_memory_of_a_run_is_not_that_of_its_copy copied
check and_is_still_there_for_it back 0
older_than_disk() { # a checkpoint of a later step than the memory
    until_step 23 0 && mv "$mem" "$mem.old" && mkdir "$mem" || return 1
    train 0 "$run" --set train.stop_after=35 && rm -rf "$mem" && mv "$mem.old" "$mem" &&
        train 0 "$run" --set train.stop_after=0 && said 'resumed at step 35 from disk' && ends_right
}
check memory_older_than_disk_is_not_used older_than_disk
someone_elses() { # a folder that others could have filled
    until_step 23 0 && chmod 0755 "$mem"/kilorank-* && train 0 "$run" && from_disk &&
        said 'not a folder of ours alone' && [ "$(hash_of "$run")" = "$want" ]
}
check a_folder_that_others_may_enter_is_not_used someone_elses

# --- room --------------------------------------------------------------------------------
fresh
no_folder() { train 0 "$run" --set snapshot.dir=/proc/none && said 'no snapshots in node memory' && [ "$(hash_of "$run")" = "$want" ]; }
check without_a_memory_file_system_training_goes_on no_folder
# each rank: 0.7 MiB a buffer
in_tmpfs() { # in_tmpfs SIZE WORDS
    fresh
    mount -t tmpfs -o "size=$1" none "$mem" || return 1
    train 2 "$run" && said "$2" && [ "$(hash_of "$run")" = "$want" ]
    local status=$?
    umount "$mem"
    return "$status"
}
if [ -n "${MEMORY_MOUNTS:-}" ] && mount -t tmpfs -o size=1m none "$mem" 2>/dev/null && umount "$mem"; then
    check with_little_room_there_is_one_buffer in_tmpfs 1800k 'one buffer'
    check with_none_training_goes_on in_tmpfs 300k 'no snapshots in node memory'
else
    skip with_little_room_there_is_one_buffer "no mounts here"
    skip with_none_training_goes_on "no mounts here"
fi
broken() { # the write fails in the middle of the run
    fresh
    KILORANK_FS_FAULT=write:60:EIO train 0 "$run" --set checkpoint.every=0 && said 'no more are taken' && [ "$(hash_of "$run")" = "$want" ]
}
check a_write_that_fails_ends_snapshots_and_not_the_run broken

# --- nodes -------------------------------------------------------------------------------
nodes() { # nodes ARGUMENT... - 2 ranks on each of two pretended nodes
    local a=("$kilorank" train --run "$run" "${tiny[@]}" "$@")
    timeout -k 2 "$RUN_LIMIT" mpirun -np 2 -x KILORANK_NODE=a "${a[@]}" : -np 2 -x KILORANK_NODE=b "${a[@]}" \
        >"$work/out" 2>&1 </dev/null
}
node_dies() {
    fresh
    nodes --set dist.fault=kill:140:1
    said 'a copy on the next node' && [ "$(find "$mem" -name '*.copy' | wc -l)" -eq 4 ]
}
without_b() {
    node_dies && rm -rf "$mem"/kilorank-*-b || return 1
    nodes && from_memory && [ "$(lost)" -le 2 ] && ends_right
}
check what_a_lost_node_had_comes_from_its_partner without_b
flipped_own() {
    node_dies && flip_newest "$(part 3 own)" && nodes && from_memory && said 'is damaged' && [ "$(lost)" -le 2 ] && ends_right
}
check a_flipped_bit_is_made_good_by_the_copy flipped_own
fewer() {
    node_dies && rm -rf "$mem"/kilorank-*-a/* || return 1
    KILORANK_NODE=b train 2 "$run" && from_memory && ends_right
}
check the_node_that_is_left_goes_on_alone fewer
both_gone() {
    node_dies && rm -rf "$mem"/kilorank-*-a && rm -f "$mem"/kilorank-*-b/*.copy || return 1
    nodes && from_disk && said 'parts of 2 ranks are lost' && ends_right
}
check without_both_copies_it_is_the_disk both_gone
finish
