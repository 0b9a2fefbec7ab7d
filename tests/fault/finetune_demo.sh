#!/bin/bash
# The fine-tuning demo from end to end: it fails before, passes after, and is exported.
# usage: tests/fault/finetune_demo.sh [BUILD_DIR]
# LIMIT: 400
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

demo() { BUILD=${build#"$top"/} DIR=$work/demo "$top/scripts/finetune-demo" >out 2>&1; }
check a_hundred_examples_teach_a_task demo
grep '^exact match' out | tail -n 1 | sed 's/^/# /'
unseen() { # no request that it is asked is among those that it learned from
    cut -d, -f1-2 demo/train.jsonl demo/valid.jsonl | sort >learned
    cut -d, -f1-2 demo/held-out.jsonl | sort >asked
    [ "$(comm -12 learned asked | wc -l)" -eq 0 ] && [ "$(wc -l <demo/held-out.jsonl)" -eq 60 ] &&
        [ "$(sed 's/.*"prompt": "\([^"]*\)".*/\1/' demo/held-out.jsonl | sort -u | wc -l)" -eq 60 ] &&
        [ "$(LC_ALL=C grep -c '[^ -~]' demo/held-out.jsonl)" -ge 15 ] && # both languages
        [ "$(LC_ALL=C grep -vc '[^ -~]' demo/held-out.jsonl)" -ge 15 ]
}
check what_is_asked_was_not_learned unseen
exported() { [ -s demo/exported/model.safetensors ] && [ -s demo/exported/config.json ] && [ -s demo/exported/tokenizer.json ]; }
check the_result_is_exported exported

finish
