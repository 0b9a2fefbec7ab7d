#!/bin/bash
# A model that is spoken to: kept keys and values change no token, chats, files of questions,
# exact match, multiple choice; text through a tokenizer.
# usage: tests/cli/answers.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

# A model that has learnt to answer "twice X" with "XX" by heart, for nine letters.
for x in a b c d e f g h i; do echo "{\"prompt\": \"twice $x\", \"completion\": \"$x$x\"}"; done >twice.jsonl
train 0 run --set data.train=twice.jsonl --set data.valid=twice.jsonl --set train.steps=80 --set optim.lr=1e-2 \
    --set data.template=plain || { cat out; exit 1; }

write() { # FILE ARGUMENT... - what a model writes; what it says goes to $work/out
    local file=$1
    shift
    timeout 30 "$kilorank" generate "$@" >"$file" 2>out
}
cached() { # past the end of the context, too
    train 0 raw --set train.steps=20 || return 1
    write a raw --tokens 150 --seed 3 --prompt 'The' && write b raw --tokens 150 --seed 3 --prompt 'The' --cache false &&
        cmp -s a b && [ "$(wc -c <a)" -gt 100 ]
}
check kept_keys_and_values_change_no_token cached
asked() { write a run --chat --prompt 'twice d' --temperature 0 && [ "$(cat a)" = dd ]; }
check a_question_is_answered asked
lines() { # a prompt of two lines, with what an INI file would take for a comment
    write a raw --prompt $'The ; first\nline' --tokens 1 && [ "$(head -c 16 a)" = $'The ; first\nline' ]
}
check a_prompt_may_have_lines lines
chat() { [ "$(printf 'twice a\n\ntwice g\n' | "$kilorank" generate run --chat --temperature 0 2>out | head -n 1)" = aa ]; }
check lines_of_a_chat_are_answered chat
long_chat() { # what no longer fits is forgotten, the oldest first
    yes "twice c" | head -n 40 | timeout 60 "$kilorank" generate run --chat --temperature 0 --tokens 8 >a 2>out &&
        [ "$(wc -l <a)" -ge 40 ]
}
check a_chat_may_be_longer_than_the_context long_chat
file() {
    printf '%s\n' '{"prompt": "twice b", "id": 7}' '{"messages": [{"role": "user", "content": "twice h"}]}' >ask.jsonl
    write - run --in ask.jsonl --out said.jsonl --temperature 0 && python3 - <<'END'
import json
a, b = map(json.loads, open("said.jsonl"))
assert a == {"prompt": "twice b", "id": 7, "generated": "bb"}, a
assert b["generated"] == "hh", b
END
}
check a_file_of_questions_is_answered file
bad_file() { echo '{"nothing": 1}' >bad.jsonl && ends_with 2 write - run --in bad.jsonl && said 'bad.jsonl:1: is none of'; }
check a_bad_question_is_one_line bad_file

# --- eval ------------------------------------------------------------------------------------
evaluate() { # RANKS FILE ARGUMENT...
    local ranks=$1 file=$2 launch=()
    shift 2
    [ "$ranks" -gt 0 ] && launch=(mpirun -np "$ranks")
    timeout 60 "${launch[@]}" "$kilorank" eval run "$@" >"$file" 2>out </dev/null
}
match() { evaluate 0 a --match twice.jsonl && grep -q '"examples": 9, "exact": 9, "exact_match": 1}' a; }
check answers_are_matched_exactly match
wrong() { # one of ten expects something else
    { cat twice.jsonl; echo '{"prompt": "twice a", "completion": "a"}'; } >ten.jsonl
    evaluate 0 a --match ten.jsonl --out ten.said && grep -q '"examples": 10, "exact": 9, "exact_match": 0.9}' a &&
        evaluate 3 b --match ten.jsonl --out three.said && cmp -s a b && cmp -s ten.said three.said
}
check a_wrong_answer_counts_on_any_number_of_ranks wrong
unlabelled() { ends_with 2 evaluate 0 a --match ask.jsonl && said 'ask.jsonl:1: has no answer to compare with'; }
check questions_without_answers_cannot_be_matched unlabelled
choices() { # "say" leads to the letter that a text repeats
    yes 'abcdabcdabcd' | head -n 300 >text.txt
    train 0 letters --set data.train=text.txt --set train.steps=40 --set optim.lr=1e-2 || return 1
    printf '%s\n' '{"ctx": "abcdabc", "endings": ["q", "d", "zz"], "label": 1}' \
        '{"question": "abcda", "choices": ["zq", "xx"], "answer": 0}' >hs.jsonl
    # an ending has a space in front, which this text never has; so ask through ids instead
    python3 - <<'END'
import struct
def example(i, ctx, endings, label):
    words = [65535, 0, i, label, len(endings), len(ctx), *ctx]
    for e in endings:
        words += [len(e), *e]
    words[1] = 2 * len(words)
    return struct.pack(f"<{len(words)}H", *words)
data = [example(0, b"abcdabc", [b"q", b"d", b"zz"], 1), example(1, b"bcdab", [b"cdab", b"dddd"], 0),
        example(2, b"bcdab", [b"cdab", b"dddd"], 1), example(3, b"cdabcd", [b"abcdabcdabcd\n", b"z"], 0)]
with open("hs.bin", "wb") as f:
    f.write(struct.pack("<256i", 20240522, 1, len(data), 200, *[0] * 252) + b"".join(data))
END
    timeout 30 "$kilorank" eval letters --choices hs.bin >a 2>out && grep -q '"questions": 4, "acc": 0.[57]5*, "acc_norm": 0.75}' a &&
        timeout 30 mpirun -np 2 "$kilorank" eval letters --choices hs.bin >b 2>out && cmp -s a b &&
        timeout 30 "$kilorank" eval letters --choices hs.jsonl >b 2>out && grep -q '"questions": 2' b
}
check the_likeliest_ending_is_chosen choices
hostile() {
    head -c 1100 hs.bin >short.bin
    ends_with 2 "$kilorank" eval letters --choices short.bin 2>out && said 'short.bin: example [0-9]: is not as its head says' &&
        ends_with 2 "$kilorank" eval letters --choices text.txt 2>out && said 'text.txt: line 1: is not one JSON object'
}
check bad_questions_are_one_line hostile

# --- text through a tokenizer ----------------------------------------------------------------
spoken() { # what is shown is whole characters, whatever the tokens
    "$kilorank" tokenizer train "$top"/docs/*.md -o t.json --vocab 300 2>out &&
        train 0 spoken --set train.steps=2 --set data.tokenizer=t.json --set model.vocab=300 &&
        write a spoken --prompt '北京 ü' --tokens 60 --temperature 2 && [ "$(head -c 9 a)" = '北京 ü' ] &&
        iconv -f UTF-8 -t UTF-8 a >/dev/null
}
check a_tokenizer_speaks_in_whole_characters spoken

finish
