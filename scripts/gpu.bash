# gpu.bash - what gpu-check and gpu-bench share: parts with a time limit, what the card is and
# does, where CUDA's libraries lie.  Sourced from the top folder of the repository.
#
# LIMIT (seconds; none) is for machines that are lent by the minute: a part that has not begun by
# then is named at the end, one that is at work is ended, and what it printed stands.
# shellcheck shell=bash

begun=$SECONDS bad=0 undone=() clocks=

# left - seconds of LIMIT that are left; a day without one
left() { echo $((${LIMIT:-86400} - SECONDS + begun)); }

# within COMMAND... - end it when LIMIT is over; 124 then
within() {
    local rest
    rest=$(left)
    if [ "$rest" -lt 1 ]; then return 124; fi
    timeout --kill-after=5 "$rest" "$@"
}

# part NAME COMMAND... - begin it, if there is time; its status is not looked at
part() {
    local from=$SECONDS name=$1
    shift
    if [ "$(left)" -lt 10 ]; then
        undone+=("$name")
        return
    fi
    echo "# part $name"
    look_begin
    "$@" || true
    look_end
    echo "# part $name: $((SECONDS - from)) s"
    if [ "$(left)" -lt 1 ]; then undone+=("$name"); fi
}

# parts_end PROGRAM - what is left to do; 3 if there is something
parts_end() {
    if [ ${#undone[@]} -eq 0 ]; then return 0; fi
    echo "# LIMIT=$LIMIT is over, not done or not to the end: $1 ${undone[*]}"
    return 3
}

# ask FIELDS - of the first card, without units; nothing where there is no card
ask() {
    command -v nvidia-smi >/dev/null || return 0
    nvidia-smi -i 0 --query-gpu="$1" --format=csv,noheader,nounits 2>/dev/null || true
}

is_hopper() { [ "$(ask compute_cap)" = 9.0 ]; }

# The card, read only; commit of the programs, and day.
heading() {
    local card commit
    commit=$(cat "${BUILD:-build}/commit" 2>/dev/null || git describe --always --dirty 2>/dev/null || echo unknown)
    card=$(ask name,driver_version,memory.total,power.limit,clocks.max.sm)
    echo "# ${card:-no nvidia-smi}${card:+ (driver, MiB, W, MHz at most)}"
    echo "# $(date -u +%Y-%m-%dT%H:%MZ), commit $commit, $(nproc) cores"
}

# Clock, power and temperature once a second, while a part runs.
look_begin() {
    command -v nvidia-smi >/dev/null || return 0
    clocks=$(mktemp)
    while sleep 1; do ask clocks.sm,power.draw,temperature.gpu; done >"$clocks" &
    looker=$!
}
look_end() {
    [ -n "$clocks" ] || return 0
    kill "$looker" 2>/dev/null || true
    wait "$looker" 2>/dev/null || true
    awk -F, '$2 > 200 { n++; mhz += $1; watt += $2; if (n == 1 || $1 < low) low = $1; if ($1 > high) high = $1
             if ($2 > most) most = $2; if ($3 > hot) hot = $3 }
             END { if (n) printf "# %d s above 200 W: %.0f MHz (%d to %d), %.0f W (up to %.0f), up to %d degrees\n",
                          n, mhz / n, low, high, watt / n, most, hot }' "$clocks"
    rm -f "$clocks"
    clocks=
}

# libraries NAME... - folders of shared libraries that the loader does not know by itself: of the CUDA
# toolkit, or of the wheels that PyTorch came with
libraries() {
    local name at wheels found=
    wheels=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
    for name in "$@"; do
        if ldconfig -p 2>/dev/null | grep -q "$name"; then continue; fi
        for at in "${CUDA_HOME:-/usr/local/cuda}"/lib64 ${wheels:+"$wheels"/*/lib}; do
            compgen -G "$at/$name*" >/dev/null || continue
            found=$found${found:+:}$at
            break
        done
    done
    echo "$found${LD_LIBRARY_PATH:+${found:+:}$LD_LIBRARY_PATH}"
}
