#!/bin/sh
# The project's own tools, each shown something broken: the test runner, the layer check,
# the installer of packages, the batch file.
# usage: tests/cli/tools.sh [BUILD_DIR]
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/tree"
cases=0 bad=0

ok() { # ok STATUS NAME
    cases=$((cases + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $cases - $2"
    else
        echo "not ok $cases - $2"
        sed 's/^/# /' "$work/out"
        bad=1
    fi
}
says() { grep -qE -- "$1" "$work/out"; }
program() { # program NAME: an executable script from standard input
    { echo '#!/bin/bash'; cat; } >"$work/$1"
    chmod +x "$work/$1"
}
run() { TEST_TIMEOUT=${limit:-20} "$top/tests/run" "$@" >"$work/out" 2>&1; }
last_line() { [ "$(tail -n 1 "$work/out")" = "$1" ]; }

# --- the runner ----------------------------------------------------------------------------
printf 'echo "ok 1 - a"; echo "ok 2 - b"; echo noise; echo 1..2\n' | program good
echo 'echo quiet' | program plain
printf 'echo "ok 1 - a"; echo "not ok 2 - b"; echo 1..2; exit 1\n' | program case_fails
printf 'echo "ok 1 - a"; kill -SEGV $$\n' | program dies
printf 'echo "ok 1 - a"; echo 1..2\n' | program ends_early
printf 'echo "not ok 1 - a"; echo 1..1\n' | program lies
printf 'echo "ok 1 - a # SKIP no GPU"; echo "ok 2 - b"; echo 1..2\n' | program skips
printf 'setsid sleep 77.25 & sleep 77.25\n' | program hangs
printf 'trap "" TERM; while :; do sleep 0.1; done\n' | program deaf

run "$work/good" "$work/plain" && last_line "3 passed, 0 failed" && ! says noise
ok $? runner_counts_cases_and_hides_the_output_of_what_passes
run "$work/case_fails" "$work/good"; [ $? -eq 1 ] && last_line "3 passed, 1 failed" && says 'not ok 2'
ok $? runner_shows_a_failed_case
run "$work/dies"; [ $? -eq 1 ] && last_line "1 passed, 1 failed" && says 'signal SEGV'
ok $? runner_counts_a_crash_as_a_failure
run "$work/ends_early"; [ $? -eq 1 ] && last_line "1 passed, 1 failed"
ok $? runner_notices_cases_that_never_ran
run "$work/lies"; [ $? -eq 1 ] && last_line "0 passed, 1 failed"
ok $? runner_believes_a_failed_case_more_than_the_exit_status
run "$work/skips" && last_line "1 passed, 0 failed" && says '1 skipped'
ok $? runner_counts_no_skipped_case
limit=1 run "$work/hangs"; [ $? -eq 1 ] && last_line "0 passed, 1 failed" && says 'no end after 1 s' &&
    ! pgrep -f 'sleep 77\.25' >/dev/null
ok $? runner_leaves_no_process_after_a_timeout
limit=1 run "$work/deaf"; [ $? -eq 1 ] && last_line "0 passed, 1 failed" && says 'no end after 1 s'
ok $? runner_ends_what_ignores_signals
program mounts <<'EOT'
mkdir "$TMPDIR/disk" && mount -t tmpfs none "$TMPDIR/disk" && touch "$TMPDIR/disk/here"
sleep 79.25
EOT
if unshare --mount true 2>/dev/null; then
    limit=1 TMPDIR=$work run "$work/mounts"; [ $? -eq 1 ] && says 'no end after 1 s' && ! grep -q "$work" /proc/self/mounts &&
        [ -z "$(find "$work" -name 'kr.*')" ]
    ok $? runner_unmounts_what_a_killed_program_mounted
    TMPDIR=$work "$top/tests/run" "$work/mounts" >"$work/out" 2>&1 &
    n=0
    until [ -n "$(find "$work" -name here)" ] || [ $n -ge 500 ]; do sleep 0.02; n=$((n + 1)); done
    kill -KILL $!
    wait $! 2>/dev/null
    pgrep -f 'sleep 79\.25' >/dev/null && TMPDIR=$work run "$work/plain" && ! grep -q "$work" /proc/self/mounts &&
        [ -z "$(find "$work" -name 'kr.*')" ] && ! pgrep -f 'sleep 79\.25' >/dev/null
    ok $? runner_sweeps_what_a_killed_runner_left
fi
run "$work/missing"; [ $? -eq 1 ] && last_line "0 passed, 1 failed"
ok $? runner_fails_a_program_that_is_not_there

# Programs that write down when they begin and end: together two overlap, one that wants to
# be alone does not, nor do two that are apart; one for idle time stands still while one is alone.
for name in one two lone; do
    printf 'echo "%s begins" >>%s/course; sleep 0.6; echo "%s ends" >>%s/course\n' \
        "$name" "$work" "$name" "$work" | program "$name.sh"
done
printf '# ALONE: to be seen\ntouch %s/stop\n' "$work" >>"$work/lone.sh"
program far.sh <<EOT
# APART: to be seen
echo "far begins" >>$work/course
until sed -n '/far begins/,\$p' $work/course | grep -q tick; do sleep 0.05; done
echo "far ends" >>$work/course
nice >$work/niceness
EOT
sed 's/far/near/' "$work/far.sh" | program near.sh
printf '# IDLE: to be seen\nuntil [ -e %s/stop ]; do echo tick >>%s/course; sleep 0.05; done\n' \
    "$work" "$work" | program idle.sh
course() { rm -f "$work/course"; run "$@"; }
at() { grep -nx "$1" "$work/course" | cut -d: -f1; }
order() { grep -o '[a-z]*\.sh' "$work/out" | tr '\n' ' '; }
course --jobs 2 "$work/one.sh" "$work/two.sh" && [ "$(at 'two begins')" -lt "$(at 'one ends')" ] &&
    [ "$(order)" = 'one.sh two.sh ' ]
ok $? runner_runs_as_many_as_it_is_told
course "$work/one.sh" "$work/two.sh" && [ "$(at 'two begins')" -gt "$(at 'one ends')" ]
ok $? runner_runs_one_after_the_other_unless_told
echo "touch $work/stop" >>"$work/lone.sh"
# two.sh goes on until far.sh has come, if that may come before others
may_come=$(nice -n -10 nice 2>/dev/null)
if [ "$may_come" = -10 ]; then
    printf 'until grep -qx "far begins" %s/course; do sleep 0.05; done\n' "$work" >>"$work/two.sh"
fi
course --jobs 2 "$work/idle.sh" "$work/lone.sh" "$work/far.sh" "$work/near.sh" "$work/one.sh" "$work/two.sh" &&
    [ "$(at 'lone begins')" -gt "$(at 'one ends')" ] && [ "$(at 'lone begins')" -gt "$(at 'two ends')" ] &&
    [ "$(at 'lone begins')" -gt "$(at 'far ends')" ] && [ "$(at 'lone begins')" -gt "$(at 'near ends')" ] &&
    [ "$(at 'near begins')" -gt "$(at 'far ends')" ] &&
    { [ "$may_come" != -10 ] || [ "$(cat "$work/niceness")" = -10 ]; } &&
    [ "$(sed -n '/lone begins/,/lone ends/p' "$work/course" | wc -l)" -eq 2 ] &&
    [ "$(order)" = 'one.sh two.sh far.sh near.sh lone.sh idle.sh ' ]
ok $? runner_keeps_company_from_who_wants_to_be_alone

if command -v mpirun >/dev/null 2>&1; then
    # shellcheck disable=SC2016  # for the program to expand
    printf 'n=$OMPI_COMM_WORLD_SIZE; echo "ok 1 - a"; echo 1..1; [ "$n" -le 2 ]\n' | program ranks
    echo '/* RANKS: 1 2 3 */' >"$work/ranks.c"
    run --ranks-from "$work/ranks.c" "$work/ranks"
    [ $? -eq 1 ] && last_line "3 passed, 1 failed" && says 'on 2 .*1 passed' && says 'FAIL.* on 3 '
    ok $? runner_starts_each_count_of_ranks_and_counts_a_case_once
    printf 'exec sleep 78.25\n' | program ranks_hang
    echo "/* RANKS: 2 */" >"$work/ranks.c"
    limit=2 run --ranks-from "$work/ranks.c" "$work/ranks_hang"
    [ $? -eq 1 ] && last_line "0 passed, 1 failed" && ! pgrep -f 'sleep 78\.25' >/dev/null
    ok $? runner_leaves_no_rank_after_a_timeout
fi

# --- layers --------------------------------------------------------------------------------
tree() { # tree FILE LINE: a checkout with one file of one line
    rm -rf "$work/tree"
    mkdir -p "$work/tree/$(dirname "$1")"
    echo "$2" >"$work/tree/$1"
    "$top/scripts/check-layers" "$work/tree" >"$work/out" 2>&1
}
refused() { ! tree "$@" && says "^$1:1: "; }

"$top/scripts/check-layers" >"$work/out" 2>&1
ok $? layers_of_this_checkout_are_in_order
tree comm/a.c '#include "kernels/kernels.h"' && tree tests/unit/a.c '#include <hdf5.h>' &&
    tree trainer/run/a.c '#include "comm/comm.h"' && tree base/cfg.c '#include <ini.h>' &&
    tree kernels/a.c '#include <sys/stat.h>'
ok $? layers_allow_what_lies_below
refused base/a.c '#include "kernels/kernels.h"' && refused kernels/a.h '# include "comm/comm.h"' &&
    refused trainer/data/a.c '#include "trainer/model/model.h"' &&
    refused front/main.c '#include "comm/comm.h"' &&
    refused checkpoints/a.c '#include "scheduler/beat.h"' &&
    refused comm/a.c '#include "part.h"' && refused comm/a.c '#include "../base/mem.h"'
ok $? layers_refuse_what_lies_above
refused comm/a.c '#include <mpi.h>' && refused trainer/run/a.c '#include <hdf5.h>' &&
    refused base/a.c '#include <nothing/known.h>' && refused trainer/run/a.c '#include <omp.h>'
ok $? layers_keep_outside_libraries_in_their_files

# --- packages ------------------------------------------------------------------------------
program bin/dpkg-query <<'EOT'
cat "$(dirname "$0")/../installed"
EOT
program bin/apt-get <<'EOT'
echo "apt-get $*" >>"$(dirname "$0")/../asked"
EOT
program bin/id <<'EOT'
cat "$(dirname "$0")/../uid"
EOT
program bin/sudo <<'EOT'
exit 1
EOT
deps() { rm -f "$work/asked"; PATH=$work/bin:$PATH "$top/scripts/install-deps" "$@" >"$work/out" 2>&1 </dev/null; }
all='gcc libc6-dev make pkgconf libopenmpi-dev openmpi-bin libhdf5-dev libopenblas0-openmp
     libinih-dev libcjson-dev libxxhash-dev libpcre2-dev libuv1-dev procps'
installed() { for p; do echo "$p ii "; done >"$work/installed"; }
echo 0 >"$work/uid"
# shellcheck disable=SC2086  # a list of words
installed $all
deps run && [ ! -s "$work/out" ] && [ ! -e "$work/asked" ]
ok $? packages_that_are_there_are_left_alone
deps check && grep -q 'install --no-install-recommends clang .*shellcheck' "$work/asked" &&
    ! grep -q libhdf5 "$work/asked"
ok $? packages_that_are_missing_are_installed
echo "shellcheck rc " >>"$work/installed"
deps check && grep -q 'install .*shellcheck' "$work/asked"
ok $? a_removed_package_is_missing
echo 1000 >"$work/uid"
deps check; [ $? -eq 1 ] && says 'only root may install: apt-get install -y clang' && [ ! -e "$work/asked" ]
ok $? without_root_one_line_says_what_is_missing

echo "1..$cases"
exit $bad
