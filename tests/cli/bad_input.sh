#!/bin/bash
# Bad input: exit code 2, one line that names what is wrong, nothing written; on one rank
# and, where ranks could speak at once, on two.
# usage: tests/cli/bad_input.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1
# Each rank ends by itself and tells its code: mpirun would kill the others after the first.
# shellcheck disable=SC2016  # for the inner shell to expand
telling=(sh -c '"$@"; echo "exit code $?"' sh)

# refused RANKS WHAT COMMAND... - the line must match WHAT; files are left as they were.
# 0 ranks: without mpirun.  What mpirun says of itself does not begin with "kilorank".
# With $errors only so many errors are counted, and notes are not.
refused() {
    local ranks=$1 what=$2 launch=() before
    shift 2
    [ "$ranks" -gt 0 ] && launch=(mpirun --mca orte_abort_on_non_zero_status 0 -np "$ranks")
    before=$(contents)
    timeout -k 2 20 "${launch[@]}" "${telling[@]}" "$@" >out 2>&1 </dev/null
    if [ "$ranks" -gt 0 ]; then grep '^kilorank' out >said; else grep -v '^exit code' out >said; fi
    if [ -n "${errors:-}" ]; then sed -i '/: error: /!d' said; fi
    [ "$(grep -c '^exit code 2$' out)" -eq $((ranks ? ranks : 1)) ] || { echo "# exit code"; return 1; }
    [ "$(wc -l <said)" -eq "${errors:-1}" ] || { echo "# $(wc -l <said) lines"; return 1; }
    grep -qE -- "^kilorank(\[0\])?: error: .*$what" said || { echo "# no '$what'"; return 1; }
    [ "$before" = "$(contents)" ] || { echo "# files were written"; return 1; }
}
contents() { # names and checksums of all but what this script itself writes, and a lease
    find . -mindepth 1 ! -name out ! -name said ! -path ./ended/lease.json \( -type f -exec md5sum {} + -o -print \) | sort
}
# alone NAME WHAT ARGUMENT..., both NAME WHAT ARGUMENT...: `kilorank ARGUMENT...`
alone() { local name=$1 what=$2; shift 2; check "$name" refused 0 "$what" "$kilorank" "$@"; }
both() {
    alone "$@"
    local name=${1}_on_two_ranks what=$2
    shift 2
    check "$name" refused 2 "$what" "$kilorank" "$@"
}
# train_refuses NAME WHAT SETTING...
train_refuses() {
    local name=$1 what=$2 args=()
    shift 2
    for s; do args+=(--set "$s"); done
    both "$name" "$what" train --run new "${args[@]}"
}
words() { # words FILE BITS COUNT VALUE [LAST] - unsigned little-endian numbers
    python3 - "$@" <<'END'
import struct, sys
file, bits, count, value, *last = sys.argv[1:]
values = [int(value)] * int(count) + [int(x) for x in last]
open(file, "wb").write(struct.pack("<%d%s" % (len(values), {"16": "H", "32": "I"}[bits]), *values))
END
}

words beyond.bin 16 1000 5 300
words short.bin 16 200 5
words good.bin 16 5000 5
printf 'abc' >odd.bin
: >empty.bin
: >empty.txt
mkdir empty_folder
printf 'hello' >words.xyz
cp good.bin half.idx
printf 'lr = 1\n' >no_section.ini
printf '[model]\nlayers = 2\nlayer = 2\n' >unknown.ini
printf '[run]\ndevice = cuda\n' >cuda.ini
train 0 ended --set train.steps=3 --set data.train=good.bin || exit 1
train 0 whole --set train.steps=2 --set data.train=good.bin --set data.held_out=0 || exit 1

# --- settings ------------------------------------------------------------------------------
train_refuses an_unknown_setting 'model\.layer; did you mean model\.layers\?' model.layer=2
train_refuses a_bad_value 'optim\.lr = fast' optim.lr=fast
train_refuses a_value_out_of_range 'optim\.lr = 99: .*10' optim.lr=99
train_refuses a_choice_that_is_none 'model\.family = bert: .*gpt2' model.family=bert
train_refuses a_batch_of_uneven_micro_batches 'train\.batch = 10 .*train\.micro_batch = 4' train.batch=10
train_refuses heads_that_do_not_divide_dim 'model\.dim = 192 .*model\.heads = 5' model.heads=5
train_refuses kv_heads_that_do_not_divide_heads 'model\.heads = 6 .*kv_heads = 4' model.kv_heads=4
train_refuses a_device_that_is_none 'run\.device = toaster' run.device=toaster
train_refuses an_unknown_kind_of_comm 'dist\.comm' dist.comm=pigeon
check fewer_micro_batches_than_ranks refused 2 'train\.batch = 4 .*2 ranks' \
    "$kilorank" train --run new --set train.batch=4 --set train.micro_batch=4
alone a_setting_without_a_value 'model\.dim' train --run new --set model.dim
both a_missing_config_file 'missing\.ini: .*No such file' train missing.ini --run new
alone a_folder_as_config_file 'empty_folder' train empty_folder --run new
alone a_config_file_without_sections 'no_section\.ini: no setting named lr' train no_section.ini --run new
alone an_unknown_key_in_a_file 'unknown\.ini: no setting named model\.layer' train unknown.ini --run new
if [ ! -e "$build/kilorank-worker-cuda" ]; then
    train_refuses cuda_where_no_worker_was_built 'run\.device = cuda: .*kilorank-worker-cuda' run.device=cuda
    both cuda_asked_for_in_a_file 'run\.device = cuda' train cuda.ini --run new
fi

# --- data ----------------------------------------------------------------------------------
train_refuses a_missing_data_file 'nowhere\.bin: No such file' data.train=nowhere.bin
train_refuses missing_evaluation_data 'nowhere\.bin: No such file' data.train=good.bin data.valid=nowhere.bin
train_refuses a_token_beyond_the_vocabulary 'beyond\.bin: token 1000 is 300, .*model\.vocab = 257' \
    data.train=beyond.bin data.held_out=0
train_refuses an_odd_number_of_bytes 'odd\.bin: odd number of bytes' data.train=odd.bin
train_refuses data_of_zero_length 'empty\.bin: holds no tokens' data.train=empty.bin
train_refuses text_of_zero_length 'empty\.txt: holds no tokens' data.train=empty.txt
train_refuses a_folder_without_text 'empty_folder: holds no tokens' data.train=empty_folder
train_refuses data_of_an_unknown_kind 'words\.xyz' data.train=words.xyz
train_refuses an_index_without_its_tokens 'half\.idx: .*\.bin' data.train=half.idx
train_refuses no_data_at_all 'data\.train is empty' data.train=
train_refuses a_context_longer_than_the_data 'short\.bin: .*model\.context = 256' data.train=short.bin
train_refuses a_context_longer_than_what_is_held_out 'held out .*model\.context = 512' \
    data.train=good.bin model.context=512

# A system of its own for the process, where /usr/share is empty.
# shellcheck disable=SC2016  # for the inner shell to expand
bare=(unshare -m sh -c 'mount -t tmpfs none /usr/share && exec "$@"' sh)
advice='common-licenses: no such folder .*--set data\.train='
if "${bare[@]}" true 2>/dev/null; then
    check no_licence_texts refused 0 "$advice" "${bare[@]}" "$kilorank" train --run new
    check no_licence_texts_on_two_ranks refused 2 "$advice" "${bare[@]}" "$kilorank" train --run new
else
    skip no_licence_texts "mount namespaces cannot be had here"
fi

# Ranks that were not started alike: one line for each difference, from the rank that differs.
unlike() {
    timeout -k 2 20 mpirun -np 1 "$kilorank" train --run new --set train.seed=1 : \
        -np 1 "$kilorank" train --run new --set train.seed=2 --set optim.lr=0.5 >out 2>&1 </dev/null
    [ $? -eq 2 ] && [ "$(grep -c '^kilorank' out)" -eq 2 ] && [ ! -e new ] &&
        grep -q '^kilorank\[1\]: error: train\.seed: 2 in rank 1, 1 in rank 0' out &&
        grep -q '^kilorank\[1\]: error: optim\.lr: 0\.5 in rank 1, 0\.003 in rank 0' out
}
check ranks_with_other_settings unlike

# --- run directory, checkpoint -------------------------------------------------------------
both no_run_directory '--run DIR is missing' train
alone an_empty_name_of_a_run_directory '--run DIR is missing' train --run ''
both a_file_as_run_directory '--run good\.bin: Not a directory' train --run good.bin
alone a_run_directory_below_a_file '--run good\.bin/x: Not a directory' train --run good.bin/x

# differs RANKS - one line for each setting that differs, besides the notes on the run
differs() {
    errors=2 refused "$1" '' "$kilorank" train --run ended --set model.dim=32 --set train.batch=16 &&
        grep -q 'model\.dim: 64 in ended/checkpoints/step-00000003, 32 in these settings' said &&
        grep -q 'train\.batch: 8 in .*, 16 in' said
}
check another_model_than_the_checkpoint differs 0
check another_model_than_the_checkpoint_on_two_ranks differs 2

both eval_without_a_checkpoint 'empty_folder: no checkpoint there' eval empty_folder
both eval_of_missing_data 'nowhere\.bin: No such file' eval ended --data nowhere.bin
both eval_of_too_little_data 'empty\.bin: holds no tokens' eval ended --data empty.bin
both eval_where_nothing_is_held_out 'whole: .*--data' eval whole
both eval_of_another_model 'model\.dim=32: the checkpoint' eval ended --set model.dim=32
both eval_with_an_unknown_setting 'model\.layer; did you mean' eval ended --set model.layer=1
for one in generate import export; do
    check "${one}_on_two_ranks" refused 2 "$one: a command of one process" "$kilorank" "$one" ended -o new
done
alone generate_without_a_checkpoint 'nowhere: no checkpoint there' generate nowhere
alone generate_at_a_bad_temperature 'temperature = hot' generate ended --temperature hot
alone ckpt_of_nothing 'nowhere: no checkpoint there' ckpt list nowhere

# --- command line --------------------------------------------------------------------------
both an_unknown_command 'trian: no such command; did you mean train\?' trian
both an_unknown_option '--frobnicate: unknown option' train --run new --frobnicate
mpirun_ends_with_it() { ends_with 2 timeout 20 mpirun -np 2 "$kilorank" train --run new --set a=b >out 2>&1; }
check mpirun_ends_with_the_code_of_its_ranks mpirun_ends_with_it
alone a_value_that_is_missing '--set: .*its value is missing' train --run new --set
alone two_config_files 'cuda\.ini: one CONFIG is enough' train unknown.ini cuda.ini --run new
both an_unknown_option_of_eval 'no setting named frobnicate' eval ended --frobnicate 1
alone an_unknown_option_of_generate 'no setting named frobnicate' generate ended --frobnicate 1
alone eval_without_a_run 'DIR is missing' eval
alone generate_without_a_run 'DIR is missing' generate
alone an_unknown_benchmark 'frobnicate: want matmul' bench frobnicate
alone an_unknown_ckpt_command 'ckpt: .*list' ckpt frobnicate ended
alone prepare_without_files 'no FILE' prepare
alone prepare_of_a_missing_file 'nowhere\.txt: .*No such file' prepare nowhere.txt --tokenizer byte -o new
alone prepare_with_an_unknown_tokenizer 'gpt9: want byte, or the path of a tokenizer.json' prepare words.xyz --tokenizer gpt9 -o new
alone prepare_without_an_output '-o PREFIX is missing' prepare empty.txt --tokenizer byte
alone prepare_without_a_tokenizer '--tokenizer is missing' prepare empty.txt -o new
alone an_unknown_option_of_prepare 'prepare: no setting named threds; did you mean threads\?' prepare empty.txt --threds 2
alone an_unknown_short_option_of_prepare 'prepare: -x: unknown option' prepare -x empty.txt
alone a_missing_value_of_prepare 'prepare: --key: its value is missing' prepare empty.txt --tokenizer byte -o new --key
alone too_many_threads_of_prepare 'threads = 2000: .*1024' prepare empty.txt --tokenizer byte -o new --threads=2000
alone tokenizer_without_a_command 'want train, encode' tokenizer
alone an_unknown_command_of_tokenizer 'tokenizer: learn: want train, encode' tokenizer learn empty.txt
alone an_unknown_option_of_tokenizer 'tokenizer: no setting named frobnicate' tokenizer encode byte --frobnicate 1
alone a_missing_value_of_tokenizer 'tokenizer: --special: its value is missing' tokenizer train empty.txt --special
alone a_vocabulary_that_is_too_small '--vocab 12: .*259' tokenizer train empty.txt -o new.json --vocab 12
alone a_special_token_twice '--special <x>: is there twice' tokenizer train empty.txt -o new.json --vocab 300 --special '<x>' --special '<x>'
alone a_special_token_without_text '--special "": want two bytes' tokenizer train empty.txt -o new.json --vocab 300 --special ''
alone tokenizer_train_without_a_size '--vocab N is missing' tokenizer train empty.txt -o new.json
alone tokenizer_with_two_files 'no\.txt: one FILE is enough' tokenizer encode byte empty.txt no.txt

finish
