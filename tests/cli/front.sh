#!/bin/bash
# The program as a shell sees it: help, version, what it links, pipes; and the files that a
# run leaves for other programs: log.jsonl, TensorBoard events.
# usage: tests/cli/front.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

commands='train eval generate prepare tokenizer ckpt bench'

# --- help ----------------------------------------------------------------------------------
# helps WHAT COMMAND... - exit code 0, WHAT on stdout, nothing on stderr
helps() {
    local what=$1
    shift
    "$kilorank" "$@" >text 2>out </dev/null && grep -qE -- "$what" text && [ ! -s out ]
}
version() { helps "^kilorank $(cat "$top/VERSION")\$" --version && [ "$(wc -l <text)" -eq 1 ]; }
every_command() { # is listed, and says its own usage
    local command
    for command in $commands; do
        helps "^  $command +[a-z]" --help || return 1
        helps "^usage: kilorank $command " "$command" --help || return 1
        helps "^usage: kilorank $command " "$command" -h || return 1
    done
}
every_setting() { # with its default and what it may be
    helps 'optim\.lr .*3e-3' train --help && [ "$(grep -cE '(model|data|train|optim|dist|checkpoint|eval|run)\.[a-z_0-9]+ ' text)" -ge 40 ]
}
bare() { ends_with 2 "$kilorank" >text 2>out && [ ! -s text ] && said '^usage: kilorank'; }
check version_is_that_of_the_file_VERSION version
check every_command_has_help every_command
check train_help_lists_every_setting every_setting
check no_command_is_an_error_that_shows_the_usage bare
on_ranks() { timeout 20 mpirun -np 2 "$kilorank" train --help >out 2>&1; }
check help_under_mpirun_ends_well on_ranks

# --- what it needs -------------------------------------------------------------------------
light() { ldd "$kilorank" >out && ! said 'lib(mpi|open-rte|open-pal|hdf5|cuda|openblas|gomp)'; }
check the_front_program_links_no_MPI_HDF5_or_BLAS light
anywhere() { # also by a link, from another folder, with an empty environment
    ln -s "$kilorank" linked
    env -i ./linked bench --help >out 2>&1 && said '^usage: kilorank bench'
}
check it_finds_its_worker_through_a_link anywhere
alone() { # without the worker beside it: one line, not a crash
    mkdir lonely && cp "$kilorank" lonely/ && ends_with 2 lonely/kilorank eval x >out 2>&1 &&
        [ "$(wc -l <out)" -eq 1 ] && said 'lonely/kilorank-worker-cpu'
}
check without_its_worker_it_says_so alone

# --- pipes ---------------------------------------------------------------------------------
run() { train 0 run --set train.steps=12 --set run.log_every=5 --set eval.every=6 "$@"; }
check a_run run
progress='^step 5/12  loss [0-9]\.[0-9]+  [0-9]+ tokens/s  [0-9]+ ms/step  waiting [0-9.]+%  ETA '
lines() { said "$progress" && [ "$(grep -cE '^step [0-9]+/12 ' out)" -eq 3 ] && ! grep -q "$(printf '[\r\033]')" out; }
check progress_is_plain_lines_where_there_is_no_terminal lines
on_terminal() { # one line rewritten in place
    command -v script >/dev/null || return 0
    timeout 30 script -qec "$kilorank train --run tty ${tiny[*]} --set train.steps=12 --set run.log_every=5" /dev/null \
        >out 2>&1 </dev/null
    grep -q "$(printf '\r\033')"'\[Kstep 10/12' out
}
check progress_is_one_line_on_a_terminal on_terminal

# survives COMMAND - a run whose output nobody reads ends well, with its state
survives() { rm -rf deaf && bash -c "$1" && [ "$(newest_of deaf)" -eq 12 ]; }
train_deaf="timeout 30 $kilorank train --run deaf ${tiny[*]} --set train.steps=12 --set run.log_every=1"
check a_reader_that_leaves_does_not_end_training survives "set -o pipefail; $train_deaf 2>&1 </dev/null | head -n 1 >out"
check closed_output_does_not_end_training survives "$train_deaf <&- >&- 2>&-"
check a_full_disk_for_messages_does_not_end_training survives "$train_deaf >/dev/full 2>&1"
whole_after_closed() { # no message went into a file opened in the place of stderr
    "$kilorank" ckpt verify deaf >out 2>&1 && [ "$(hash_of deaf)" = "$(hash_of run)" ] &&
        ! grep -alE '^kilorank: |^step [0-9]+/' -r deaf --exclude=log.jsonl
}
survives "$train_deaf <&- >&- 2>&-"
check messages_to_closed_output_go_nowhere whole_after_closed
piped_help() { local s; "$kilorank" train --help | head -n 1 >out; s=("${PIPESTATUS[@]}"); [[ ${s[0]} == 0 || ${s[0]} == 141 ]] && said '^usage'; }
check help_may_be_cut_by_its_reader piped_help
closed_help() { "$kilorank" --help >&- 2>out && "$kilorank" train --help >&- 2>>out && [ ! -s out ]; }
check help_to_closed_output_is_quiet closed_help
full() { ends_with 6 "$kilorank" "$@" >/dev/full 2>out && said 'standard output'; }
full_disk() { full --version && full train --help && full ckpt list run; }
check a_full_disk_is_told_by_the_exit_code full_disk

# --- log.jsonl -----------------------------------------------------------------------------
log_is_good() {
    python3 - run/log.jsonl >out 2>&1 <<'END'
import json, math, sys
members = ["step", "loss", "grad_norm", "lr", "tokens", "tokens_per_s", "step_ms",
           "comm_exposed_ms", "model_tflop_per_s", "time"]
lines = [json.loads(line, parse_constant=lambda c: 1 / 0) for line in open(sys.argv[1])]
steps = [line for line in lines if "event" not in line]
assert [line["step"] for line in steps] == list(range(1, 13)), steps
for line in steps:
    assert sorted(line) == sorted(members), line
    assert all(isinstance(v, (int, float)) for v in line.values()), line
    assert line["tokens"] == line["step"] * 8 * 64 and 0 < line["loss"] < 7, line
    assert line["step_ms"] > 0 and line["time"] > 1.6e9, line
events = [line for line in lines if "event" in line]
assert {e["event"] for e in events} == {"eval", "checkpoint"}, events
assert [e["step"] for e in events if e["event"] == "eval"] == [6, 12], events
for e in events:
    if e["event"] == "eval":
        assert abs(math.exp(e["valid_loss"]) / e["perplexity"] - 1) < 1e-6, e
END
}
check log_jsonl_is_JSON_with_the_promised_members log_is_good
resumed() {
    train 0 run --set train.steps=14 && python3 -c '
import json
events = [json.loads(line) for line in open("run/log.jsonl") if "\"event\"" in line]
assert [e["step"] for e in events if e["event"] == "resume"] == [12], events' >out 2>&1
}

# --- TensorBoard ---------------------------------------------------------------------------
board_is_good() {
    python3 - run/tensorboard/events.out.tfevents.* >out 2>&1 <<'END'
import struct, sys
table = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    table.append(n)
def masked(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
assert masked(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
def fields(data): # protobuf: field number, value
    at = 0
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]; at += 1
            value |= (byte & 127) << shift; shift += 7
            if byte < 128: return value
    while at < len(data):
        key = varint()
        if key & 7 == 0: yield key >> 3, varint(); continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        yield key >> 3, data[at:at + size]
        at += size
    assert at == len(data)
data, at, seen, first = open(sys.argv[1], "rb").read(), 0, {}, None
while at < len(data):
    head, (size,) = data[at:at + 8], struct.unpack("<Q", data[at:at + 8])
    body = data[at + 12:at + 12 + size]
    assert struct.unpack("<I", data[at + 8:at + 12])[0] == masked(head), at
    assert struct.unpack("<I", data[at + 12 + size:at + 16 + size])[0] == masked(body), at
    event = dict(fields(body)); at += 16 + size
    assert struct.unpack("<d", event[1])[0] > 1.6e9
    if first is None: first = event[3]
    for number, value in fields(event.get(5, b"")):
        scalar = dict(fields(value))
        seen.setdefault(scalar[1].decode(), {})[event.get(2, 0)] = struct.unpack("<f", scalar[2])[0]
assert first == b"brain.Event:2", first
assert sorted(seen["train/loss"]) == list(range(1, 13)), seen
assert sorted(seen["valid/loss"]) == [6, 12], seen
import json
for line in map(json.loads, open("run/log.jsonl")):
    if "event" not in line: assert abs(seen["train/loss"][line["step"]] / line["loss"] - 1) < 1e-6
END
}
check tensorboard_events_are_framed_checksummed_and_those_of_the_log board_is_good
check a_resumed_run_says_so_in_its_log resumed
none() { train 0 quiet --set train.steps=1 --set run.tensorboard=false && [ ! -e quiet/tensorboard ]; }
check tensorboard_can_be_left_out none

# --- Prometheus ----------------------------------------------------------------------------
exported() { # what a text file of its own exporter would take: one TYPE a metric, the log's figures
    train 0 prom --set train.steps=4 --set run.log_every=2 --set run.prometheus="$work/kilorank.prom" &&
        python3 - >out 2>&1 <<'END'
import json, re
types, values = {}, {}
for line in open("kilorank.prom"):
    if m := re.fullmatch(r"# TYPE (\w+) (gauge|counter)\n", line):
        assert m[1] not in types, line
        types[m[1]] = m[2]
    elif not line.startswith("# HELP "):
        m = re.fullmatch(r'(\w+)\{run="prom"\} ([-+\w.]+)\n', line)
        assert m[1] in types, line
        values[m[1]] = float(m[2])
last = [s for s in map(json.loads, open("prom/log.jsonl")) if "event" not in s][-1]
assert values["kilorank_step"] == 4 and values["kilorank_tokens_total"] == last["tokens"], values
assert abs(values["kilorank_loss"] - last["loss"]) < 1e-6, values
END
}
check figures_for_prometheus exported
unexported() { train 0 prom --set train.steps=6 --set run.prometheus=/proc/none.prom && said 'none.prom: cannot write'; }
check where_they_cannot_be_written_training_goes_on unexported

finish
