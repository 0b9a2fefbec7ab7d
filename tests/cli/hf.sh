#!/bin/bash
# `import` and `export`: a trained run goes out and comes back as it was, and is trained
# further; what is bad leaves nothing behind.
# usage: tests/cli/hf.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

# say STATUS COMMAND... - what it prints goes to $work/out
say() { local want=$1; shift; ends_with "$want" timeout 60 "$kilorank" "$@" >out 2>&1 </dev/null; }
loss_of() { timeout 30 "$kilorank" eval "$1" --data text.txt --batches 2 2>>out | sed 's/.*"loss": \([^,]*\),.*/\1/'; }
one_line() { [ "$(wc -l <out)" -eq 1 ]; }
nothing_left() { [ ! -e "$1" ] && ! compgen -G "$1.partial-*" >/dev/null; }

train 0 run --set train.steps=20 --set checkpoint.every=20 || { cat out; exit 1; }
cp /usr/share/common-licenses/GPL-3 text.txt

# --- there and back --------------------------------------------------------------------------
there() {
    say 0 export run -o model && say 0 import model -o again &&
        [ "$(loss_of run)" = "$(loss_of again)" ] && [ -n "$(loss_of run)" ]
}
check an_exported_run_comes_back_with_the_same_loss there
same_again() { say 0 export again -o model-2 && said 'with the files of its origin' && diff -r model model-2; }
check and_goes_out_again_byte_for_byte same_again
table() { say 0 import model -o third && said 'model.layers.\*.mlp.gate_proj.weight +x 2 +block.\*.mlp.up.weight \(gate\) +128 x 64 +F32' && said '^llama: 2 layers, dim 64, 4/2 heads of 16'; }
check import_prints_what_it_read table
by_others() { # the container as any reader of it sees it
    python3 - <<'END'
import json, struct
raw = open("model/model.safetensors", "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
head = json.loads(raw[8:8 + n])
assert head.pop("__metadata__") == {"format": "pt"}
end = 0
for name, t in head.items():
    assert t["dtype"] == "F32" and t["data_offsets"][0] == end, (name, t)
    end = t["data_offsets"][1]
assert 8 + n + end == len(raw) and n % 8 == 0
config = json.load(open("model/config.json"))
assert config["model_type"] == "llama" and config["hidden_size"] == 64, config
assert config["architectures"] == ["LlamaForCausalLM"] and config["torch_dtype"] == "float32"
assert "model.layers.1.self_attn.q_proj.weight" in head and len(head) == 9 * 2 + 3
json.load(open("model/generation_config.json"))
END
}
check other_readers_find_a_sound_file by_others
shards() {
    say 0 export run -o bf16 --dtype bf16 --shard-size 1 && said 'in 1 file' && say 0 import bf16 -o from16 &&
        say 0 export from16 -o bf16-again && cmp bf16/model.safetensors bf16-again/model.safetensors
}
check bf16_goes_out_in_again_and_out_alike shards

spoken() { # the tokenizer of bytes and its chat template go out, and what comes back speaks alike
    python3 - <<'END' && [ "$("$kilorank" tokenizer encode model/tokenizer.json text.txt)" = "$("$kilorank" tokenizer encode byte text.txt)" ]
import json
vocab = json.load(open("model/tokenizer.json"))["model"]["vocab"]
assert len(vocab) == 256 and vocab["A"] == 65 and vocab["\u0100"] == 0 and vocab["\u0120"] == 32, vocab
config = json.load(open("model/tokenizer_config.json"))
assert config["eos_token"] == config["bos_token"] == "<|endoftext|>" and "for turn in messages" in config["chat_template"]
assert json.load(open("model/generation_config.json"))["eos_token_id"] == [256]
END
}
check it_goes_out_with_what_it_speaks spoken

# --- training goes on ------------------------------------------------------------------------
goes_on() { # with another batch than the exported run had, and on two ranks
    timeout 60 mpirun -np 2 "$kilorank" train --run again --set data.train=text.txt --set train.batch=4 \
        --set train.steps=3 --set eval.every=0 --set checkpoint.every=1 >out 2>&1 &&
        grep -q '"event":"resume","step":0\|"step":1,' again/log.jsonl && [ "$(newest_of again)" = 3 ]
}
check training_starts_from_an_import goes_on
further() { # step 3 goes back to its origin's names
    say 0 export again -o model-3 && said 'llama of step 3' && ! cmp -s model/model.safetensors model-3/model.safetensors &&
        cmp model/config.json model-3/config.json
}
check and_its_result_goes_out_again further
tuned() { # a run of its own, from the import's weights, takes the origin along; its best too
    cp -r model words && echo '{"made": "up"}' >words/special_tokens_map.json && echo '{}' >words/tokenizer.json &&
        say 0 import words -o spoken && cmp words/tokenizer.json spoken/tokenizer.json || return 1
    timeout 60 "$kilorank" train --run tuned --set train.init=spoken --set data.train=text.txt --set train.steps=2 \
        --set train.batch=2 --set train.micro_batch=1 --set checkpoint.best=true --set eval.batches=1 >out 2>&1 &&
        rm -r spoken && say 0 export tuned -o model-tuned && cmp words/config.json model-tuned/config.json &&
        cmp words/tokenizer.json model-tuned/tokenizer.json && say 0 export tuned/best -o model-best &&
        cmp words/special_tokens_map.json model-best/special_tokens_map.json
}
check a_run_from_its_weights_is_of_the_same_origin tuned
other_model() {
    ends_with 2 timeout 30 "$kilorank" train --run third --set data.train=text.txt --set model.layers=3 >out 2>&1 &&
        said 'model.layers'
}
check another_model_is_not_started_from_it other_model
no_data() { ends_with 2 timeout 30 "$kilorank" train --run third >out 2>&1 && said 'data.train is empty'; }
check an_import_does_not_train_on_the_quick_starts_texts no_data

# --- what is bad leaves nothing behind ---------------------------------------------------------
cp -r model bad
printf '\0\0\300\177' | dd of=bad/model.safetensors bs=1 seek=$(($(stat -c %s bad/model.safetensors) - 4)) conv=notrunc status=none
refused() { say 2 import bad -o out-nan && one_line && said '1 numbers are NaN or infinite' && nothing_left out-nan; }
check weights_that_are_nan_are_refused refused
taken() { say 0 import bad -o out-nan --nonfinite warn && said 'warning: .*1 numbers are NaN'; }
check or_taken_when_told_so taken
cut() { truncate -s -4 bad/model.safetensors && say 2 import bad -o out-cut && one_line && said 'outside the file' && nothing_left out-cut; }
check a_file_cut_short_is_refused cut
usage() {
    say 2 import model && one_line && say 2 export run && one_line && say 2 import -o x && one_line &&
        say 2 import model -o x --set a=b && one_line && say 2 export nowhere -o x && one_line &&
        say 2 import nowhere -o x && one_line && say 2 export run -o x --dtype int8 && one_line && nothing_left x
}
check bad_command_lines_are_one_line_each usage
settings() {
    say 0 import model -o with-sets --set optim.lr=1e-3 && grep -q '^lr = 0.001$' with-sets/config.ini &&
        KILORANK_DEVICE=guard say 0 export run -o anywhere && say 2 import model -o x --set model.layers=3 && one_line
}
check settings_go_along settings
helped() { say 0 import --help && said 'usage: kilorank import' && say 0 export --help && said 'usage: kilorank export'; }
check both_have_help helped

# A disk that fails, and a process that dies, at any call that must be durable.
failing() {
    local n
    for n in 1 3 5 8; do
        KILORANK_FS_FAULT=write:$n:ENOSPC say 6 import model -o out-full && nothing_left out-full || return 1
        KILORANK_FS_FAULT=fsync:1:EIO say 6 export run -o out-full && nothing_left out-full || return 1
    done
}
check a_failing_disk_leaves_nothing failing
# kill_each COMMAND FROM - killed before every third call on files, until it lives through it
kill_each() {
    local n dead=0 status
    for n in $(seq 1 3 400); do
        rm -rf out-killed
        (KILORANK_FS_FAULT=any:$n:crash timeout 60 "$kilorank" "$1" "$2" -o out-killed >out 2>&1 </dev/null) 2>>out
        status=$?
        [ "$status" -eq 0 ] && break
        [ "$status" -eq 137 ] || return 1
        dead=$((dead + 1))
        [ ! -e out-killed ] || whole || return 1 # dead after the rename
    done
    [ "$status" -eq 0 ] && [ "$dead" -ge 5 ] && whole && ! compgen -G 'out-killed.partial-*'
}
left() { # what is locked is somebody's and only named; what looks alike is not touched
    local host
    host=$(hostname)
    mkdir "x.partial-$host-1" "x.partial-$host-2" x.partial-elsewhere-3 "x.partial-$host-y" xy.partial-"$host"-5 kept
    touch "x.partial-$host-1/model" && ln -s kept "x.partial-$host-6"
    flock "x.partial-$host-2" timeout 60 "$kilorank" export run -o x >out 2>&1 </dev/null || return 1
    said "x.partial-$host-1: its process has gone; it is removed" && said "x.partial-$host-2: is of another" &&
        [ "$(grep -c 'is of another import or export' out)" -eq 4 ] && [ ! -e "x.partial-$host-1" ] &&
        [ "$(find . -maxdepth 1 -name 'x*.partial-*' | wc -l)" -eq 5 ] && [ -e kept ]
}
check what_a_killed_one_left_is_removed_if_that_is_sure left
killed_import() { whole() { [ "$(loss_of run)" = "$(loss_of out-killed)" ]; }; kill_each import model; }
killed_export() { whole() { diff -r model out-killed; }; kill_each export run; }
check a_killed_import_is_whole_or_not_there killed_import
check a_killed_export_is_whole_or_not_there killed_export
finish
