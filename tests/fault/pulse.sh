#!/bin/bash
# What a watcher sees of ranks that hang or end: step, phase, and who holds up whom.
# LIMIT: 100
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

# a watcher in a few lines: the layout is a contract (scheduler/pulse.h)
watch=(python3 -c '
import struct, sys
path, do = sys.argv[1], sys.argv[2]
if do == "create":
    open(path, "wb").write(b"KRPULSE1" + struct.pack("<II", 1, 2) + bytes(48 + 2 * 512))
    sys.exit()
data = open(path, "rb").read()
phases = "starting reading computing reducing updating snapshot saving evaluating done".split()
for slot in range(2):
    at = 64 + 512 * slot
    (seq, gen, pid, started, step, changed, entered, left, comp, wait, loss, snap, cost, rank, size,
     phase, code) = struct.unpack_from("<Qqqqqd QQ ddd q d iiii".replace(" ", ""), data, at)
    note = data[at + 168:at + 512].split(b"\0")[0].decode()
    print(f"rank={rank}/{size} step={step} phase={phases[phase]} code={code}",
          f"open={entered - left} behind={entered} compute={comp > 0 and wait > 0} note={note}")
')
export KILORANK_PULSE=$work/pulse
look() { "${watch[@]}" "$KILORANK_PULSE" look >"$work/seen"; }
seen() { look; grep -qE -- "$1" "$work/seen" || { sed 's/^/# /' "$work/seen"; false; }; }

"${watch[@]}" "$KILORANK_PULSE" create
check a_run_ends_well train 2 "$work/a"
check both_ranks_say_so seen '^rank=0/2 step=40 phase=done code=0 open=0 .*compute=True'
check and_the_second_too seen '^rank=1/2 step=40 phase=done code=0 open=0 '

"${watch[@]}" "$KILORANK_PULSE" create
check a_hanging_rank_ends_the_run ends_with 8 train 2 "$work/b" --set dist.fault=hang:30:1 --set dist.timeout=2
culprit_named() {
    look
    local culprit victim
    victim=$(sed -n '1s/.*behind=\([0-9]*\) .*/\1/p' "$work/seen")
    culprit=$(sed -n '2s/.*behind=\([0-9]*\) .*/\1/p' "$work/seen")
    sed 's/^/# /' "$work/seen"
    [ "$culprit" -eq $((victim - 1)) ] && sed -n 1p "$work/seen" | grep -q 'open=1' &&
        sed -n 2p "$work/seen" | grep -q 'open=0'
}
check the_victim_has_entered_what_the_culprit_has_not culprit_named
check the_reason_is_told seen 'note=.*collective'
unset KILORANK_PULSE
check without_the_variable_nothing_happens train 2 "$work/c"
same() { [ "$(hash_of "$work/a")" = "$(hash_of "$work/c")" ] && [ -n "$(hash_of "$work/a")" ]; }
check and_the_bits_are_the_same same
finish
