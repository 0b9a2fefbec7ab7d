"""The rules of tokenizer.json, written a second time and slowly, for tokenizer.sh.

usage: tokenizer_rules.py KILORANK TOKENIZER.JSON PATTERN
Compares pieces over every class of code points and ids over mixed text; says what differs.
"""
import json
import random
import subprocess
import sys
import unicodedata

kilorank, path, pattern = sys.argv[1:]
SPACE = set(map(chr, [*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028,
                      0x2029, 0x202F, 0x205F, 0x3000]))
STOPS = set("(|.,!?…。，、।۔،)")
kinds = {}


def kind(c):
    if c not in kinds:
        major = unicodedata.category(c)[0]
        kinds[c] = "s" if c in SPACE else major if major in "LN" else "o"
    return kinds[c]


def run(text, at, of):
    while at < len(text) and kind(text[at]) in of:
        at += 1
    return at


def contraction(text, at, fold):
    if text[at] != "'":
        return 0
    rest = text[at + 1:at + 3]
    if fold:
        rest = rest.replace("ſ", "s").lower()
    return next((1 + len(w) for w in ("s", "t", "re", "ve", "m", "ll", "d")
                 if rest.startswith(w)), 0)


def space(text, at):  # \s+(?!\S)|\s+
    end = run(text, at, "s")
    return end if end == len(text) or end == at + 1 else end - 1


def gpt2(text, at):
    n = contraction(text, at, False)
    if n:
        return at + n
    start = at + (text[at] == " ")
    for of in ("L", "N", "o"):
        if run(text, start, of) > start:
            return run(text, start, of)
    return space(text, at)


def llama3(text, at):
    n = contraction(text, at, True)
    if n:
        return at + n
    start = at + (kind(text[at]) not in "LN" and text[at] not in "\r\n")
    if run(text, start, "L") > start:
        return run(text, start, "L")
    if kind(text[at]) == "N":
        return min(at + 3, run(text, at, "N"))
    start = at + (text[at] == " ")
    end = run(text, start, "o")
    if end > start:
        while end < len(text) and text[end] in "\r\n":
            end += 1
        return end
    end = run(text, at, "s")
    last = max(text.rfind("\r", at, end), text.rfind("\n", at, end))
    return last + 1 if last >= at else space(text, at)


def bloom_class(c):
    return c not in SPACE and c not in STOPS


def bloom(text, at):
    def match(i):
        i += text[i] == " "
        end = i
        while end < len(text) and bloom_class(text[end]):
            end += 1
        return end if end > i else 0
    end = match(at)
    if end:
        return end
    while at < len(text) and not match(at):
        at += 1
    return at


def split(text):
    step = {"gpt2": gpt2, "llama3": llama3, "bloom": bloom}[pattern]
    at, out = 0, []
    while at < len(text):
        end = step(text, at)
        out.append(text[at:end])
        at = end
    return out


def alphabet():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in plain}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(plain))
    return table


def encode(text, vocab, ranks, table):
    out = []
    for piece in split(text):
        word = [table[b] for b in piece.encode()]
        while len(word) > 1:
            rank, i = min((ranks.get((a, b), 1 << 60), i)
                          for i, (a, b) in enumerate(zip(word, word[1:])))
            if rank == 1 << 60:
                break
            word[i:i + 2] = [word[i] + word[i + 1]]
        out += [vocab[w] for w in word]
    return out


def tool(command, text):
    got = subprocess.run([kilorank, "tokenizer", command, path], input=text.encode(),
                         capture_output=True, check=True)
    return got.stdout.decode()


def mixed(seed, words):
    rng = random.Random(seed)
    return "".join(rng.choice(words) + rng.choice(["", "", " ", "  ", "\n", "\t", "\r\n", " \n "])
                   for _ in range(6000))


def code_points():
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000 or not (c < 0x3100 or c % 17 == 0):
            continue
        if unicodedata.category(chr(c)) != "Cn":  # later versions of Unicode name more
            yield chr(c)


def main():
    words = ("the", "We're", "I'LL", "don't", "'ſ", "x", "123456", "٣٤", "Ⅷ", "naïve", "e\u0301",
             "中文字", "こんにちは", "हिन्दी", "…", "。", "!?", "(a|b)", "😀👍🏽", "\u200d", "\u00a0", "\u3000",
             "\u180e", "_", "--", "$1,000.50", "\x00", "\x7f")
    texts = [mixed(seed, words) for seed in range(3)]
    texts.append("".join(f"a{c}1{c} {c}{c}." for c in code_points()))
    for text in texts:
        want, got = split(text), [json.loads(x) for x in tool("split", text).split("\n")[:-1]]
        for w, g in zip(want, got):
            assert w == g, f"piece {g!r}, want {w!r}"
        assert len(want) == len(got)
    with open(path, encoding="utf-8") as f:
        model = json.load(f)["model"]
    ranks = {tuple(m): i for i, m in enumerate(model["merges"])}
    for text in texts[:3]:
        want = encode(text, model["vocab"], ranks, alphabet())
        got = list(map(int, tool("encode", text).split()))
        assert want == got, next((i, w, g) for i, (w, g) in enumerate(zip(want, got)) if w != g)


main()
