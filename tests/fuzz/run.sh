#!/bin/bash
# Every fuzz target for FUZZ_SECONDS (60) of processor time, two at a time; one case each.
# usage: tests/fuzz/run.sh [BUILD]
# IDLE: needs minutes of processor time, and does not care when
# LIMIT: 3600
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

# What a process has used, in seconds; fails when it is no more.
used() { awk -v tick="$(getconf CLK_TCK)" '{ print int(($14 + $15) / tick) }' "/proc/$1/stat" 2>/dev/null; }
uses() { # uses PID SECONDS - wait until it has
    local now
    while kill -0 "$1" 2>/dev/null && now=$(used "$1") && [ "$now" -lt "$2" ]; do sleep 0.5; done
}
# The clock on the wall decides nothing: whoever starts this may stop and continue it.  SIGUSR1
# asks a target to end well.  One that uses 15 seconds more hangs on its input, and tells which
# when it is aborted.
fuzz() { # fuzz TARGET
    local pid
    mkdir -p "$work/$1/corpus" && cd "$work/$1" || return 1
    "$build/$1" -timeout=0 -rss_limit_mb=2048 -print_final_stats=1 corpus >log 2>&1 &
    pid=$!
    trap 'kill $pid; exit 1' TERM
    uses "$pid" "$seconds"
    kill -USR1 "$pid" 2>/dev/null
    uses "$pid" $((seconds + 15))
    kill -ABRT "$pid" 2>/dev/null
    wait "$pid"
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
        echo "ok $n - $target: $runs inputs in $seconds s of processor time"
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
