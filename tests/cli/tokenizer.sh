#!/bin/bash
# `tokenizer` and `prepare` with one: ids by the rules, the same bytes on any number of
# threads, everything comes back, bad input is one line.
# usage: tests/cli/tokenizer.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1
rules=$top/tests/cli/tokenizer_rules.py

# Mixed text: prose, code, Chinese, numbers; about 10 MB.
python3 - <<'END'
import glob, random
rng = random.Random(7)
prose = "".join(open(f, errors="ignore").read() for f in sorted(glob.glob("/usr/share/common-licenses/*"))[:6])
lines = [l for l in prose.splitlines() if l.strip()] + [
    "北京的销售额在2019年3月上升了百分之十二。", "数据模型、训练与评估：三个步骤", "for (int i = 0; i < n; i++)\tx[i] *= 2;",
    "naïve café — “quoted”", "😀 emoji 👍🏽 done", "日本語とカタカナ", "ключ = значение", "    return x ** 2"]
with open("mixed.txt", "w") as f:
    size = 0
    while size < 10_000_000:
        l = rng.choice(lines) + rng.choice(["\n", "\n", "\n\n", " ", "\r\n"])
        size += len(l.encode()); f.write(l)
with open("some.txt", "w") as f:
    f.write("\n".join(rng.choice(lines) for _ in range(4000)))
END

tool() { timeout 60 "$kilorank" tokenizer "$@" 2>out; }

# --- learning ------------------------------------------------------------------------------
learn() { tool train some.txt -o "$@"; }
twice() {
    learn a.json --vocab 1000 --threads 1 && learn b.json --vocab 1000 --threads 3 && cmp -s a.json b.json
}
check learning_gives_the_same_file_on_any_number_of_threads twice
sized() { [ "$(tool show a.json | head -n 1)" = 'a.json: byte-level BPE, 1000 ids' ]; }
check it_has_as_many_ids_as_asked_for sized
kept() { ends_with 2 learn a.json --vocab 1000 && said 'a.json: exists already' && cmp -s a.json b.json; }
check an_existing_file_is_kept kept
readable() { # a special token that is also learned: no file is better than one that nothing can read
    ends_with 2 learn clash.json --vocab 1000 --special Ġof && said '"Ġof" has the id' && [ -z "$(ls clash.* 2>/dev/null)" ]
}
check what_nothing_can_read_is_not_written readable
learn gpt2.json --vocab 900 --pattern gpt2 || cat out
sed 's/"Regex": "[^"]*"/"Regex": " ?[^(\\\\s|[.,!?…。，、।۔،])]+"/' a.json >bloom.json

# --- the rules -----------------------------------------------------------------------------
for pattern in gpt2 llama3 bloom; do
    file=$pattern.json
    [ $pattern = llama3 ] && file=a.json
    follows() { timeout 60 python3 "$rules" "$kilorank" "$file" "$pattern" >out 2>&1; }
    check "pieces_and_ids_follow_the_rules_of_$pattern" follows
done

back() { tool bench a.json mixed.txt >said && grep -q 'the same bytes came back' said && sed 's/^/# /' said; }
check ten_mb_of_mixed_text_come_back back
pipes() { [ "$(printf 'Hi <|im_end|>\xff' | tool encode a.json | tool decode a.json | xxd -p)" = 4869203c7c696d5f656e647c3eff ]; }
check malformed_bytes_come_back_through_the_command pipes
specials() {
    [ "$(printf 'x<|im_end|>' | tool encode a.json --specials)" = '120 999' ] &&
        [ "$(printf 'x<|im_end|>' | tool encode a.json | wc -w)" -gt 2 ] &&
        [ "$(echo 120 999 | tool decode a.json --skip-specials)" = x ]
}
check special_tokens_in_a_text_count_only_when_asked specials

# --- prepare -------------------------------------------------------------------------------
prepare() { timeout 60 "$kilorank" prepare "$@" >/dev/null 2>out; }
threads() {
    prepare mixed.txt --tokenizer a.json -o one --threads 1 &&
        prepare mixed.txt --tokenizer a.json -o four --threads 4 &&
        cmp -s one.bin four.bin && cmp -s one.idx four.idx
}
check prepare_writes_the_same_bytes_on_any_number_of_threads threads
uncut() { # cutting a long text changes no token
    tool encode a.json mixed.txt | python3 -c '
import array, sys
want = array.array("H", map(int, sys.stdin.read().split() + ["997"]))
assert want.tobytes() == open("one.bin", "rb").read()' 2>>out
}
check a_long_text_has_the_tokens_of_the_whole uncut
jsonl() { # documents, NUL and escapes in them, the end token behind each
    printf '%s\n' '{"text": "ab\u0000c"}' '' '{"x": 1, "text": "\ud83d\ude00\n"}' >docs.jsonl
    prepare docs.jsonl --tokenizer byte -o docs && python3 -c '
import array
got = array.array("H", open("docs.bin", "rb").read()).tolist()
assert got == [97, 98, 0, 99, 256, *"😀\n".encode(), 256], got' 2>>out
}
check json_lines_are_documents jsonl
folders() { # an output names a folder that is not there yet; one that cannot be is a line
    learn new/tok/t.json --vocab 300 && prepare docs.jsonl --tokenizer new/tok/t.json -o new/data/docs &&
        [ -s new/data/docs.bin ] && [ -s new/data/docs.idx ] && : >file &&
        ends_with 2 prepare docs.jsonl --tokenizer byte -o file/docs && said 'file: ' && [ "$(grep -c error out)" -eq 1 ]
}
check folders_of_outputs_are_made folders
first_bad() { # of many bad lines the first is told, once
    { for i in {1..2000}; do echo "{\"text\": \"line $i\"}"; done; for i in {1..50}; do echo "{bad $i"; done; } >bad.jsonl
    ends_with 2 prepare bad.jsonl --tokenizer a.json -o bad --threads 4 && said 'bad.jsonl:2001: is not one JSON object' &&
        [ "$(grep -c error out)" -eq 1 ] && [ ! -e bad.bin ] && [ ! -e bad.bin.tmp ]
}
check the_first_bad_line_is_told_and_nothing_written first_bad
spelled() { # options between files, with a sign of equality; files that begin with a dash
    printf 'a' >-odd.txt && prepare --tokenizer=byte --threads=2 ab -o odd --no-end -- -odd.txt &&
        [ "$(xxd -p odd.bin)" = 62006100 ] && rm ./-odd.txt
}
printf 'b' >ab
full() { # a disk that takes 64 KiB, pretended with the limit on files
    (trap '' XFSZ; ulimit -f 64; ends_with 6 prepare mixed.txt --tokenizer byte -o full) &&
        said 'full.bin.tmp: ' && [ -z "$(ls full.* 2>/dev/null)" ]
}
check a_full_disk_leaves_nothing full
interrupted() { # SIGINT while it waits for more: nothing stays, and the shell hears of it
    local pid code
    mkfifo "slow$1"
    sleep 20 >"slow$1" & # keeps it open
    local holder=$!
    "$kilorank" prepare mixed.txt - --tokenizer byte -o "cut$1" <"slow$1" 2>out &
    pid=$!
    until [ "$(stat -c %s "cut$1.bin.tmp" 2>/dev/null || echo 0)" -gt 0 ]; do sleep 0.02; done
    kill -s "$1" "$pid" && wait "$pid"
    code=$?
    kill "$holder"
    [ "$code" -eq "$2" ] && [ -z "$(ls "cut$1".* 2>/dev/null)" ]
}
check interrupted_it_takes_back_what_it_wrote interrupted TERM 143
twins() { # two at once do not mix their tokens: the second is told
    mkfifo held
    sleep 20 >held &
    local holder=$! pid
    "$kilorank" prepare ab - --tokenizer byte -o twin <held 2>/dev/null &
    pid=$!
    until [ -e twin.bin.tmp ]; do sleep 0.02; done
    ends_with 2 prepare mixed.txt --tokenizer byte -o twin && said 'another command is writing' && kill "$holder" && wait "$pid" &&
        [ "$(xxd -p twin.bin)" = 62000001 ] && : >twins.bin.tmp && prepare ab --tokenizer byte -o twins
}
check two_commands_with_one_output_do_not_mix twins
nul() { ends_with 2 tool decode byte < <(printf '97\0 98') && said 'is no id'; }
check bytes_behind_a_nul_are_not_dropped nul
check options_may_stand_anywhere spelled
wide() { # more than 65536 ids: four bytes each
    python3 - <<'END'
import json
j = json.load(open("a.json"))
j["added_tokens"].append(dict(id=70000, content="<far>", special=True, normalized=False))
json.dump(j, open("wide.json", "w"))
END
    printf 'ab' >ab.txt
    prepare ab.txt --tokenizer wide.json --end '<far>' --force -o wide && [ "$(xxd -p wide.bin | tail -c 9)" = 70110100 ]
}
check large_vocabularies_take_four_bytes wide

finish
