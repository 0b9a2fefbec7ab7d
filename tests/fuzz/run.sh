#!/bin/bash
# Every fuzz target for FUZZ_SECONDS (60), two at a time; one case each.
# usage: tests/fuzz/run.sh [BUILD]
# LIMIT: 600
set -u
build=$(cd "${1:-build}" && pwd)/tests/fuzz
seconds=${FUZZ_SECONDS:-60}
work=$(mktemp -d "${TMPDIR:-/tmp}/kr-fuzz.XXXXXX") || exit 1
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT

targets=()
for target in "$build"/fuzz_*; do
    [ -x "$target" ] && [ ! -d "$target" ] && targets+=("${target##*/}")
done
if [ ${#targets[@]} -eq 0 ]; then
    echo "1..0 # no fuzz targets in $build"
    exit 1
fi

fuzz() { # fuzz TARGET
    mkdir -p "$work/$1/corpus" && cd "$work/$1" || return 1
    "$build/$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        corpus >log 2>&1
    echo $? >status
}
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do sleep 0.2; done
    fuzz "$target" &
done
wait

bad=0 n=0
for target in "${targets[@]}"; do
    n=$((n + 1))
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target/log")
    if [ "$(cat "$work/$target/status")" = 0 ] && [ "${runs:-0}" -gt 1000 ]; then
        echo "ok $n - $target: $runs inputs in $seconds s"
        continue
    fi
    bad=1
    echo "not ok $n - $target"
    tail -n 30 "$work/$target/log" | sed 's/^/# /'
    for input in "$work/$target"/{crash,leak,timeout,oom}-*; do # how to see it again
        [ -f "$input" ] && echo "# base64 -d > ${input##*/} <<< $(base64 -w 0 "$input")"
    done
done
echo "1..$n"
exit $bad
