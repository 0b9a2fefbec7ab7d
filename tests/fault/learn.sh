#!/bin/bash
# A model learns what is there to be learned, and nothing that is not.
# LIMIT: 600
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

vocab=64
held_out() { # held_out RUN - the last held-out loss of its log
    sed -n 's/^{"event":"eval",.*"valid_loss":\([0-9.]*\).*/\1/p' "$1/log.jsonl" | tail -n 1
}
holds() { awk "BEGIN { exit !($1) }"; }

# nanoGPT's format: 16-bit tokens.  `twice`: each token is drawn, then repeated.
tokens() { # tokens FILE SEED COUNT [twice]
    perl -e '($seed, $n, $twice) = @ARGV; srand $seed; binmode STDOUT;
        for (1 .. $n) { $t = int rand 64 unless $twice && $_ % 2 == 0; print pack "v", $t }' \
        "$2" "$3" "${4:+1}" >"$1"
}
learn() { # learn RUN DATA - on two ranks, each sequence seen once
    train 2 "$1" --set model.vocab="$vocab" --set data.train="$2.train.bin" \
        --set data.valid="$2.valid.bin" --set train.batch=16 --set train.micro_batch=4 \
        --set train.steps=300 --set optim.warmup=20 --set checkpoint.every=0
}

tokens "$work/noise.train.bin" 1 400000
tokens "$work/noise.valid.bin" 2 40000
tokens "$work/twice.train.bin" 3 400000 twice
tokens "$work/twice.valid.bin" 4 40000 twice

# There is nothing to know of a random token: ln(vocab), neither more nor less.  Less would
# be a model that sees what it is to predict.
random_tokens() {
    local loss
    learn "$work/noise" "$work/noise" && loss=$(held_out "$work/noise") || return 1
    echo "# held-out loss $loss, ln $vocab = $(awk "BEGIN { print log($vocab) }")"
    holds "$loss > 0.995 * log($vocab) && $loss < 1.02 * log($vocab)"
}
check random_tokens_stay_at_ln_vocab random_tokens

# Of tokens that come twice every second one can be known, in the same number of steps.
repeated_tokens() {
    local loss
    learn "$work/twice" "$work/twice" && loss=$(held_out "$work/twice") || return 1
    echo "# held-out loss $loss, half of ln $vocab = $(awk "BEGIN { print log($vocab) / 2 }")"
    holds "$loss > 0.49 * log($vocab) && $loss < 0.7 * log($vocab)"
}
check of_repeated_tokens_half_is_learned repeated_tokens

# The main job: loses a rank, goes on to the same bits, and learns the licence texts.  From
# 5.5 nats per byte it must come below 1.8 on what it has not seen; who knows how often bytes
# and pairs of bytes occur has 3.2 and 2.4.
quick_start() {
    local loss
    RUN=$work/quick BUILD=$build scripts/quick-start >"$work/out" 2>&1 || return 1
    loss=$(held_out "$work/quick")
    echo "# held-out loss $loss"
    holds "$loss < 1.8" && grep -q 'was killed with SIGKILL' "$work/out" &&
        grep -qx 'the same bits' "$work/out"
}
check the_main_job_loses_a_rank_and_learns quick_start
finish
