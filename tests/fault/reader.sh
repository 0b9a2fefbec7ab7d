#!/bin/bash
# Whatever is wrong with the files of a checkpoint is found, and the checkpoint before it is
# used; if none is left the run stops, and does not start from scratch.
# READER_SEED repeats the places of the flipped bits.
# LIMIT: 180
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

RANDOM=${READER_SEED:=$RANDOM}
echo "# READER_SEED=$READER_SEED"
tiny+=(--set train.steps=12 --set checkpoint.every=4)
train 2 "$work/good" || true
want=$(hash_of "$work/good")
run=$work/run
newest=$(step_dir "$run" 12)

fresh() { rm -rf "$run" && cp -a "$work/good" "$run"; }
random_below() { echo $(((RANDOM << 15 | RANDOM) % $1)); }
flip() { # flip FILE BYTE BIT
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059  # the format is the byte
    printf "\\x$(printf '%02x' $((byte ^ 1 << $3)))" |
        dd of="$1" bs=1 seek="$2" count=1 conv=notrunc status=none
}
# damage_found: verify says so (code 3); the newest is taken for bad
damage_found() {
    "$kilorank" ckpt verify "$newest" >"$work/out" 2>&1
    [ $? -eq 3 ]
}
# The run passes over it, says so, goes on from step 8, and ends in the right bits.
passed_over() { # passed_over RANKS
    train "$1" "$run" && said 'resumed at step 8' && said "$(basename "$newest")" &&
        [ "$(hash_of "$run")" = "$want" ]
}

sound() { "$kilorank" ckpt verify "$1" >"$work/out" 2>&1; }
check the_run_is_sound sound "$work/good"

# --- 200 flipped bits ------------------------------------------------------------------------
fresh
silent=0 found=0
try_flip() { # try_flip FILE BYTES
    local at bit
    at=$(random_below "$2") bit=$((RANDOM % 8))
    flip "$1" "$at" "$bit"
    if damage_found; then
        found=$((found + 1))
    else
        silent=$((silent + 1))
        echo "# not found: bit $bit of byte $at of ${1##*/}"
    fi
    flip "$1" "$at" "$bit"
}
for ((i = 0; i < 140; i++)); do
    shard=$newest/shard-0000$((RANDOM % 2)).h5
    try_flip "$shard" "$(stat -c %s "$shard")"
done
for ((i = 0; i < 40; i++)); do # superblock, object headers: what HDF5 itself reads
    try_flip "$newest/shard-0000$((RANDOM % 2)).h5" 4096
done
for ((i = 0; i < 20; i++)); do
    try_flip "$newest/manifest.json" "$(stat -c %s "$newest/manifest.json")"
done
echo "# $found flipped bits found, $silent silent"
check of_200_flipped_bits_none_is_silent [ "$found $silent" = "200 0" ]
check all_bits_are_back_in_place sound "$run"

flip_and_resume() { # flip_and_resume FILE BYTE RANKS
    fresh
    flip "$newest/$1" "$2" 3
    passed_over "$3"
}
middle=$(($(stat -c %s "$newest/shard-00001.h5") / 2))
check a_flipped_bit_of_data_on_one_rank flip_and_resume shard-00001.h5 "$middle" 0
check a_flipped_bit_of_data_on_two_ranks flip_and_resume shard-00000.h5 "$middle" 2
check a_flipped_bit_of_hdf5_metadata flip_and_resume shard-00000.h5 48 2
check a_flipped_bit_of_the_manifest flip_and_resume manifest.json 700 2

# --- files that are not what they were -------------------------------------------------------
other=$(step_dir "$run" 8)
change() { # change RANKS COMMAND...: do it to a fresh run
    local ranks=$1
    shift
    fresh
    "$@" && run_is_bad && passed_over "$ranks"
}
run_is_bad() {
    "$kilorank" ckpt verify "$run" >"$work/out" 2>&1
    [ $? -eq 3 ]
}
swap() { mv "$newest/shard-00000.h5" "$run/aside" && mv "$newest/shard-00001.h5" "$newest/shard-00000.h5" &&
    mv "$run/aside" "$newest/shard-00001.h5"; }
future() { sed -i 's/"kilorank_checkpoint": 1/"kilorank_checkpoint": 2/' "$newest/manifest.json"; }
check a_shard_that_is_cut change 2 truncate -s -1 "$newest/shard-00001.h5"
check a_shard_that_is_cut_in_half change 0 truncate -s "$middle" "$newest/shard-00001.h5"
check a_shard_that_is_longer change 2 truncate -s +1 "$newest/shard-00000.h5"
check a_shard_that_is_missing change 2 rm "$newest/shard-00000.h5"
check shards_that_are_swapped change 2 swap
check a_shard_of_another_step change 0 cp "$other/shard-00000.h5" "$newest/shard-00000.h5"
check an_empty_manifest change 2 truncate -s 0 "$newest/manifest.json"
check a_missing_manifest change 2 rm "$newest/manifest.json"
# it claims to be step 8, so the real step 8 is as new, and is found first
as_if_older() {
    fresh
    cp "$other/manifest.json" "$newest/manifest.json" && run_is_bad && train 2 "$run" &&
        said 'resumed at step 8' && [ "$(hash_of "$run")" = "$want" ]
}
check the_manifest_of_another_step as_if_older
check a_manifest_of_the_future change 0 future

# --- nothing good is left --------------------------------------------------------------------
contents() { find "$run/checkpoints" "$run/log.jsonl" "$run/config.ini" -type f -exec md5sum {} + | sort; }
none_left() { # none_left RANKS COMMAND... - for each checkpoint, its folder as last argument
    local ranks=$1 step before
    shift
    fresh
    for step in 4 8 12; do "$@" "$(step_dir "$run" "$step")" || return 1; done
    before=$(contents)
    train "$ranks" "$run"
    [ $? -eq 3 ] && said 'none of them valid|no valid checkpoint' && [ "$(contents)" = "$before" ]
}
cut() { truncate -s 1000 "$1/shard-00000.h5"; }
empty() { truncate -s 0 "$1/manifest.json"; }
check all_shards_cut_is_no_new_run none_left 0 cut
check all_shards_cut_is_no_new_run_of_two_ranks none_left 2 cut
check all_manifests_empty_is_no_new_run none_left 2 empty
finish
