# launch.bash - what the scripts on launched runs share, on top of lib.bash.  `launch` is the
# script's own and leaves the supervisor's process in $supervisor.
#
# Other runs' ranks must not be met: a run is known by its folder, which is the last argument
# of its ranks.
# shellcheck shell=bash disable=SC2154  # $work is of lib.bash

ended() { # ended CODE
    local status
    wait "$supervisor"
    status=$?
    echo "# exit code $status" >>"$work/out"
    [ "$status" -eq "$1" ]
}
within() { # within SECONDS COMMAND...
    local until=$((SECONDS + $1 * TIME_FACTOR))
    shift
    until "$@"; do [ "$SECONDS" -lt "$until" ] || return 1; sleep 0.1; done
}

event() { grep -c "\"event\": \"$2\"" "$1/supervisor.jsonl" 2>/dev/null; }
has() { [ "$(event "$1" "$2")" -ge "$3" ]; } # has DIR EVENT COUNT
said_in() { grep -qE -- "$2" "$1/supervisor.jsonl"; } # said_in DIR PATTERN
steps() { wc -l 2>/dev/null <"$1/log.jsonl" || echo 0; }
is_at() { [ "$(steps "$1")" -ge "$2" ] && has "$1" running 1; }
runs_again() { within 20 has "$1" running "$2"; }

agent_of() { pgrep -f -- "^[^ ]*kilorank agent --run $work/$1 --node ${2:-localhost} "; }
mpirun_of() { pgrep -f -- "^mpirun .* --run $work/$1\$" | head -n 1; }
workers() { # pids of the ranks, in order of rank
    local pid rank
    for pid in $(pgrep -f -- "--run $work/$1\$"); do
        rank=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" |
            sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
        [ -n "$rank" ] && echo "$rank $pid"
    done | sort -n | cut -d' ' -f2
}
rank_of() { workers "$1" | head -n 1; }
note() { # note DIR - which file its ranks report into
    tr '\0' '\n' <"/proc/$(rank_of "$1")/environ" | sed -n 's/^KILORANK_PULSE=//p' >"pulse.$1"
    [ -e "$(cat "pulse.$1")" ]
}
nothing_is_left() {
    within 5 sh -c "! pgrep -f -- '--run $work/$1( |\$)' >/dev/null" &&
        { [ ! -e "pulse.$1" ] || [ ! -e "$(cat "pulse.$1")" ]; } && [ ! -e "$1/.token" ]
}

want=none
reference() { train 0 plain "${long[@]}" --set checkpoint.every=0 && want=$(hash_of plain) && [ -n "$want" ]; }
same_bits() { [ "$(hash_of "$1")" = "$want" ]; }
